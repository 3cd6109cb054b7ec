//! The plan of an embedding's backward: which positions of a batch hold each id.
//!
//! Sorted by id, the positions are cut into segments of at most [`SEGMENT`] positions of one id. A segment that is all there is of its id is added straight
//! to the gradient; the segments of a more frequent id are summed each by itself, and then in order. All arrays have a size that tokens and vocabulary
//! fix, with what is used of them in `counts`, so that a recording of the launches serves every batch.

use super::{CudaError, Result};

/// Positions of a segment, at most.
pub const SEGMENT: usize = 32;

/// Marks the destination of a segment as a row of partial sums.
pub(super) const PARTIAL: u32 = 1 << 31;

/// Shape of the plan for batches of `tokens` tokens of a vocabulary of `vocab`. A plan is one array of `u32`:
///
/// ```text
/// counts   [4]                 segments, frequent ids, 0, 0
/// segments [tokens + 1, 2]     where it starts in `order`, id or (with the highest bit) row of partial sums; one more start at the end
/// frequent [tokens / 33 + 1, 3]  id, first row of partial sums, rows
/// order    [tokens]            positions by id, and in the order of the text within an id
/// present  [⌈vocab / 32⌉]      bit `id mod 32` of word `id / 32`: whether the id occurs
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanShape {
    /// Tokens of a batch.
    pub tokens: usize,
    /// Rows of the table.
    pub vocab: usize,
}

impl PlanShape {
    /// Ids that occur more than [`SEGMENT`] times, at most.
    pub(super) fn frequent(&self) -> usize {
        self.tokens / (SEGMENT + 1) + 1
    }

    /// Rows of `dim` that the partial sums take, at most: an id that occurs n > 32 times has ⌈n / 32⌉ ≤ 2n / 33 of them.
    pub fn partial_rows(&self) -> usize {
        2 * self.tokens / (SEGMENT + 1) + 1
    }

    pub(super) fn segments_at(&self) -> usize {
        4
    }

    pub(super) fn frequent_at(&self) -> usize {
        self.segments_at() + 2 * (self.tokens + 1)
    }

    pub(super) fn order_at(&self) -> usize {
        self.frequent_at() + 3 * self.frequent()
    }

    pub(super) fn present_at(&self) -> usize {
        self.order_at() + self.tokens
    }

    /// Elements of a plan.
    pub fn words(&self) -> usize {
        self.present_at() + self.vocab.div_ceil(32)
    }
}

/// Makes plans on the host; keeps its scratch memory from one to the next.
#[derive(Clone, Debug)]
pub struct Planner {
    shape: PlanShape,
    /// Where each id begins in `order`, and while positions are placed where its next one goes.
    next: Vec<u32>,
}

impl Planner {
    /// A planner for one shape of batches.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for more than 2³¹ − 1 tokens or ids.
    pub fn new(shape: PlanShape) -> Result<Self> {
        if shape.tokens > i32::MAX as usize || shape.vocab > i32::MAX as usize {
            return Err(CudaError::shape(
                OP,
                "less than 2^31 tokens and ids",
                format!("{shape:?}"),
            ));
        }
        Ok(Planner {
            shape,
            next: vec![0; shape.vocab],
        })
    }

    /// Its shape.
    pub fn shape(&self) -> PlanShape {
        self.shape
    }

    /// Writes the plan for `ids` `[tokens]` to `plan` `[words]`, by a counting sort: O(tokens + vocab).
    ///
    /// # Errors
    /// [`CudaError::Shape`] for lengths that differ, or an id that the table does not have.
    pub fn plan(&mut self, ids: &[u32], plan: &mut [u32]) -> Result<()> {
        let shape = self.shape;
        crate::device::need(OP, "ids", shape.tokens, ids.len())?;
        crate::device::need(OP, "plan", shape.words(), plan.len())?;
        if let Some(id) = ids.iter().find(|id| **id as usize >= shape.vocab) {
            return Err(CudaError::shape(OP, format!("ids below {}", shape.vocab), id));
        }
        let (head, present) = plan.split_at_mut(shape.present_at());
        let (head, order) = head.split_at_mut(shape.order_at());
        let (head, frequent) = head.split_at_mut(shape.frequent_at());
        let (counts, segments) = head.split_at_mut(shape.segments_at());

        let next = &mut self.next;
        next.fill(0);
        present.fill(0);
        for &id in ids {
            next[id as usize] += 1;
        }
        let (mut start, mut segment, mut several, mut row) = (0u32, 0, 0, 0u32);
        for (id, next) in next.iter_mut().enumerate() {
            let n = *next;
            *next = start;
            if n == 0 {
                continue;
            }
            present[id / 32] |= 1 << (id % 32);
            let pieces = n.div_ceil(SEGMENT as u32);
            for piece in 0..pieces {
                segments[2 * segment] = start + piece * SEGMENT as u32;
                segments[2 * segment + 1] = if pieces == 1 {
                    id as u32
                } else {
                    PARTIAL | (row + piece)
                };
                segment += 1;
            }
            if pieces > 1 {
                frequent[3 * several..3 * several + 3].copy_from_slice(&[id as u32, row, pieces]);
                several += 1;
                row += pieces;
            }
            start += n;
        }
        segments[2 * segment] = start;
        segments[2 * segment + 1] = 0;
        counts.copy_from_slice(&[segment as u32, several as u32, 0, 0]);
        for (position, &id) in ids.iter().enumerate() {
            let at = &mut next[id as usize];
            order[*at as usize] = position as u32;
            *at += 1;
        }
        Ok(())
    }
}

const OP: &str = "embedding plan";
