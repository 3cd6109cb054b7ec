//! Random search: what any other search has to beat with as many evaluations.
//!
//! A map is drawn uniformly, a width for each site alike, then taken down at random until it fits its budget, and up at random as long as it still fits: a draw that leaves room unused
//! would be an opponent made of straw. Every map is evaluated on all tokens. For a front the budgets come in turn from the smallest map to the largest, and for the fewest bytes that keep to a limit of the loss
//! the budget is a random one below the smallest map that reached the limit.

use super::draft::{Draft, Draws};
use super::error::{SearchError, SetupError};
use super::ledger::{Evaluator, Halt, Ledger};
use super::limits::{Goal, Hooks, Limits, Phase, Report};
use super::map::{Candidate, Sites};
use super::{Problem, report};

const PURPOSE_RANDOM: u32 = 0x726e_646d;
/// Budgets that a front is drawn for: many, so that it has no steps.
const BUDGETS: u64 = 64;
/// Maps that are drawn side by side.
const BATCH: usize = 16;

/// Evaluates random maps until `limits` end it, or until all that can be drawn seems to be known: give `max_evaluations` or a deadline. The sensitivity table of the problem is not looked at.
///
/// # Errors
/// Those of [`search`](super::search).
pub fn random_search<E: Evaluator>(
    problem: &Problem<'_, E>,
    goal: Goal,
    limits: &Limits,
    seed: u64,
    at_once: usize,
    hooks: Hooks<'_>,
) -> Result<Report, SearchError<E::Error>> {
    if goal == Goal::LeastBytes && limits.max_loss.is_none() {
        return Err(SetupError::NoMaxLoss.into());
    }
    let ledger = Ledger::new(problem.evaluator, goal, limits, at_once, hooks)?;
    report::within_reach(problem, goal, limits, ledger, |ledger, (least, _), most| {
        ledger.phase = Phase::Random;
        let (sites, evaluator) = (problem.sites, problem.evaluator);
        let most = most.min(evaluator.bytes(&sites.highest()).max(least));
        let stages = evaluator.stages();
        let mut draw = 0;
        // Batches in a row that had nothing new.
        let mut idle = 0;
        while idle < 16 {
            let mut maps: Vec<Candidate> = Vec::with_capacity(BATCH);
            for _ in 0..BATCH {
                let mut draws = Draws::new(seed, PURPOSE_RANDOM, draw);
                let up_to = |most: u64, part: u64, of: u64| {
                    least + (u128::from(most - least) * u128::from(part) / u128::from(of)) as u64
                };
                let best = limits.max_loss.and_then(|loss| ledger.front.reaching(loss));
                let budget = match (goal, best) {
                    (Goal::Front, _) => up_to(most, draw % BUDGETS, BUDGETS - 1),
                    (Goal::LeastBytes, Some(best)) => up_to(best.bytes, draws.below(1 << 16) as u64, 1 << 16),
                    _ => most,
                };
                draw += 1;
                let map = random_map(sites, evaluator, budget, &mut draws);
                maps.extend(map.filter(|map| !ledger.knows(map, stages[stages.len() - 1])));
            }
            idle = if maps.is_empty() { idle + 1 } else { 0 };
            ledger.losses(&maps, stages[stages.len() - 1]).map(drop)?;
        }
        Ok::<(), Halt<E::Error>>(())
    })
}

/// A random map of at most `budget` bytes; none if the rungs that were drawn leave no way there.
fn random_map<E: Evaluator>(sites: &Sites, evaluator: &E, budget: u64, draws: &mut Draws) -> Option<Candidate> {
    let choice = |site: &super::Site, draws: &mut Draws| draws.below(site.choices.len()) as u8;
    let choices: Vec<u8> = sites.all().iter().map(|site| choice(site, draws)).collect();
    let mut draft = Draft::new(sites, evaluator, &Candidate::new(choices), budget);
    draft.lower(draws);
    draft.fill(draws);
    draft.finish(draws)
}
