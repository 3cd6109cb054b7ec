//! What the search is worth: as many random maps, and the uniform ones.

use onebit_trainer::search::{Evaluator, Hooks, Journal, Limits, Progress as Told, Report, random_search};

use super::setup::{Work, failed};
use crate::Result;
use crate::progress::Progress;

/// Random maps, each on all tokens: as many tokens of evaluation as the search had, most of whose maps are dropped after a few.
pub(super) fn random(
    work: &Work<'_>,
    report: &Report,
    journal: &mut Journal,
    interrupted: &(dyn Fn() -> bool + Sync),
) -> Result<Report> {
    let evaluations = report.tokens.div_ceil(work.tokens() as u64);
    let limits = Limits {
        max_loss: work.max_loss,
        max_evaluations: Some(evaluations),
        deadline: None,
        ..work.plan.limits
    };
    let progress = Progress::new("random maps", evaluations);
    let mut told = |told: Told<'_>| progress.set(told.evaluations, String::new);
    let hooks = Hooks {
        interrupted,
        clock: &work.clock,
        progress: &mut told,
        journal: Some(journal),
    };
    random_search(&work.problem(), work.plan.goal, &limits, work.plan.seed, 0, hooks).map_err(failed)
}

/// A model all of whose matrices have one width.
pub(super) struct Uniform {
    pub width: &'static str,
    pub bytes: u64,
    pub loss: f64,
}

/// The uniform models, on the tokens that maps are compared on; what the search has evaluated is not evaluated again.
pub(super) fn uniform(work: &Work<'_>, journal: &Journal) -> Result<Vec<Uniform>> {
    let progress = Progress::new("uniform models", work.palette.widths().len() as u64);
    let mut all = Vec::new();
    for (at, width) in work.palette.widths().iter().enumerate() {
        let map = work.sites.uniform(*width);
        let loss = match journal.loss(&map, work.tokens()) {
            Some(loss) => loss,
            None => work.evaluator.loss(&map, work.tokens())?,
        };
        all.push(Uniform {
            width: width.name(),
            bytes: work.evaluator.bytes(&map),
            loss,
        });
        progress.set(at as u64 + 1, String::new);
    }
    Ok(all)
}
