//! The frame of every search: what is known before it, and what is said after it.

use super::Problem;
use super::draft::smallest;
use super::error::SearchError;
use super::ledger::{Evaluator, Halt, Ledger};
use super::limits::{End, Goal, Limits, Outcome, Report};
use super::map::Candidate;

/// Exact bytes and map of the smallest file.
pub(super) type Smallest = (u64, Candidate);

/// Runs `work` with the smallest map and the most bytes that a map may have, if there is a map as small, and reports on what is in the ledger then.
pub(super) fn within_reach<'a, 'h, E: Evaluator>(
    problem: &Problem<'_, E>,
    goal: Goal,
    limits: &Limits,
    mut ledger: Ledger<'a, 'h, E>,
    work: impl FnOnce(&mut Ledger<'a, 'h, E>, Smallest, u64) -> Result<(), Halt<E::Error>>,
) -> Result<Report, SearchError<E::Error>> {
    let (least, map) = smallest(problem.sites, problem.evaluator);
    let asked = limits.max_bytes.unwrap_or(u64::MAX);
    if asked < least {
        return Ok(Report {
            outcome: Outcome::TooFewBytes { asked, least, map },
            front: ledger.front,
            end: End::Done,
            evaluations: 0,
            tokens: 0,
        });
    }
    let end = match work(&mut ledger, (least, map), asked) {
        Ok(()) => End::Done,
        Err(Halt::End(end)) => end,
        Err(Halt::Error(error)) => return Err(error),
    };
    let mut front = std::mem::take(&mut ledger.front);
    let reached = limits.max_loss.map(|loss| (loss, front.reaching(loss)));
    let outcome = match (reached, front.best()) {
        (_, None) => Outcome::Nothing,
        (Some((asked, None)), Some(nearest)) => Outcome::LossNotReached {
            asked,
            nearest: nearest.clone(),
        },
        (Some((_, Some(point))), _) if goal == Goal::LeastBytes => Outcome::Found(point.clone()),
        (_, Some(best)) => Outcome::Found(best.clone()),
    };
    if let (Goal::Front, Some(loss)) = (goal, limits.max_loss) {
        front = front
            .points()
            .iter()
            .filter(|point| point.loss <= loss)
            .cloned()
            .collect();
    }
    Ok(Report {
        outcome,
        front,
        end,
        evaluations: ledger.evaluations,
        tokens: ledger.tokens,
    })
}
