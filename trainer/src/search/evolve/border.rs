//! The fewest bytes that keep to a limit of the loss.
//!
//! ```text
//!              reaches the limit                                    does not
//! 1 grid       ◀───── some budgets between largest and smallest, each with the best map of the sum model ─────▶
//!              none reaches the limit: uniform maps, then generations of the whole budget, until a map does
//! 2 bisection                   of the budgets below the smallest map that does, in the same way
//! 3 border     generations of a budget somewhat below the best map's bytes: when one reaches the limit, the step doubles,
//!              when `patience` of them do not, it halves; with the least step the budget is one byte less, and then it is done
//! ```
//! The loss is not monotone in the budget, so the bisection finds a border, not the border; the generations below it see to the rest.

use super::generation::{Evolution, budgets};
use super::*;
use crate::search::map::Candidate;

/// Budgets of the grid.
const GRID: usize = 16;
/// The steps of the border, as parts of the best map's bytes: the largest, the first, and the least but for that of one byte.
const STEPS: [u64; 3] = [8, 32, 1024];
/// How fine the bisection is, as a part of the bytes where it begins.
const FINE: u64 = 512;

impl<E: Evaluator> Evolution<'_, '_, '_, E> {
    /// Looks for the fewest bytes with a loss of at most `limit`.
    pub(super) fn least_bytes(&mut self, limit: f64) -> Result<(), Halt<E::Error>> {
        let budgets = budgets(self.smallest.0, self.largest, GRID);
        let maps: Vec<Candidate> = budgets.iter().map(|&budget| self.knapsack(budget)).collect();
        self.on_all_tokens(&maps)?;
        if self.reached(limit).is_none() {
            self.starts(self.largest)?;
            let enough = |ledger: &Ledger<'_, '_, E>| ledger.front.reaching(limit).is_some();
            self.generations(self.largest, self.options.patience, enough)?;
        }
        let Some(most) = self.reached(limit) else {
            return Ok(());
        };
        self.ledger.phase = Phase::Border;
        // Up to the next budget of the grid: what lies below it did not reach the limit.
        let low = budgets.iter().copied().find(|&budget| budget < most);
        self.bisect(limit, low.unwrap_or(self.smallest.0), most)?;
        self.below(limit)
    }

    /// Bytes of the smallest map that reaches the limit.
    fn reached(&self, limit: f64) -> Option<u64> {
        self.ledger.front.reaching(limit).map(|point| point.bytes)
    }

    /// Halves what lies between a budget whose map did not reach the limit, `low`, and a map of `high` bytes that does.
    fn bisect(&mut self, limit: f64, mut low: u64, mut high: u64) -> Result<(), Halt<E::Error>> {
        let fine = (high / FINE).max(1);
        while high.saturating_sub(low) > fine {
            let budget = low + (high - low) / 2;
            let map = self.knapsack(budget);
            self.on_all_tokens(&[map])?;
            match self.reached(limit).filter(|&bytes| bytes <= budget) {
                Some(bytes) => high = bytes,
                None => low = budget,
            }
        }
        Ok(())
    }

    /// Generations of budgets below the best map's.
    fn below(&mut self, limit: f64) -> Result<(), Halt<E::Error>> {
        let [largest, mut part, least] = STEPS;
        while let Some(bytes) = self.reached(limit).filter(|&bytes| bytes > self.smallest.0) {
            let last = part > least;
            let step = if last { 1 } else { (bytes / part).max(1) };
            let budget = bytes.saturating_sub(step).max(self.smallest.0);
            // Large steps are a gamble, the last one is the proof.
            let patience = if last {
                self.options.patience
            } else {
                self.options.patience.div_ceil(4)
            };
            let map = self.knapsack(budget);
            self.on_all_tokens(&[map])?;
            let enough =
                |ledger: &Ledger<'_, '_, E>| ledger.front.reaching(limit).is_some_and(|best| best.bytes <= budget);
            self.generations(budget, patience, enough)?;
            self.ledger.phase = Phase::Border;
            match self.reached(limit).is_some_and(|reached| reached <= budget) {
                true => part = (part / 2).max(largest),
                false if last => return Ok(()),
                false => part *= 2,
            }
        }
        Ok(())
    }
}
