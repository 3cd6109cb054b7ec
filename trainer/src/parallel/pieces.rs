//! What of a model's arenas a rank updates, and where its moments lie.

use std::ops::Range;

use onebit_model::network::cuda::{ALIGNMENT, Deal, GRAIN, Layout};

use crate::options::Sharding;

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

    #[test]
    fn pieces_are_whole_blocks_on_one_side() {
        for preset in ["25m", "125m", "quickstart"] {
            let config = presets::by_name(preset).unwrap().config;
            let layout = Layout::new(&config, &config.tensors()).unwrap();
            for size in [1, 2, 3, 8] {
                let mut updated = vec![0usize; layout.len / ALIGNMENT];
                for rank in 0..size {
                    let pieces = Pieces::new(&layout, Sharding::Optimizer, (rank, size));
                    assert_eq!(pieces.len, pieces.all.iter().map(|p| p.elements.len()).sum::<usize>());
                    for piece in &pieces.all {
                        let Range { start, end } = piece.elements;
                        assert!(start.is_multiple_of(ALIGNMENT) && piece.at.is_multiple_of(ALIGNMENT));
                        assert!(end <= layout.matrices || start >= layout.matrices);
                        updated[start / ALIGNMENT..end / ALIGNMENT]
                            .iter_mut()
                            .for_each(|n| *n += 1);
                    }
                }
                assert!(
                    updated.iter().all(|&ranks| ranks == 1 || ranks == size),
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
