//! What a search may use, what it is asked for, and what it says at its end.
//!
//! | limit | binds |
//! |---|---|
//! | `max_bytes` | no map of a larger file is evaluated, let alone returned; below the smallest map: [`Outcome::TooFewBytes`] without any evaluation |
//! | `max_loss` | the map that is returned has at most this loss; none that was found has: [`Outcome::LossNotReached`], with the nearest |
//! | `max_evaluations` | never one more; those that a journal has count as well, so a resumed search ends where the other would have ended |
//! | `deadline` | asked before each evaluation; one that has begun is finished |

use std::time::{Duration, Instant};

use super::map::Candidate;
use super::pareto::{Front, Point};

/// What is sought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The least loss, within `max_bytes` if it is given.
    LeastLoss,
    /// The fewest bytes with a loss of at most `max_loss`, which must be given.
    LeastBytes,
    /// The least loss for each of several budgets between the smallest map and the largest that is allowed.
    Front,
}

/// What a search may use. Nothing is limited by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Exact bytes of the file.
    pub max_bytes: Option<u64>,
    /// Mean nats a token over all tokens: ln of the perplexity.
    pub max_loss: Option<f64>,
    /// Calls of [`Evaluator::loss`](super::Evaluator::loss), one on few tokens counted like one on all.
    pub max_evaluations: Option<u64>,
    /// Time after which no evaluation begins, by the [`Clock`].
    pub deadline: Option<Duration>,
}

/// Time since the search began. Tests have one that does not depend on time.
pub trait Clock: Sync {
    /// How long it is.
    fn elapsed(&self) -> Duration;
}

/// The system's clock.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// One that starts now.
    pub fn start() -> Self {
        Stopwatch(Instant::now())
    }
}

impl Clock for Stopwatch {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It found nothing better for as long as its options say, or there was nothing to search.
    Done,
    /// `max_evaluations`.
    Evaluations,
    /// `deadline`.
    Deadline,
    /// It was asked to stop.
    Interrupted,
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The map that was sought; of a whole front the one of the least loss.
    Found(Point),
    /// No map is as small as `max_bytes`. Known without an evaluation.
    TooFewBytes {
        /// `max_bytes`.
        asked: u64,
        /// Bytes of the smallest map.
        least: u64,
        /// That map.
        map: Candidate,
    },
    /// No map that was evaluated has a loss of at most `max_loss`. [`Report::end`] tells whether the search came to its own end.
    LossNotReached {
        /// `max_loss`.
        asked: f64,
        /// The map of the least loss that was found.
        nearest: Point,
    },
    /// The search was ended before a map with a finite loss was evaluated on all tokens.
    Nothing,
}

/// What a search says at its end. Equal inputs, options and seed give equal reports, for any number of threads, and a search that was interrupted and
/// resumed gives that of one that was not; with a deadline, what fits in depends on the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What was sought.
    pub outcome: Outcome,
    /// Every map that was evaluated on all tokens and is not dominated; for [`Goal::Front`] those that have `max_loss`.
    pub front: Front,
    /// Why it ended.
    pub end: End,
    /// Evaluations, those of the journal that were needed again included.
    pub evaluations: u64,
    /// Tokens of these evaluations: what they cost, as far as an evaluation's time goes by its tokens.
    pub tokens: u64,
}

/// Where a search is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Maps of the sum model and uniform ones are compared.
    Starts,
    /// Mutations of the best maps are tried.
    Generations,
    /// The fewest bytes that keep to the limit of the loss are looked for.
    Border,
    /// Random maps are tried, for comparison.
    Random,
}

impl Phase {
    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Starts => "starts",
            Phase::Generations => "generations",
            Phase::Border => "border",
            Phase::Random => "random",
        }
    }
}

/// How far a search is, told after every evaluation, or every few that ran side by side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress<'a> {
    /// Where it is.
    pub phase: Phase,
    /// Evaluations so far.
    pub evaluations: u64,
    /// `max_evaluations`.
    pub at_most: Option<u64>,
    /// The best map so far, in the sense of the goal: the least loss, or the fewest bytes that keep to `max_loss`.
    pub best: Option<&'a Point>,
}

/// How the world reaches a search while it runs.
pub struct Hooks<'a> {
    /// Whether to stop; asked before each evaluation.
    pub interrupted: &'a (dyn Fn() -> bool + Sync),
    /// What `deadline` is measured by.
    pub clock: &'a dyn Clock,
    /// Told how far it is.
    pub progress: &'a mut dyn FnMut(Progress<'_>),
    /// Where evaluations are kept.
    pub journal: Option<&'a mut super::Journal>,
}
