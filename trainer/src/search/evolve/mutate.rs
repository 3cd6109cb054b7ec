//! Mutations that keep to a budget.
//!
//! ```text
//! pure move     one site anywhere in its ladder
//! down first    one site down, then others a rung up as far as there is room      (the level switch of EvoPress)
//! up first      one site up, then others a rung down until it fits, then up again what still has room
//! ```
//! One to three of them make an offspring, one most often. Sites differ in size, so a switch cannot keep the bytes as they are: it keeps them within the budget and uses
//! what a large site frees for several small ones. A site that a mutation chose is not changed back by what it does to the others.
//!
//! Every other offspring is the best of four by the sum model: it knows much about most sites, and where it errs the rest of the offspring, which ask nobody, go on.

use crate::search::draft::{Draft, Draws};
use crate::search::ledger::Evaluator;
use crate::search::map::{Candidate, Sensitivity, Sites};

/// Proposals of which the sum model chooses one.
const GUIDED: usize = 4;
/// Proposals for each offspring that is wanted, before fewer must do.
const TRIES: usize = 16;

/// `count` different offspring of `parent` of at most `budget` bytes, or as many as are found; none for which `seen` holds.
pub(super) fn offspring<E: Evaluator>(
    (sites, rises, evaluator): (&Sites, &Sensitivity, &E),
    parent: &Candidate,
    budget: u64,
    count: usize,
    draws: &mut Draws,
    seen: impl Fn(&Candidate) -> bool,
) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::with_capacity(count);
    let mut tries = TRIES * count;
    while found.len() < count && tries > 0 {
        let proposals = if found.len() % 2 == 1 { GUIDED } else { 1 };
        let mut best: Option<(f64, Candidate)> = None;
        for _ in 0..proposals {
            tries = tries.saturating_sub(1);
            let Some(map) = propose(sites, evaluator, parent, budget, draws) else {
                continue;
            };
            let rise = rises.sum(&map);
            let better = best.as_ref().is_none_or(|(least, _)| rise < *least);
            if better && map != *parent && !found.contains(&map) && !seen(&map) {
                best = Some((rise, map));
            }
        }
        found.extend(best.map(|(_, map)| map));
    }
    found
}

/// One offspring, which may be one that there was before.
fn propose<E: Evaluator>(
    sites: &Sites,
    evaluator: &E,
    parent: &Candidate,
    budget: u64,
    draws: &mut Draws,
) -> Option<Candidate> {
    let mut draft = Draft::new(sites, evaluator, parent, budget);
    for _ in 0..=draws.below(3).min(draws.below(3)) {
        draft.release();
        match draws.below(4) {
            0 => pure_move(sites, &mut draft, draws)?,
            1 => up_first(sites, &mut draft, draws)?,
            _ => down_first(sites, &mut draft, draws)?,
        }
    }
    draft.finish(draws)
}

fn pure_move<E: Evaluator>(sites: &Sites, draft: &mut Draft<'_, E>, draws: &mut Draws) -> Option<()> {
    let site = some_site(sites, draws, |site| draft.top(site) > 0)?;
    let other = draws.below(draft.top(site));
    // Any rung but its own.
    let rung = other + usize::from(other >= draft.rung(site));
    draft.set(site, rung);
    draft.fits().then_some(())
}

fn down_first<E: Evaluator>(sites: &Sites, draft: &mut Draft<'_, E>, draws: &mut Draws) -> Option<()> {
    let site = some_site(sites, draws, |site| draft.rung(site) > 0)?;
    let rung = draft.rung(site);
    let by = if draws.below(2) == 0 { 1 } else { 1 + draws.below(rung) };
    draft.set(site, rung - by);
    draft.raise(draws);
    Some(())
}

fn up_first<E: Evaluator>(sites: &Sites, draft: &mut Draft<'_, E>, draws: &mut Draws) -> Option<()> {
    let site = some_site(sites, draws, |site| draft.rung(site) < draft.top(site))?;
    let (rung, top) = (draft.rung(site), draft.top(site));
    let by = if draws.below(2) == 0 {
        1
    } else {
        1 + draws.below(top - rung)
    };
    draft.set(site, rung + by);
    if !draft.lower(draws) {
        return None;
    }
    draft.raise(draws);
    Some(())
}

/// One of the sites for which `wanted` holds.
fn some_site(sites: &Sites, draws: &mut Draws, wanted: impl Fn(usize) -> bool) -> Option<usize> {
    let of: Vec<usize> = (0..sites.len()).filter(|&site| wanted(site)).collect();
    (!of.is_empty()).then(|| of[draws.below(of.len())])
}
