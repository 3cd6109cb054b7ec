//! Searches of models that are formulas.

mod evolution;
mod journal;
mod limits;

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use onebit_engine::rng::Key;

use super::*;

/// A model whose loss is a formula of its map.
#[derive(Debug)]
pub(super) struct Formula {
    pub(super) sites: Sites,
    pub(super) rises: Sensitivity,
    /// What two sites add when both are at most so low in their ladders (0 top, 1 bottom): their product times this.
    pairs: Vec<(usize, usize, f64)>,
    stages: Vec<usize>,
    /// How far few tokens mislead.
    noise: f64,
    /// Everything that was asked, to see that nothing is asked twice and nothing too large.
    asked: Mutex<HashSet<(Candidate, usize)>>,
    pub(super) calls: AtomicU64,
    largest: AtomicU64,
    /// The call that fails.
    fails: Option<u64>,
    /// Every loss is NaN.
    broken: bool,
}

/// A uniform number in [0, 1) of a stream.
fn uniform(seed: u64, index: u64) -> f64 {
    f64::from(Key::new(seed, 1, 0).uniform(index))
}

impl Formula {
    /// `n` sites of four shapes and up to five widths, without interactions.
    pub(super) fn additive(seed: u64, n: usize) -> Self {
        let bits = [128u64, 64, 32, 16, 9]; // eighths of a bit for sizes that have no common grid
        let (mut sites, mut table) = (Vec::new(), Vec::new());
        for i in 0..n {
            let weights = [4096u64, 1024, 11_008, 2752][i % 4];
            let widths = 2 + Key::new(seed, 2, 0).below(i as u64, 4) as usize;
            let choices = (Width::ALL.iter().zip(bits))
                .map(|(&width, bits)| Choice {
                    width,
                    bytes: (weights * bits / 64).next_multiple_of(64),
                })
                .skip(5 - widths);
            let depth = 0.02 + 0.3 * uniform(seed, 100 + i as u64).powi(3);
            let rise = |k: usize| {
                depth * (k as f64 / widths as f64).powi(2) * (1.0 + uniform(seed, (1000 + 10 * i + k) as u64))
            };
            table.push((0..widths).map(rise).collect());
            sites.push(Site {
                name: format!("site {i}"),
                choices: choices.collect(),
            });
        }
        let sites = Sites::new(sites, 5000).unwrap();
        let rises = Sensitivity::new(table, &sites).unwrap();
        Formula {
            sites,
            rises,
            pairs: Vec::new(),
            stages: vec![64, 512, 4096],
            noise: 0.02,
            asked: Mutex::default(),
            calls: AtomicU64::new(0),
            largest: AtomicU64::new(0),
            fails: None,
            broken: false,
        }
    }

    /// With pairs of sites that hurt each other, and others that make up for each other: the sum model's optimum is not the true one, and a smaller map may be better.
    pub(super) fn interacting(seed: u64, n: usize) -> Self {
        let mut formula = Formula::additive(seed, n);
        for i in 0..2 * n {
            let site = |k: usize| Key::new(seed, 3, 0).below((2 * i + k) as u64, n as u32) as usize;
            let (a, b) = (site(0), site(1));
            if a != b {
                formula.pairs.push((a, b, 0.3 * (uniform(seed, 5000 + i as u64) - 0.5)));
            }
        }
        formula
    }

    pub(super) fn problem(&self) -> Problem<'_, Formula> {
        Problem {
            sites: &self.sites,
            sensitivity: &self.rises,
            evaluator: self,
        }
    }

    /// The loss on all tokens.
    pub(super) fn truth(&self, map: &Candidate) -> f64 {
        let low = |site: usize| {
            let top = self.sites.ladder(site).len() - 1;
            if top == 0 {
                0.0
            } else {
                1.0 - self.sites.rung(map, site) as f64 / top as f64
            }
        };
        let pairs: f64 = self.pairs.iter().map(|&(a, b, weight)| weight * low(a) * low(b)).sum();
        2.0 + self.rises.sum(map) + pairs
    }

    /// Every map there is.
    pub(super) fn every(&self) -> Vec<Candidate> {
        let mut maps = vec![Vec::new()];
        for site in self.sites.all() {
            let longer = |map: &Vec<u8>| {
                (0..site.choices.len() as u8)
                    .map(|choice| [&map[..], &[choice]].concat())
                    .collect::<Vec<_>>()
            };
            maps = maps.iter().flat_map(longer).collect();
        }
        maps.into_iter().map(Candidate::new).collect()
    }

    /// The front of every map there is.
    pub(super) fn true_front(&self) -> Front {
        let point = |map: Candidate| Point {
            bytes: self.bytes(&map),
            loss: self.truth(&map),
            map,
        };
        self.every().into_iter().map(point).collect()
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The largest map that was evaluated.
    pub(super) fn largest(&self) -> u64 {
        self.largest.load(Ordering::Relaxed)
    }

    /// Forgets what was asked.
    pub(super) fn anew(self) -> Self {
        Formula {
            asked: Mutex::default(),
            calls: AtomicU64::new(0),
            largest: AtomicU64::new(0),
            ..self
        }
    }

    /// Bytes that lie a part of the way from the smallest map to the largest.
    pub(super) fn budget(&self, part: f64) -> u64 {
        let (least, most) = (self.bytes(&self.sites.lowest()), self.bytes(&self.sites.highest()));
        least + ((most - least) as f64 * part) as u64
    }
}

impl Evaluator for Formula {
    type Error = String;

    /// The sum, and a header whose length depends on the map.
    fn bytes(&self, map: &Candidate) -> u64 {
        let header: u64 = map
            .choices()
            .iter()
            .map(|&choice| [3, 4, 4, 7, 6][usize::from(choice)])
            .sum();
        self.sites.sum(map) + (40 + header).next_multiple_of(8)
    }

    fn loss(&self, map: &Candidate, tokens: usize) -> Result<f64, String> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        assert!(
            self.asked.lock().unwrap().insert((map.clone(), tokens)),
            "{map} twice on {tokens}"
        );
        self.largest.fetch_max(self.bytes(map), Ordering::Relaxed);
        if self.fails == Some(call) {
            return Err("no memory".into());
        }
        if self.broken {
            return Ok(f64::NAN);
        }
        let hash = map
            .choices()
            .iter()
            .fold(7u64, |hash, &choice| hash.wrapping_mul(31).wrapping_add(choice.into()));
        let part = 1.0 - tokens as f64 / self.stages[self.stages.len() - 1] as f64;
        Ok(self.truth(map) + part * (0.1 + self.noise * uniform(hash, tokens as u64)))
    }

    fn stages(&self) -> &[usize] {
        &self.stages
    }
}

/// A clock that goes on by a second whenever it is looked at.
pub(super) struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn elapsed(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a test wants of the hooks.
pub(super) struct World<'a> {
    pub(super) interrupted: &'a (dyn Fn() -> bool + Sync),
    pub(super) journal: Option<&'a mut Journal>,
}

pub(super) fn quiet<'a>() -> World<'a> {
    World {
        interrupted: &|| false,
        journal: None,
    }
}

pub(super) fn run(formula: &Formula, goal: Goal, limits: &Limits, options: &Options, world: World<'_>) -> Report {
    attempt(formula, goal, limits, options, world).unwrap()
}

pub(super) fn attempt(
    formula: &Formula,
    goal: Goal,
    limits: &Limits,
    options: &Options,
    world: World<'_>,
) -> Result<Report, SearchError<String>> {
    let (clock, mut told) = (Ticks(AtomicU64::new(0)), 0);
    let mut progress = |progress: Progress<'_>| {
        assert!(progress.evaluations >= told && progress.at_most == limits.max_evaluations);
        told = progress.evaluations;
    };
    let hooks = Hooks {
        interrupted: world.interrupted,
        clock: &clock,
        progress: &mut progress,
        journal: world.journal,
    };
    search(&formula.problem(), goal, limits, options, hooks)
}

pub(super) fn run_random(formula: &Formula, goal: Goal, limits: &Limits, seed: u64) -> Report {
    let clock = Ticks(AtomicU64::new(0));
    let hooks = Hooks {
        interrupted: &|| false,
        clock: &clock,
        progress: &mut |_| {},
        journal: None,
    };
    random_search(&formula.problem(), goal, limits, seed, 4, hooks).unwrap()
}

pub(super) fn found(report: &Report) -> &Point {
    match &report.outcome {
        Outcome::Found(point) => point,
        other => panic!("{other:?}"),
    }
}
