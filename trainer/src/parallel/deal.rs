//! Who updates what, where ranks divide a model's arenas among them.
//!
//! Gradients come in *buckets*, stretches of the arenas that are complete one after the other in a backward pass. Of each bucket every rank has an equal *part*, whose sums of gradients it gets, whose
//! moments it keeps and whose weights it updates; what cannot be divided evenly, the bucket's *tail*, every rank does by itself. So a sum of gradients is one collective of equal parts, and the
//! work of an update is 1/W of the whole.
//!
//! ```text
//! bucket   | part of rank 0 | part of rank 1 | … | part of rank W−1 | tail |
//! ```

use std::ops::Range;

use onebit_model::network::cuda::{ALIGNMENT, Layout};

use crate::options::Sharding;

/// Parts are multiples of this many elements: of blocks of the optimiser, and of the pieces over which |W| is summed.
pub(crate) const GRAIN: usize = 4096;

/// A stretch of the arenas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// All of it.
    pub elements: Range<usize>,
    /// How many of them are dealt out.
    dealt: usize,
}

impl Bucket {
    /// What is dealt out: one part for each rank.
    pub fn dealt(&self) -> Range<usize> {
        self.elements.start..self.elements.start + self.dealt
    }

    /// The part of a rank.
    pub fn part(&self, rank: usize, size: usize) -> Range<usize> {
        let part = self.dealt / size;
        let start = self.elements.start + rank * part;
        start..start + part
    }

    /// What is not dealt out.
    pub fn tail(&self) -> Range<usize> {
        self.elements.start + self.dealt..self.elements.end
    }
}

/// The buckets of a model, and which rank this is.
#[derive(Clone, Debug)]
pub(crate) struct Deal {
    pub rank: usize,
    pub size: usize,
    /// In the order in which they are complete.
    pub buckets: Vec<Bucket>,
}

impl Deal {
    /// How `layout` is dealt to `size` ranks, of which this is `rank`.
    pub fn new(layout: &Layout, (rank, size): (usize, usize)) -> Self {
        Self::of(layout.buckets(), (rank, size))
    }

    fn of(buckets: Vec<Range<usize>>, (rank, size): (usize, usize)) -> Self {
        let bucket = |elements: Range<usize>| Bucket {
            dealt: elements.len() / (GRAIN * size) * (GRAIN * size),
            elements,
        };
        let buckets = buckets.into_iter().map(bucket).collect();
        Deal { rank, size, buckets }
    }

    /// This rank's parts, in the order of the buckets.
    pub fn parts(&self) -> impl Iterator<Item = Range<usize>> {
        let parts = self.buckets.iter().map(|b| b.part(self.rank, self.size));
        parts.filter(|part| !part.is_empty())
    }

    /// What is not dealt out, in the order of the buckets.
    pub fn tails(&self) -> impl Iterator<Item = Range<usize>> {
        self.buckets.iter().map(Bucket::tail).filter(|tail| !tail.is_empty())
    }
}

/// A stretch of the arenas that is updated here, and where its moments begin in the arenas of those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub elements: Range<usize>,
    pub at: usize,
}

/// What is updated here.
#[derive(Clone, Debug)]
pub(crate) struct Pieces {
    /// One behind the other in the arenas of moments; none has elements on both sides of where the blocks' matrices begin.
    pub all: Vec<Piece>,
    /// Elements of all of them.
    pub len: usize,
}

impl Pieces {
    /// All of `layout`, or, where `sharding` says so, this rank's parts of a deal and its tails.
    pub fn new(layout: &Layout, sharding: Sharding, (rank, size): (usize, usize)) -> Self {
        if sharding == Sharding::None || size == 1 {
            return Self::whole(layout);
        }
        let deal = Deal::new(layout, (rank, size));
        Self::of(deal.parts().chain(deal.tails()).collect::<Vec<_>>())
    }

    /// All of `layout`.
    pub fn whole(layout: &Layout) -> Self {
        Self::of([0..layout.matrices, layout.matrices..layout.len])
    }

    fn of(stretches: impl IntoIterator<Item = Range<usize>>) -> Self {
        let mut len = 0;
        let place = |elements: Range<usize>| {
            let at = len;
            len += elements.len();
            Piece { elements, at }
        };
        let all = stretches.into_iter().filter(|s| !s.is_empty()).map(place).collect();
        Pieces { all, len }
    }

    /// What of `elements` is here: where in the arena, and where among the moments.
    pub fn within(&self, elements: &Range<usize>) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let Range { start, end } = *elements;
        self.all.iter().filter_map(move |piece| {
            let common = piece.elements.start.max(start)..piece.elements.end.min(end);
            let at = piece.at + common.start.checked_sub(piece.elements.start)?;
            (!common.is_empty()).then(|| (common.clone(), at..at + common.len()))
        })
    }
}

// Blocks of 8-bit moments and flags of decay are never divided.
const _: () = assert!(GRAIN.is_multiple_of(ALIGNMENT));

#[cfg(test)]
mod tests {
    use onebit_model::config::presets;

    use super::*;

    /// Every element is updated, by one rank or, in a tail, by all.
    #[test]
    fn every_element_is_dealt_once() {
        for preset in ["25m", "125m", "8b", "quickstart"] {
            let config = presets::by_name(preset).unwrap().config;
            let layout = Layout::new(&config, &config.tensors()).unwrap();
            for size in [2, 3, 8, 64] {
                let (mut parts, mut tails) = (Vec::new(), Vec::new());
                for rank in 0..size {
                    let deal = Deal::new(&layout, (rank, size));
                    parts.extend(deal.parts());
                    tails = deal.tails().collect();
                    let pieces = Pieces::new(&layout, Sharding::Optimizer, (rank, size));
                    let held: usize = pieces.all.iter().map(|p| p.elements.len()).sum();
                    assert_eq!(pieces.len, held);
                    for piece in &pieces.all {
                        assert!(piece.elements.start.is_multiple_of(ALIGNMENT) && piece.at.is_multiple_of(ALIGNMENT));
                        assert!(piece.elements.end <= layout.matrices || piece.elements.start >= layout.matrices);
                    }
                }
                let tail: usize = tails.iter().map(Range::len).sum();
                assert!(tail < layout.buckets().len() * size * GRAIN);
                let mut all = parts;
                all.extend(tails);
                all.sort_by_key(|range| range.start);
                assert_eq!(
                    (all[0].start, all[all.len() - 1].end),
                    (0, layout.len),
                    "{preset} {size}"
                );
                assert!(
                    all.windows(2).all(|pair| pair[0].end == pair[1].start),
                    "{preset} {size}"
                );
            }
        }
    }

    #[test]
    fn what_of_a_tensor_is_here() {
        let pieces = Pieces::of([10..20, 30..40, 50..60]);
        let found: Vec<_> = pieces.within(&(15..55)).collect();
        assert_eq!(found, [(15..20, 5..10), (30..40, 10..20), (50..55, 20..25)]);
        assert_eq!(pieces.within(&(20..30)).count(), 0);
        assert_eq!(pieces.len, 30);
        let one = Pieces::of([0..0, 0..256]);
        assert_eq!(one.within(&(0..256)).collect::<Vec<_>>(), [(0..256, 0..256)]);
    }
}
