//! The books of a search: what was evaluated, what it cost, and whether another evaluation is allowed.
//!
//! ```text
//! maps asked for ─ known ──────────────────────────────▶ loss
//!                └ new, in order, as far as max_evaluations goes
//!                    ├ in the journal ────── counted ──▶ loss
//!                    └ some at a time, each asked before it begins: interrupted? deadline?
//!                        evaluated ─ journal ─ counted ▶ loss
//! ```
//! No pair (map, tokens) is evaluated twice, and what counts does not depend on what the journal has or how many threads there are.

use std::collections::HashMap;

use rayon::prelude::*;

use super::error::{SearchError, SetupError};
use super::limits::{End, Goal, Hooks, Limits, Phase, Progress};
use super::map::Candidate;
use super::pareto::{Front, Point};

/// What a search asks of a model.
pub trait Evaluator: Sync {
    /// What can go wrong.
    type Error: Send;

    /// Exact bytes of the file that a map would give: arithmetic, asked thousands of times. Near to [`Sites::sum`](super::Sites::sum): headers may differ.
    fn bytes(&self, map: &Candidate) -> u64;

    /// Mean nats a token over the first `tokens` of a text, one of [`Self::stages`]; always the same for the same map. One that is not finite counts as `+∞`.
    ///
    /// # Errors
    /// Its own; it ends the search.
    fn loss(&self, map: &Candidate, tokens: usize) -> Result<f64, Self::Error>;

    /// Token counts that maps are compared on, each above the one before; the last one is all of them.
    fn stages(&self) -> &[usize];
}

/// Why a search goes no further.
pub(super) enum Halt<E> {
    /// In good order.
    End(End),
    /// With an error.
    Error(SearchError<E>),
}

/// The books.
pub(super) struct Ledger<'a, 'h, E: Evaluator> {
    pub(super) evaluator: &'a E,
    pub(super) phase: Phase,
    /// Of all that was evaluated on all tokens.
    pub(super) front: Front,
    pub(super) evaluations: u64,
    pub(super) tokens: u64,
    goal: Goal,
    limits: Limits,
    at_once: usize,
    hooks: Hooks<'h>,
    known: HashMap<(Candidate, usize), f64>,
}

impl<'a, 'h, E: Evaluator> Ledger<'a, 'h, E> {
    /// Empty ones. `at_once` evaluations run side by side; 0: as many as there are threads.
    pub(super) fn new(
        evaluator: &'a E,
        goal: Goal,
        limits: &Limits,
        at_once: usize,
        hooks: Hooks<'h>,
    ) -> Result<Self, SetupError> {
        let stages = evaluator.stages();
        if stages.is_empty() || stages[0] == 0 || stages.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(SetupError::Stages { stages: stages.into() });
        }
        if let Some(loss) = limits.max_loss.filter(|loss| loss.is_nan()) {
            return Err(SetupError::MaxLoss(loss));
        }
        let at_once = match at_once {
            0 => rayon::current_num_threads(),
            n => n,
        };
        Ok(Ledger {
            evaluator,
            phase: Phase::Starts,
            front: Front::default(),
            evaluations: 0,
            tokens: 0,
            goal,
            limits: *limits,
            at_once,
            hooks,
            known: HashMap::new(),
        })
    }

    /// Whether a map was evaluated over the first `tokens`.
    pub(super) fn knows(&self, map: &Candidate, tokens: usize) -> bool {
        self.known.contains_key(&(map.clone(), tokens))
    }

    /// Maps of at most `budget` bytes that were evaluated over the first `tokens` and not on all, the best first.
    pub(super) fn left_at(&self, tokens: usize, budget: u64) -> Vec<Candidate> {
        let all = self.evaluator.stages().last().copied().unwrap_or(tokens);
        let mut left: Vec<(f64, u64, &Candidate)> = (self.known.iter())
            .filter(|((map, at), _)| *at == tokens && !self.knows(map, all))
            .map(|((map, _), &loss)| (loss, self.evaluator.bytes(map), map))
            .filter(|&(_, bytes, _)| bytes <= budget)
            .collect();
        left.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(b.2)));
        left.into_iter().map(|(.., map)| map.clone()).collect()
    }

    /// The losses of maps over the first `tokens`, one after another.
    ///
    /// # Errors
    /// When no further evaluation is allowed, or one fails; those before it are in the books.
    pub(super) fn losses(&mut self, maps: &[Candidate], tokens: usize) -> Result<Vec<f64>, Halt<E::Error>> {
        let mut new: Vec<&Candidate> = Vec::new();
        for map in maps {
            if !self.knows(map, tokens) && !new.contains(&map) {
                new.push(map);
            }
        }
        for some in new.chunks(self.at_once) {
            let room = match self.limits.max_evaluations {
                Some(most) => usize::try_from(most - self.evaluations).unwrap_or(usize::MAX),
                None => usize::MAX,
            };
            self.evaluate(&some[..some.len().min(room)], tokens)?;
            if some.len() > room {
                return Err(Halt::End(End::Evaluations));
            }
        }
        Ok(maps.iter().map(|map| self.known[&(map.clone(), tokens)]).collect())
    }

    /// Evaluates maps side by side, and enters them in their order.
    fn evaluate(&mut self, maps: &[&Candidate], tokens: usize) -> Result<(), Halt<E::Error>> {
        let (evaluator, journal) = (self.evaluator, self.hooks.journal.as_deref());
        let (interrupted, clock, deadline) = (self.hooks.interrupted, self.hooks.clock, self.limits.deadline);
        let stop = || match deadline {
            _ if interrupted() => Some(End::Interrupted),
            Some(deadline) if clock.elapsed() >= deadline => Some(End::Deadline),
            _ => None,
        };
        enum Loss<E> {
            Kept(f64),
            New(f64),
            Not(Halt<E>),
        }
        let kept: Vec<Option<f64>> = (maps.iter())
            .map(|map| journal.and_then(|journal| journal.loss(map, tokens)))
            .collect();
        let losses: Vec<Loss<E::Error>> = (maps.par_iter().zip(kept))
            .map(|(map, kept)| match (kept, kept.map_or_else(stop, |_| None)) {
                (Some(loss), _) => Loss::Kept(loss),
                (None, Some(end)) => Loss::Not(Halt::End(end)),
                (None, None) => match evaluator.loss(map, tokens) {
                    Ok(loss) if !loss.is_finite() => Loss::New(f64::INFINITY),
                    Ok(loss) => Loss::New(loss),
                    Err(error) => Loss::Not(Halt::Error(SearchError::Evaluation(error))),
                },
            })
            .collect();
        let (mut new, mut halt) = (Vec::new(), None);
        for (map, loss) in maps.iter().zip(losses) {
            match loss {
                Loss::Kept(loss) => self.enter(map, tokens, loss),
                Loss::New(loss) => {
                    self.enter(map, tokens, loss);
                    new.push(((*map).clone(), loss));
                }
                // An error before the order to stop.
                Loss::Not(why) if matches!((&halt, &why), (None, _) | (Some(Halt::End(_)), Halt::Error(_))) => {
                    halt = Some(why);
                }
                Loss::Not(_) => {}
            }
        }
        if let Some(journal) = self.hooks.journal.as_deref_mut().filter(|_| !new.is_empty()) {
            journal
                .append(&new, tokens)
                .map_err(|error| Halt::Error(error.into()))?;
        }
        self.tell();
        halt.map_or(Ok(()), Err)
    }

    fn enter(&mut self, map: &Candidate, tokens: usize, loss: f64) {
        self.known.insert((map.clone(), tokens), loss);
        self.evaluations += 1;
        self.tokens += tokens as u64;
        if self.evaluator.stages().last() == Some(&tokens) {
            self.front.insert(Point {
                bytes: self.evaluator.bytes(map),
                loss,
                map: map.clone(),
            });
        }
    }

    fn tell(&mut self) {
        let reached = match (self.goal, self.limits.max_loss) {
            (Goal::LeastBytes, Some(loss)) => self.front.reaching(loss),
            _ => None,
        };
        (self.hooks.progress)(Progress {
            phase: self.phase,
            evaluations: self.evaluations,
            at_most: self.limits.max_evaluations,
            best: reached.or(self.front.best()),
        });
    }
}
