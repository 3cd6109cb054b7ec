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

use super::layout::Layout;

/// Parts are multiples of this many elements: of blocks of the optimiser, and of the pieces over which |W| is summed.
pub const GRAIN: usize = 4096;

/// A stretch of the arenas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
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
pub struct Deal {
    /// Which rank this is.
    pub rank: usize,
    /// Ranks.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::presets;

    /// Every element is in one part, or in a tail that is shorter than a grain for each rank.
    #[test]
    fn every_element_is_dealt_once() {
        for preset in ["25m", "125m", "8b", "quickstart"] {
            let config = presets::by_name(preset).unwrap().config;
            let layout = Layout::new(&config, &config.tensors()).unwrap();
            for size in [1, 2, 3, 8, 64] {
                let mut all: Vec<_> = (0..size)
                    .flat_map(|rank| Deal::new(&layout, (rank, size)).parts().collect::<Vec<_>>())
                    .collect();
                let tails: Vec<_> = Deal::new(&layout, (0, size)).tails().collect();
                assert!(tails.iter().all(|tail| tail.len() < size * GRAIN));
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
}
