//! Starts, generations, and the budgets that they are made for.

use std::cmp::Ordering;

use super::*;
use crate::search::draft::{Draft, Draws};
use crate::search::map::{Candidate, Width};
use crate::search::report::Smallest;

const PURPOSE_GENERATION: u32 = 0x6765_6e73;

/// A search on its way.
pub(super) struct Evolution<'s, 'a, 'h, E: Evaluator> {
    pub(super) sites: &'s Sites,
    pub(super) rises: &'s Sensitivity,
    pub(super) sums: SumFront,
    pub(super) ledger: &'s mut Ledger<'a, 'h, E>,
    pub(super) options: &'s Options,
    stages: &'a [usize],
    generation: u64,
    pub(super) smallest: Smallest,
    /// The most bytes that a map may have, as far as maps go.
    pub(super) largest: u64,
}

impl<'s, 'a, 'h, E: Evaluator> Evolution<'s, 'a, 'h, E> {
    pub(super) fn new(
        problem: &'s Problem<'_, E>,
        options: &'s Options,
        ledger: &'s mut Ledger<'a, 'h, E>,
        smallest: Smallest,
        most: u64,
    ) -> Self {
        let sites = problem.sites;
        let highest = ledger.evaluator.bytes(&sites.highest());
        Evolution {
            sites,
            rises: problem.sensitivity,
            sums: SumFront::new(sites, problem.sensitivity, u64::MAX),
            options,
            stages: ledger.evaluator.stages(),
            generation: 0,
            // A header may make another map than the highest the largest: by less than a rung, which no search needs.
            largest: most.min(highest.max(smallest.0)),
            smallest,
            ledger,
        }
    }

    /// Generations of the one budget.
    pub(super) fn least_loss(&mut self) -> Result<(), Halt<E::Error>> {
        self.starts(self.largest)?;
        self.generations(self.largest, self.options.patience, |_| false)
    }

    /// A generation of each budget in turn, the largest first, until none gets better, and between them what fills the front's gaps.
    pub(super) fn front(&mut self) -> Result<(), Halt<E::Error>> {
        // Among the budgets are those of uniform maps, which a front is measured by.
        let (evaluator, most) = (self.ledger.evaluator, self.largest);
        let mut uniform: Vec<Candidate> = Width::ALL.map(|width| self.sites.uniform(width)).into();
        let least = self.smallest.0;
        uniform.retain(|map| (least..=most).contains(&evaluator.bytes(map)));
        let mut budgets = budgets(self.smallest.0, most, self.options.budgets);
        budgets.extend(uniform.iter().map(|map| evaluator.bytes(map)));
        budgets.sort_unstable_by(|a, b| b.cmp(a));
        budgets.dedup();
        // One evaluation of each before anything else: a front, however short the search is.
        let mut maps: Vec<Candidate> = budgets.iter().map(|&budget| self.knapsack(budget)).collect();
        let measured_by: Vec<u64> = uniform.iter().map(|map| evaluator.bytes(map)).collect();
        maps.extend(uniform);
        self.on_all_tokens(&maps)?;
        self.ledger.phase = Phase::Generations;
        // What a front is measured by comes first, and in every round; of the others each in every fourth one.
        let (first, others): (Vec<usize>, Vec<usize>) =
            (0..budgets.len()).partition(|&i| measured_by.contains(&budgets[i]));
        // Generations of each budget since one made a loss less.
        let mut since = vec![0; budgets.len()];
        let mut tried = budgets.clone();
        // Many budgets, and what is found for one serves its neighbours.
        let offspring = self.options.offspring.div_ceil(2);
        for round in 0u64.. {
            if since.iter().all(|&since| since > self.options.patience) {
                break;
            }
            self.gaps(round, &mut tried)?;
            let turn = |i: &&usize| (**i as u64 + round).is_multiple_of(4);
            for &i in first.iter().chain(others.iter().filter(turn)) {
                let at_most = budgets[i];
                // The whole budget, and parts of the way to the next one: the front has points between the budgets.
                let below = budgets.get(i + 1).copied().unwrap_or(at_most);
                let budget = at_most - (at_most - below) / 4 * (round / 4 % 4);
                let before = self.loss_within(budget);
                match since[i].cmp(&self.options.patience) {
                    Ordering::Less => self.generation(budget, i.checked_sub(1).map(|i| budgets[i]), offspring)?,
                    Ordering::Equal => self.second_look(budget)?,
                    Ordering::Greater => continue,
                }
                since[i] = if self.loss_within(budget) < before {
                    0
                } else {
                    since[i] + 1
                };
            }
        }
        Ok(())
    }

    /// Compares what a budget may start from; the best of the sum model is evaluated first and on all tokens.
    pub(super) fn starts(&mut self, budget: u64) -> Result<(), Halt<E::Error>> {
        self.ledger.phase = Phase::Starts;
        let first = self.knapsack(budget);
        self.on_all_tokens(std::slice::from_ref(&first))?;
        let over = budget.saturating_sub(self.smallest.0);
        let mut maps: Vec<Candidate> = [over / 32, over / 8]
            .into_iter()
            .map(|less| self.knapsack(budget - less))
            .chain(Width::ALL.map(|width| self.sites.uniform(width)))
            // One that was evaluated on all tokens has been compared.
            .filter(|map| !self.ledger.knows(map, self.stages[self.stages.len() - 1]))
            .chain([self.smallest.1.clone()])
            .collect();
        let mut seen = vec![first.clone()];
        maps.retain(|map| {
            let new = self.ledger.evaluator.bytes(map) <= budget && !seen.contains(map);
            seen.extend(new.then(|| map.clone()));
            new
        });
        self.select(maps, Some(first))
    }

    /// Generations of a budget until `enough` says so, or `patience` of them in a row have not made its loss less.
    pub(super) fn generations(
        &mut self,
        budget: u64,
        patience: usize,
        enough: impl Fn(&Ledger<'a, 'h, E>) -> bool,
    ) -> Result<(), Halt<E::Error>> {
        self.ledger.phase = Phase::Generations;
        let (mut best, mut since) = (self.loss_within(budget), 0);
        while since <= patience && !enough(self.ledger) {
            match since < patience {
                true => self.generation(budget, None, self.options.offspring)?,
                false => self.second_look(budget)?,
            }
            since += 1;
            if self.loss_within(budget) < best {
                (best, since) = (self.loss_within(budget), 0);
            }
        }
        Ok(())
    }

    /// One generation of a budget. Among the offspring are the best map of the sum model and that of a `larger` budget, lowered, if they are new.
    fn generation(&mut self, budget: u64, larger: Option<u64>, offspring: usize) -> Result<(), Halt<E::Error>> {
        let evaluator = self.ledger.evaluator;
        let mut draws = Draws::new(self.options.seed, PURPOSE_GENERATION, self.generation);
        self.generation += 1;
        // Where no loss was finite there is no parent to compare with.
        let parent = self.ledger.front.within(budget).map(|point| point.map.clone());
        let base = parent.clone().unwrap_or_else(|| self.knapsack(budget));
        let mut maps = vec![self.knapsack(budget)];
        if let Some(neighbour) = larger.and_then(|larger| self.ledger.front.within(larger)) {
            let mut draft = Draft::new(self.sites, evaluator, &neighbour.map, budget);
            draft.lower(&mut draws);
            draft.raise(&mut draws);
            maps.extend(draft.finish(&mut draws));
        }
        maps.dedup();
        let known = |map: &Candidate| self.stages.iter().any(|&tokens| self.ledger.knows(map, tokens));
        maps.retain(|map| !known(map));
        let count = offspring.saturating_sub(maps.len());
        let seen = |map: &Candidate| maps.contains(map) || known(map);
        let space = (self.sites, self.rises, evaluator);
        let new = mutate::offspring(space, &base, budget, count, &mut draws, seen);
        maps.extend(new);
        self.select(maps, parent)
    }

    /// Compares maps and their parent on more and more tokens, fewer of them each time; the best is evaluated on all.
    fn select(&mut self, maps: Vec<Candidate>, parent: Option<Candidate>) -> Result<(), Halt<E::Error>> {
        if maps.is_empty() {
            return Ok(());
        }
        let (count, last) = (maps.len(), self.stages.len() - 1);
        let mut pool = maps;
        pool.extend(parent.clone());
        for (stage, &tokens) in self.stages.iter().enumerate() {
            let losses = self.ledger.losses(&pool, tokens)?;
            if stage == last {
                return Ok(());
            }
            let evaluator = self.ledger.evaluator;
            let mut ranked: Vec<(f64, u64, Candidate)> = (losses.into_iter().zip(pool))
                .map(|(loss, map)| (loss, evaluator.bytes(&map), map))
                .collect();
            ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
            ranked.truncate(survivors(count, stage + 1, last));
            pool = ranked.into_iter().map(|(.., map)| map).collect();
            if pool.iter().all(|map| Some(map) == parent.as_ref()) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Evaluates on all tokens what few tokens may have misled about: of each stage the best maps that came no further.
    fn second_look(&mut self, budget: u64) -> Result<(), Halt<E::Error>> {
        let few = &self.stages[..self.stages.len() - 1];
        let mut maps = Vec::new();
        for &tokens in few {
            let mut left = self.ledger.left_at(tokens, budget);
            left.retain(|map| !maps.contains(map));
            left.truncate(self.options.offspring.div_ceil(few.len()));
            maps.extend(left);
        }
        self.on_all_tokens(&maps)
    }

    /// Evaluates maps on all tokens.
    pub(super) fn on_all_tokens(&mut self, maps: &[Candidate]) -> Result<(), Halt<E::Error>> {
        self.ledger.losses(maps, self.stages[self.stages.len() - 1]).map(drop)
    }

    /// The least loss within a budget on all tokens, `+∞` if there is none.
    fn loss_within(&self, budget: u64) -> f64 {
        self.ledger
            .front
            .within(budget)
            .map_or(f64::INFINITY, |point| point.loss)
    }

    /// The best map of the sum model whose file has at most `budget` bytes, which the smallest has.
    pub(super) fn knapsack(&self, budget: u64) -> Candidate {
        let evaluator = self.ledger.evaluator;
        // How much longer a file is than the sum says, by the last one that was looked at.
        let over = |map: &Candidate| i128::from(evaluator.bytes(map)) - i128::from(self.sites.sum(map));
        let mut most = i128::from(budget) - over(&self.smallest.1);
        // Headers differ by little: a few tries are enough.
        for _ in 0..16 {
            let found = u64::try_from(most).ok().and_then(|most| self.sums.within(most));
            let Some(found) = found else { break };
            if evaluator.bytes(&found.map) <= budget {
                return found.map;
            }
            most = (i128::from(budget) - over(&found.map)).min(i128::from(found.bytes) - 1);
        }
        self.smallest.1.clone()
    }
}

/// How many of `count` maps are left for `stage` of those up to `last`: from all of them to one, by the same factor each time.
fn survivors(count: usize, stage: usize, last: usize) -> usize {
    // The least n with n^last ≥ count^(last − stage), in integers: the same on every machine.
    let power = |n: usize, times: usize| (0..times).fold(1u128, |product, _| product.saturating_mul(n as u128));
    let wanted = power(count, last - stage);
    (1..count).find(|&n| power(n, last) >= wanted).unwrap_or(count)
}

/// Budgets between the smallest map and `largest`, descending: denser where maps are small, for there a byte matters most.
pub(super) fn budgets(smallest: u64, largest: u64, count: usize) -> Vec<u64> {
    let (span, n) = (u128::from(largest - smallest), count.max(2) as u128 - 1);
    let at = |k: u128| smallest + (span * k * k / (n * n)) as u64;
    let mut budgets: Vec<u64> = (0..=n).rev().map(at).take(count).collect();
    budgets.dedup();
    budgets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survivors_fall_from_all_to_one() {
        for count in 1..40 {
            for last in 1..6 {
                let left: Vec<usize> = (0..=last).map(|stage| survivors(count, stage, last)).collect();
                assert_eq!((left[0], left[last]), (count, 1), "{count} {last}");
                assert!(left.windows(2).all(|pair| pair[0] >= pair[1]), "{left:?}");
            }
        }
        assert_eq!(
            (0..=2).map(|stage| survivors(16, stage, 2)).collect::<Vec<_>>(),
            [16, 4, 1]
        );
    }

    #[test]
    fn budgets_reach_from_the_smallest_to_the_largest() {
        assert_eq!(budgets(100, 1000, 4), [1000, 500, 200, 100]);
        assert_eq!(budgets(100, 1000, 1), [1000]);
        assert_eq!(budgets(100, 100, 5), [100]);
        assert_eq!(budgets(0, u64::MAX, 2), [u64::MAX, 0]);
    }
}
