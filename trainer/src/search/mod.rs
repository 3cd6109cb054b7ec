//! Search for the width of every tensor of a model: the least loss within so many bytes, or the fewest bytes with so much loss.
//!
//! The module is algorithms only. A model is what [`Evaluator`] says of a [`Candidate`]: the exact bytes of its file and its loss over the first so many tokens of a text.
//!
//! ```text
//! Sites, Sensitivity ─ knapsack ─ the best maps if losses added up ─┐
//!                                                                   ▼
//! Evaluator ──────────▶ ledger ◀──── evolve: mutations, selection on more and more tokens
//!   bytes, loss         │ counts every evaluation, asks every limit,       ◀──── random: the same books, for comparison
//!                       │ knows what was evaluated, writes the journal
//!                       ▼
//!                       pareto: the front of (bytes, loss)  ──▶ Report: found, or which limit cannot be met and what comes nearest
//! ```
//! | file | what |
//! |---|---|
//! | [`map`](Sites) | sites, choices, maps |
//! | [`pareto`] | the front, its hypervolume |
//! | [`knapsack`] | the sum model, exactly |
//! | `evolve` | the search on the true loss: [`search`] |
//! | `random` | the baseline: [`random_search`] |
//! | `draft` | maps that are changed until they fit a budget |
//! | `ledger`, `limits`, `report` | what may be used, what was, and what is said of it |
//! | [`model`] | a model as [`Evaluator`]: its palette of widths, its bytes, its loss, its sensitivities |
//! | [`journal`](Journal) | evaluations in a file; a search that was interrupted goes on |
//!
//! **Limits bind**: no map beyond `max_bytes` by exact bytes is evaluated or returned, no evaluation follows the last one that is allowed, and a limit that cannot be met is an [`Outcome`] of its own,
//! never a map that misses it. **An evaluation** is one call of [`Evaluator::loss`] for a pair (map, tokens) that was not asked before, however few tokens it has: that is what
//! `max_evaluations` and [`Report::evaluations`] count; [`Report::tokens`] has the sum of their tokens. The sensitivity table is the caller's, and so are the evaluations that it took.
//!
//! **The same inputs give the same report**: draws come from a counter-based generator, offspring are made before any is evaluated and chosen in their order, and the clock is asked only for a deadline.

mod draft;
mod error;
mod evolve;
mod journal;
pub mod knapsack;
mod ledger;
mod limits;
mod map;
pub mod model;
pub mod pareto;
mod random;
mod report;
#[cfg(test)]
mod tests;

pub use draft::smallest;
pub use error::{JournalError, SearchError, SetupError};
pub use evolve::{Options, search};
pub use journal::Journal;
pub use ledger::Evaluator;
pub use limits::{Clock, End, Goal, Hooks, Limits, Outcome, Phase, Progress, Report, Stopwatch};
pub use map::{Candidate, Choice, MOST_CHOICES, Sensitivity, Site, Sites, Width};
pub use pareto::{Front, Point};
pub use random::random_search;

/// What is searched.
#[derive(Debug)]
pub struct Problem<'a, E> {
    /// The tensors and what each may be.
    pub sites: &'a Sites,
    /// What each choice alone costs.
    pub sensitivity: &'a Sensitivity,
    /// The model.
    pub evaluator: &'a E,
}
