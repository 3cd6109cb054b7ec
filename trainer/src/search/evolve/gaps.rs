//! Where a front has no points.
//!
//! Bytes between two points buy nothing, and any map that falls between them is one that the front does not dominate. A gap counts by what it may hide:
//! `ln(bytes of the larger point / low) · (loss of the smaller − loss of the larger)`, where `low` is the smaller point or the largest budget in between that was tried in vain. The widest are tried in
//! their middle, so that a step of the loss, as at the bytes of a large embedding's next width, is found by bisection.

use super::generation::Evolution;
use super::*;
use crate::search::draft::{Draft, Draws};
use crate::search::map::Candidate;
use crate::search::pareto::Front;

const PURPOSE_GAPS: u32 = 0x6761_7073;
/// Gaps of a round.
const GAPS: usize = 12;
/// Proposals of which the sum model chooses one.
const PROPOSALS: usize = 16;
/// The least gap, as a part of its bytes.
const FINE: u64 = 2048;

/// Budgets between points of `front` to be tried next, the widest gap first.
fn widest(front: &Front, tried: &[u64], count: usize) -> Vec<u64> {
    let mut gaps: Vec<(f64, u64)> = front
        .points()
        .windows(2)
        .filter_map(|pair| {
            let (from, to) = (&pair[0], &pair[1]);
            let low = (tried.iter().copied())
                .filter(|&budget| budget < to.bytes)
                .fold(from.bytes, u64::max);
            let width = (to.bytes as f64 / low as f64).ln() * (from.loss - to.loss);
            (to.bytes - low > to.bytes / FINE).then_some((width, low + (to.bytes - low) / 2))
        })
        .collect();
    gaps.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    gaps.into_iter().take(count).map(|(_, budget)| budget).collect()
}

impl<E: Evaluator> Evolution<'_, '_, '_, E> {
    /// Evaluates maps for the widest gaps of the front: the best of the sum model, and the points on both sides of the gap, raised and lowered. `tried` are the budgets so far.
    pub(super) fn gaps(&mut self, round: u64, tried: &mut Vec<u64>) -> Result<(), Halt<E::Error>> {
        let mut draws = Draws::new(self.options.seed, PURPOSE_GAPS, round);
        let budgets = widest(&self.ledger.front, tried, GAPS);
        let mut maps = Vec::new();
        for &budget in &budgets {
            let points = self.ledger.front.points();
            let above = points.partition_point(|point| point.bytes <= budget);
            let sides: Vec<Candidate> = (points[above.saturating_sub(1)..].iter().take(2))
                .map(|point| point.map.clone())
                .collect();
            maps.push(self.knapsack(budget));
            maps.extend(sides.iter().filter_map(|map| self.fitted(map, budget, &mut draws)));
        }
        tried.extend(budgets);
        self.on_all_tokens(&maps)
    }

    /// The best by the sum model of some maps of `budget` bytes that are `map`, raised or lowered.
    fn fitted(&self, map: &Candidate, budget: u64, draws: &mut Draws) -> Option<Candidate> {
        let proposals = (0..PROPOSALS).filter_map(|_| {
            let mut draft = Draft::new(self.sites, self.ledger.evaluator, map, budget);
            draft.lower(draws);
            draft.raise(draws);
            let map = draft.finish(draws)?;
            Some((self.rises.sum(&map), map))
        });
        let best = proposals.min_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        best.map(|(_, map)| map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::pareto::Point;

    fn front(points: &[(u64, f64)]) -> Front {
        let point = |&(bytes, loss): &(u64, f64)| Point {
            bytes,
            loss,
            map: Candidate::new(Vec::new()),
        };
        points.iter().map(point).collect()
    }

    #[test]
    fn the_widest_gap_is_bisected_towards_the_larger_point() {
        let front = front(&[(10_000, 9.0), (20_000, 5.0), (22_000, 4.9), (22_005, 4.0)]);
        assert_eq!(widest(&front, &[], 8), [15_000, 21_000]);
        assert_eq!(widest(&front, &[], 1), [15_000]);
        assert_eq!(widest(&front, &[15_000], 1), [17_500]);
        // Beyond what is worth it.
        assert!(widest(&front, &[19_995, 21_995], 8).is_empty());
    }
}
