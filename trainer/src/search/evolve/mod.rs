//! Evolution on the true loss, from the best maps of the sum model on.
//!
//! Rises do not add up: errors of one layer are answered by others, and a map of less summed error may be the worse one (Sieberling et al. 2024, "EvoPress", arXiv 2410.14649).
//! So the optimum of the sum model ([`knapsack`](super::knapsack)) is where the search starts, and what it trusts is the loss alone:
//!
//! ```text
//! starts        knapsack of the budget, of somewhat less, uniform maps, the smallest map
//! generation    parent: the least loss within the budget that was seen on all tokens
//!               λ offspring by mutations that keep to the budget, none that was tried before        (mutate.rs)
//!               stage 0 (few tokens)   λ offspring and the parent   ─ the best λ^(1 − 1/(s−1)) ─┐
//!               stage 1 (more)         …                                                       ─┴─ … ─┐
//!               stage s−1 (all)        the best one, unless that is the parent                       ─┴▶ parent, if its loss is less
//! end           `patience` generations in a row without a better one, and then a second look: what came furthest on few tokens and no further is evaluated on all
//! ```
//! - **Least loss**: generations of the one budget.
//! - **Front**: budgets spread between smallest and largest and those of uniform maps, a generation of each in turn, of uniform maps' four times as often, now and then of one between it and the next. All share what was evaluated: the parent of a budget is the best map of any that fits it, and
//!   the next larger budget's parent, lowered until it fits, is among the offspring. In every round the widest gaps between points of the front get a few maps of their own ([`gaps`](self::gaps)).
//! - **Least bytes**: the border of the limit, by bisection of the sum model's front, and then generations of smaller and smaller budgets ([`border`](self::border)).
//!
//! Offspring are made before any is evaluated, evaluated side by side, and chosen in their order: the outcome is a function of the seed, not of threads.
//! Losses are compared on the same tokens only; of equal ones the smaller file, then the lesser map is better.

mod border;
mod gaps;
mod generation;
mod mutate;

use super::error::{SearchError, SetupError};
use super::knapsack::SumFront;
use super::ledger::{Evaluator, Halt, Ledger};
use super::limits::{Goal, Hooks, Limits, Phase, Report};
use super::map::{Sensitivity, Sites};
use super::{Problem, report};

use generation::Evolution;

/// How a search goes about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Seed of the mutations.
    pub seed: u64,
    /// Offspring of a generation, λ; of [`Goal::Front`], which has many budgets, half as many.
    pub offspring: usize,
    /// Generations in a row without a better map after which a budget is done.
    pub patience: usize,
    /// Budgets of [`Goal::Front`].
    pub budgets: usize,
    /// Evaluations side by side; 0: as many as rayon has threads. The outcome does not depend on it.
    pub at_once: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            seed: 0,
            offspring: 16,
            patience: 16,
            budgets: 8,
            at_once: 0,
        }
    }
}

impl Options {
    fn check(&self) -> Result<(), SetupError> {
        let counts = [
            ("offspring", self.offspring),
            ("patience", self.patience),
            ("budgets", self.budgets),
        ];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            Some((option, _)) => Err(SetupError::Zero { option }),
            None => Ok(()),
        }
    }
}

/// Searches for what `goal` says, within `limits`.
///
/// # Errors
/// If the inputs make no sense, if an evaluation fails, or if the journal cannot be written. What was evaluated until then is in the journal.
pub fn search<E: Evaluator>(
    problem: &Problem<'_, E>,
    goal: Goal,
    limits: &Limits,
    options: &Options,
    hooks: Hooks<'_>,
) -> Result<Report, SearchError<E::Error>> {
    options.check()?;
    if goal == Goal::LeastBytes && limits.max_loss.is_none() {
        return Err(SetupError::NoMaxLoss.into());
    }
    let ledger = Ledger::new(problem.evaluator, goal, limits, options.at_once, hooks)?;
    report::within_reach(problem, goal, limits, ledger, |ledger, smallest, largest| {
        let mut evolution = Evolution::new(problem, options, ledger, smallest, largest);
        match (goal, limits.max_loss) {
            (Goal::LeastBytes, Some(loss)) => evolution.least_bytes(loss),
            (Goal::Front, _) => evolution.front(),
            _ => evolution.least_loss(),
        }
    })
}
