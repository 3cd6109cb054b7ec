//! Maps on their way: rungs up and down at random, until the file has at most so many bytes.
//!
//! Whether a draft fits is told by the sum of its sites' bytes and by how much the exact length of the map it began as differs from that sum; headers make that
//! differ by some bytes from map to map, so a finished draft is measured exactly ([`Draft::finish`]) and lowered further if need be. What comes out fits exactly.

use onebit_engine::rng::Key;

use super::ledger::Evaluator;
use super::map::{Candidate, Sites, Width};

/// Random numbers of one purpose and step, one after another.
pub(super) struct Draws {
    key: Key,
    next: u64,
}

impl Draws {
    /// Those of (`seed`, `purpose`, `step`).
    pub(super) fn new(seed: u64, purpose: u32, step: u64) -> Self {
        Draws {
            key: Key::new(seed, purpose, step),
            next: 0,
        }
    }

    /// Uniform in `0..n`; 0 if `n` is 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.next += 1;
        self.key.below(self.next - 1, u32::try_from(n).unwrap_or(u32::MAX)) as usize
    }

    /// `0..n` in random order (Fisher and Yates).
    pub(super) fn shuffled(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

/// A map that is being changed.
pub(super) struct Draft<'a, E> {
    sites: &'a Sites,
    evaluator: &'a E,
    map: Vec<u8>,
    rungs: Vec<usize>,
    /// Sites that this change has set, and which it leaves as they are.
    set: Vec<bool>,
    sum: u64,
    /// What the sum may be, as far as the map that it began as tells.
    most: u64,
    budget: u64,
}

impl<'a, E: Evaluator> Draft<'a, E> {
    /// Begins as `map`, to become one of at most `budget` bytes.
    pub(super) fn new(sites: &'a Sites, evaluator: &'a E, map: &Candidate, budget: u64) -> Self {
        let (sum, exact) = (sites.sum(map), evaluator.bytes(map));
        let most = (i128::from(budget) + i128::from(sum) - i128::from(exact)).clamp(0, u64::MAX.into());
        Draft {
            sites,
            evaluator,
            map: map.choices().to_vec(),
            rungs: (0..sites.len()).map(|site| sites.rung(map, site)).collect(),
            set: vec![false; sites.len()],
            sum,
            most: most as u64,
            budget,
        }
    }

    /// The place of a site in its ladder.
    pub(super) fn rung(&self, site: usize) -> usize {
        self.rungs[site]
    }

    /// The highest place of a site's ladder.
    pub(super) fn top(&self, site: usize) -> usize {
        self.sites.ladder(site).len() - 1
    }

    /// Puts a site on a rung of its ladder.
    fn put(&mut self, site: usize, rung: usize) {
        let choices = &self.sites.all()[site].choices;
        let choice = self.sites.ladder(site)[rung];
        self.sum -= choices[usize::from(self.map[site])].bytes;
        self.sum += choices[usize::from(choice)].bytes;
        self.map[site] = choice;
        self.rungs[site] = rung;
    }

    /// Puts a site on a rung, for the rest of this change.
    pub(super) fn set(&mut self, site: usize, rung: usize) {
        self.put(site, rung);
        self.set[site] = true;
    }

    /// Whether it fits, as far as the sum tells.
    pub(super) fn fits(&self) -> bool {
        self.sum <= self.most
    }

    /// Sites that were not set and for which `wanted` holds, in random order.
    fn free(&self, draws: &mut Draws, wanted: impl Fn(&Self, usize) -> bool) -> Vec<usize> {
        let mut order = draws.shuffled(self.sites.len());
        order.retain(|&site| !self.set[site] && wanted(self, site));
        order
    }

    /// Takes random sites a rung down until it fits; tells whether it does.
    pub(super) fn lower(&mut self, draws: &mut Draws) -> bool {
        while !self.fits() {
            let order = self.free(draws, |draft, site| draft.rung(site) > 0);
            if order.is_empty() {
                return false;
            }
            for site in order {
                if self.fits() {
                    break;
                }
                self.put(site, self.rung(site) - 1);
            }
        }
        true
    }

    /// Takes sites a rung up, each at most once and in random order, where it still fits.
    pub(super) fn raise(&mut self, draws: &mut Draws) {
        for site in self.free(draws, |draft, site| draft.rung(site) < draft.top(site)) {
            let rung = self.rung(site);
            self.put(site, rung + 1);
            if !self.fits() {
                self.put(site, rung);
            }
        }
    }

    /// Raises again and again until nothing fits any more.
    pub(super) fn fill(&mut self, draws: &mut Draws) {
        loop {
            let before = self.sum;
            let rungs = self.rungs.clone();
            self.raise(draws);
            if self.sum == before && self.rungs == rungs {
                return;
            }
        }
    }

    /// Lets what was set be changed again.
    pub(super) fn release(&mut self) {
        self.set.fill(false);
    }

    /// The map, if it fits exactly or can be lowered until it does.
    pub(super) fn finish(mut self, draws: &mut Draws) -> Option<Candidate> {
        self.release();
        loop {
            let map = Candidate::new(self.map.clone());
            let exact = self.evaluator.bytes(&map);
            if exact <= self.budget {
                return Some(map);
            }
            // By the header of this very map, and by a rung at least.
            let most = i128::from(self.budget) + i128::from(self.sum) - i128::from(exact);
            self.most = most.clamp(0, i128::from(self.sum)) as u64;
            let before = self.rungs.clone();
            if !self.lower(draws) || self.rungs == before {
                return None;
            }
        }
    }
}

/// A map of fewest exact bytes: the bottom of every ladder or a uniform map, whose header is shorter, and then site by site whatever makes the file smaller, until nothing does.
pub fn smallest<E: Evaluator>(sites: &Sites, evaluator: &E) -> (u64, Candidate) {
    let starts = std::iter::once(sites.lowest()).chain(Width::ALL.map(|width| sites.uniform(width)));
    let (mut map, mut least) = (sites.lowest(), evaluator.bytes(&sites.lowest()));
    for start in starts {
        let bytes = evaluator.bytes(&start);
        if bytes < least {
            (map, least) = (start, bytes);
        }
    }
    loop {
        let before = least;
        for site in 0..sites.len() {
            for &choice in sites.ladder(site) {
                let other = map.with(site, choice);
                let bytes = evaluator.bytes(&other);
                if bytes < least {
                    (map, least) = (other, bytes);
                }
            }
        }
        if least == before {
            return (least, map);
        }
    }
}
