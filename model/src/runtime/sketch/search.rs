//! Finding the largest logits with a sketch.

use alloc::vec::Vec;

use onebit_kernels_cpu::math::sqrt_f64;
use onebit_kernels_cpu::ternary::Layout;
use onebit_kernels_cpu::{Isa, elementwise, hadamard, softcap, t2, ternary_gemv};

use super::{FINER, HeadSketch, RowFigures, Top};
use crate::runtime::buffers::zeros;
use crate::runtime::error::RuntimeError;
use crate::runtime::executor::Executor;
use crate::runtime::floats::FloatMatrix;
use crate::runtime::linear::{Input, Scratch};
use crate::runtime::winners::{self, MORE, some_rows};
use crate::sampling::filters::{self, Candidate};

/// The whole head is computed if more than one row in so many can win by both planes.
const FEW: usize = 4;
/// Rows that the second plane reads together.
const GROUP: u32 = t2::GROUP_ROWS as u32;

/// The memory of a search.
pub(in crate::runtime) struct SearchBuffers {
    /// The rotated input, `[cols]`, and its like.
    rotated: Vec<f32>,
    spare: Vec<f32>,
    /// The input as bytes, `[padded cols]`.
    pub(super) bytes: Vec<i8>,
    /// `[rows]`: the most that each logit can be by the first plane.
    pub(super) most: Vec<f32>,
    /// Rows to be computed exactly, and their logits.
    chosen: Vec<u32>,
    exact: Vec<f32>,
    candidates: Vec<Candidate>,
}

/// What a search read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runtime) struct Found {
    /// Rows that the first plane left.
    pub second: usize,
    /// Rows that both planes left.
    pub rows: usize,
    /// Bytes of planes and head.
    pub bytes: usize,
}

/// The input of a search.
pub(super) struct Query {
    /// `s`
    pub step: f32,
    /// `½ Σ xq`
    half_sum: f32,
    /// `‖x‖`
    pub length: f32,
}

impl Query {
    /// The estimate by one plane's sum.
    fn estimate(&self, sum: f32, figures: &RowFigures) -> f32 {
        (sum - self.half_sum) * self.step * figures.unit
    }

    /// The estimate by both planes, from the most by the first and the sum of the second.
    pub fn refined(&self, most: f32, first: &RowFigures, sum: f32, both: &RowFigures) -> f32 {
        // The first estimate has the first unit in it; a row of zeros has none.
        let first = if first.unit == 0.0 {
            0.0
        } else {
            (most - self.bound(first)) / first.unit
        };
        both.unit * (first + FINER * (sum - self.half_sum) * self.step)
    }

    /// How far an estimate may be off.
    pub fn bound(&self, figures: &RowFigures) -> f32 {
        figures.radius * self.length + figures.rounding * self.step
    }
}

impl SearchBuffers {
    /// For searches with `sketch`.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`].
    pub fn new(sketch: &HeadSketch) -> Result<Self, RuntimeError> {
        const WHAT: &str = "the search of the head";
        let (rows, cols) = (sketch.rows, sketch.cols);
        let mut candidates = Vec::new();
        let refused = |_| RuntimeError::OutOfMemory {
            what: WHAT,
            values: rows,
        };
        candidates.try_reserve_exact(rows).map_err(refused)?;
        Ok(Self {
            rotated: zeros(WHAT, cols)?,
            spare: zeros(WHAT, cols)?,
            bytes: zeros(WHAT, t2::padded_cols(cols))?,
            most: zeros(WHAT, rows)?,
            chosen: zeros(WHAT, rows)?,
            exact: zeros(WHAT, rows)?,
            candidates,
        })
    }
}

impl HeadSketch {
    /// Writes the logits of `x`, capped if there is a cap (one token, the normed input of `head`; for an int4 head `x.float` is what `x.blocks` stand for) that can be among the `top`, and −∞ for all others. Returns of how many
    /// rows the second plane was read and how many were computed exactly, or `None` if the whole head must be; `logits` is then unspecified.
    pub(in crate::runtime) fn search<E: Executor>(
        &self,
        exec: &E,
        isa: Isa,
        (head, cap): (&FloatMatrix, Option<f32>),
        x: Input<'_>,
        top: Top<'_>,
        buffers: &mut SearchBuffers,
        scratch: &mut [Scratch],
        logits: &mut [f32],
    ) -> Option<Found> {
        let few = self.rows / FEW;
        if top.count == 0 || top.count + MORE > few {
            return None;
        }
        let query = self.query(isa, x.float, buffers)?;
        self.estimate(exec, isa, &query, buffers, scratch);
        let SearchBuffers {
            most,
            chosen,
            exact,
            candidates,
            ..
        } = buffers;

        // The threshold: rows that may not set it are out of sight while the best are looked for.
        let hidden = &mut exact[..top.except.len().min(self.rows)];
        let except = &top.except[..hidden.len()];
        for (hidden, &id) in hidden.iter_mut().zip(except) {
            *hidden = core::mem::replace(&mut most[id as usize], f32::NEG_INFINITY);
        }
        filters::top_k(most, top.count + MORE, candidates);
        // Backwards: of an id that is there twice the first held the estimate.
        for (&hidden, &id) in hidden.iter().zip(except).rev() {
            most[id as usize] = hidden;
        }
        if candidates.len() < top.count || except.len() < top.except.len() {
            return None;
        }
        let best_rows = candidates.len();
        let threshold = winners::threshold(isa, (head, cap), x, top, candidates, chosen, exact)?;

        let second = first_winners(most, threshold, chosen);
        let opened = t2::GROUP_ROWS * chosen[..second].chunk_by(|a, b| a / GROUP == b / GROUP).count();
        let by_both = &mut exact[..second];
        let shares = exec.shares(second * t2::group_bytes(self.cols));
        exec.share(shares, by_both, 1, scratch, |first, out, scratch| {
            let rows = &chosen[first..first + out.len()];
            self.second_most(isa, &query, &buffers.bytes, most, rows, out, &mut scratch.sums);
        });
        let mut count = 0;
        for (i, most) in by_both.iter().enumerate() {
            chosen[count] = chosen[i];
            count += usize::from(*most >= threshold);
        }
        if count > few {
            return None;
        }
        let (chosen, exact) = (&chosen[..count], &mut exact[..count]);
        let work = count * head.values.bytes() / self.rows;
        let piece = count.div_ceil(exec.pieces(work)).max(1);
        exec.rows(exact, piece, |first, out| {
            some_rows(isa, head, x, &chosen[first..first + out.len()], out);
        });
        if let Some(cap) = cap {
            softcap::softcap(isa, cap, exact);
        }
        logits.fill(f32::NEG_INFINITY);
        for (&row, &logit) in chosen.iter().zip(&*exact) {
            logits[row as usize] = logit;
        }
        let (t2_row, float_row) = (
            t2::group_bytes(self.cols) / t2::GROUP_ROWS,
            head.values.bytes() / self.rows,
        );
        Some(Found {
            second,
            rows: count,
            bytes: self.first_bytes() + t2_row * opened + (best_rows + count) * float_row,
        })
    }

    /// Rotates `x` and turns it to bytes; `None` if it is not finite.
    pub(super) fn query(&self, isa: Isa, x: &[f32], buffers: &mut SearchBuffers) -> Option<Query> {
        let rotated = &mut buffers.rotated;
        rotated.copy_from_slice(x);
        hadamard::rotate(isa, rotated, &self.signs, &mut buffers.spare);
        let most = rotated.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let length = sqrt_f64(elementwise::sum_squares(isa, x)) as f32;
        // `max` passes NaN over, the sum does not.
        if !length.is_finite() {
            return None;
        }
        // Half a byte of room for θ.
        let step = most.max(f32::MIN_POSITIVE) / 126.5;
        let mut sum = 0;
        for ((byte, value), threshold) in buffers.bytes.iter_mut().zip(&*rotated).zip(&self.thresholds) {
            // Positive before it is cut off, so that cutting off is rounding down.
            let rounded = (value / step + threshold + 128.0) as i32 - 128;
            *byte = rounded.clamp(-128, 127) as i8;
            sum += i32::from(*byte);
        }
        Some(Query {
            step,
            half_sum: 0.5 * sum as f32,
            length,
        })
    }

    /// The most that every logit can be.
    pub(super) fn estimate<E: Executor>(
        &self,
        exec: &E,
        isa: Isa,
        query: &Query,
        buffers: &mut SearchBuffers,
        scratch: &mut [Scratch],
    ) {
        let group = t2::group_bytes(self.cols);
        let bytes = &buffers.bytes;
        let plane = &self.planes[0];
        let (most, shares) = (&mut buffers.most, exec.shares(plane.bytes()));
        exec.share(shares, most, t2::GROUP_ROWS, scratch, |first, out, scratch| {
            let step = scratch.sums.len() / t2::GROUP_ROWS * t2::GROUP_ROWS;
            let mut first = first;
            for out in out.chunks_mut(step) {
                let sums = &mut scratch.sums[..out.len()];
                let from = first / t2::GROUP_ROWS * group;
                let w = &plane.packed[from..from + t2::bytes(out.len(), self.cols)];
                ternary_gemv::ternary_gemv(isa, Layout::T2, w, self.cols, bytes, sums);
                for ((out, &sum), figures) in out.iter_mut().zip(&*sums).zip(&plane.figures[first..]) {
                    *out = query.estimate(sum as f32, figures) + query.bound(figures);
                }
                first += out.len();
            }
        });
    }

    /// The most that the logits of the rows `chosen`, which ascend, can be by both planes. `most` is that of every row by the first. Rows of a
    /// group are read together.
    pub(super) fn second_most(
        &self,
        isa: Isa,
        query: &Query,
        bytes: &[i8],
        most: &[f32],
        chosen: &[u32],
        out: &mut [f32],
        sums: &mut [i32],
    ) {
        let group = t2::group_bytes(self.cols);
        let [first, both] = &self.planes;
        let mut open = usize::MAX;
        for (&row, out) in chosen.iter().zip(out) {
            let row = row as usize;
            let (g, r) = (row / t2::GROUP_ROWS, row % t2::GROUP_ROWS);
            if g != open {
                let rows = t2::GROUP_ROWS.min(self.rows - g * t2::GROUP_ROWS);
                let w = &both.packed[g * group..(g + 1) * group];
                ternary_gemv::ternary_gemv(isa, Layout::T2, w, self.cols, bytes, &mut sums[..rows]);
                open = g;
            }
            // A sum of bytes times levels is a whole number that f32 holds up to a part in 10⁷, which the bound has room for.
            let figures = &both.figures[row];
            let estimate = query.refined(most[row], &first.figures[row], sums[r] as f32, figures);
            *out = estimate + query.bound(figures);
        }
    }
}

/// The rows that can reach `threshold` by the first plane, into `chosen`, `[rows]`.
fn first_winners(most: &[f32], threshold: f32, chosen: &mut [u32]) -> usize {
    /// Rows that are compared as a whole, in vectors, before any is looked at alone.
    const RUN: usize = 64;
    let mut count = 0;
    for (most, start) in most.chunks(RUN).zip((0u32..).step_by(RUN)) {
        if most.iter().fold(false, |any, most| any | (*most >= threshold)) {
            for (most, id) in most.iter().zip(start..) {
                // Written in any case, kept if it counts: many rows can win here, and a branch on each would be mispredicted.
                chosen[count] = id;
                count += usize::from(*most >= threshold);
            }
        }
    }
    count
}
