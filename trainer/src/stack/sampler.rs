//! Which shard is visited when.
//!
//! ```text
//! visit k   with the probability `replay_share`: one of the last `replay` shards, each alike
//!           else a language by the weights, and of it the next shard of a shuffled pass; when all were there, a new pass
//! ```
//! Every draw is a function of (seed, k) and the visits before it, so the k-th visit is one of (manifest, weights, seed, replay, k): a resumed run walks from the first visit
//! to where it stood, some hundred nanoseconds each. What is still on the disk plays no part.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use onebit_engine::rng::Key;

use super::StackError;
use super::manifest::Shard;
use crate::data::permute;
use crate::{Result, TrainError};

const PURPOSE_VISIT: u32 = 0x7669_7374;
const PURPOSE_ORDER: u32 = 0x7368_7264;

/// How shards are drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplerOptions {
    /// Weight of each language; those that are not named are left out. Empty: each language's bytes.
    pub weights: BTreeMap<String, f64>,
    /// Seed of the draws.
    pub seed: u64,
    /// Shards of the last visits that may be visited again.
    pub replay: usize,
    /// The share of visits that are such.
    pub replay_share: f32,
    /// Visits after which the stream ends; 0 means never.
    pub max_visits: u64,
}

/// A visit of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Number of the visit, from 0.
    pub number: u64,
    /// The shard, by its place in the manifest.
    pub shard: usize,
    /// Whether it is one of the last again.
    pub replay: bool,
    /// Visits before it that were no replays, over the number of shards: passes over the manifest that are done.
    pub pass: u64,
}

#[derive(Clone, Debug)]
struct Language {
    shards: Vec<usize>,
    /// The weights up to this language, as a share of all.
    up_to: f64,
}

/// The order of visits.
#[derive(Clone, Debug)]
pub struct Sampler {
    languages: Vec<Language>,
    shards: u64,
    options: SamplerOptions,
}

impl Sampler {
    /// The order for the shards of a manifest.
    ///
    /// # Errors
    /// [`StackError::NoShards`]; a weight that is no weight, or of a language that is not there.
    pub fn new(shards: &[Shard], options: SamplerOptions) -> Result<Self> {
        let refused = |option, why: String| Err(TrainError::Option { option, why });
        if !(0.0..1.0).contains(&options.replay_share) {
            return refused("replay-share", "must be at least 0 and below 1".into());
        }
        let mut by_language: BTreeMap<&str, (Vec<usize>, f64)> = BTreeMap::new();
        for (i, shard) in shards.iter().enumerate() {
            let (of, bytes) = by_language.entry(&shard.language).or_default();
            of.push(i);
            *bytes += shard.bytes as f64;
        }
        for (name, weight) in &options.weights {
            if !(weight.is_finite() && *weight >= 0.0) {
                return refused(
                    "language-weights",
                    format!("{name}={weight} is no weight; give a number from 0 on"),
                );
            }
            if !by_language.contains_key(name.as_str()) {
                let known: Vec<&str> = by_language.keys().take(20).copied().collect();
                let why = format!("the manifest has no shard of {name}; it has {}", known.join(", "));
                return refused("language-weights", why);
            }
        }
        let mut languages = Vec::new();
        let mut sum = 0.0;
        for (name, (of, bytes)) in by_language {
            let weight = match options.weights.is_empty() {
                true => bytes,
                false => options.weights.get(name).copied().unwrap_or(0.0),
            };
            if weight > 0.0 {
                sum += weight;
                languages.push(Language { shards: of, up_to: sum });
            }
        }
        if languages.is_empty() {
            let of = if shards.is_empty() {
                ""
            } else {
                " whose language has a weight"
            };
            return Err(StackError::NoShards { of: of.into() }.into());
        }
        languages.iter_mut().for_each(|language| language.up_to /= sum);
        Ok(Sampler {
            shards: languages.iter().map(|language| language.shards.len() as u64).sum(),
            languages,
            options,
        })
    }

    /// Shards that are drawn from.
    pub fn shards(&self) -> impl Iterator<Item = usize> {
        self.languages
            .iter()
            .flat_map(|language| language.shards.iter().copied())
    }

    /// The visits from the first on.
    pub fn walk(&self) -> Walk<'_> {
        Walk {
            sampler: self,
            next: 0,
            drawn: vec![0; self.languages.len()],
            fresh: 0,
            recent: VecDeque::new(),
        }
    }
}

/// Visits, one after another.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    sampler: &'a Sampler,
    next: u64,
    /// Draws of each language.
    drawn: Vec<u64>,
    /// Visits that were no replays.
    fresh: u64,
    /// The last shards, newest last, each once.
    recent: VecDeque<usize>,
}

impl Walk<'_> {
    /// The shards that may be visited again now, newest last.
    pub fn recent(&self) -> impl Iterator<Item = usize> + '_ {
        self.recent.iter().copied()
    }

    fn fresh(&mut self, key: Key) -> usize {
        let sampler = self.sampler;
        // 53 bits, as many as an f64 has.
        let high = u64::from(key.u32(1)) << 21 | u64::from(key.u32(2)) >> 11;
        let at = high as f64 / (1u64 << 53) as f64;
        let language = sampler.languages.partition_point(|language| language.up_to <= at);
        let language = language.min(sampler.languages.len() - 1);
        let of = &sampler.languages[language].shards;
        let n = of.len() as u64;
        let (pass, place) = (self.drawn[language] / n, self.drawn[language] % n);
        self.drawn[language] += 1;
        self.fresh += 1;
        // Another order for each pass of each language.
        let order = Key::new(
            sampler.options.seed,
            PURPOSE_ORDER,
            pass.wrapping_mul(sampler.languages.len() as u64)
                .wrapping_add(language as u64),
        );
        of[permute(place, n, |counter, bound| order.below(counter, bound)) as usize]
    }
}

impl Iterator for Walk<'_> {
    type Item = Visit;

    fn next(&mut self) -> Option<Visit> {
        let options = &self.sampler.options;
        let number = self.next;
        if options.max_visits > 0 && number >= options.max_visits {
            return None;
        }
        self.next += 1;
        let key = Key::new(options.seed, PURPOSE_VISIT, number);
        let replay = !self.recent.is_empty() && key.uniform(0) < options.replay_share;
        let pass = self.fresh / self.sampler.shards;
        let shard = match replay {
            true => self.recent[key.below(3, self.recent.len() as u32) as usize],
            false => self.fresh(key),
        };
        if options.replay > 0 {
            self.recent.retain(|&other| other != shard);
            self.recent.push_back(shard);
            if self.recent.len() > options.replay {
                self.recent.pop_front();
            }
        }
        Some(Visit {
            number,
            shard,
            replay,
            pass,
        })
    }
}
