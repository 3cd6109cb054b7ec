//! The sampler: buffers, repetition penalty, and the draw.

use alloc::vec;
use alloc::vec::Vec;

use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::attention::softmax_weights;
use onebit_kernels_cpu::rng::Key;

use super::filters::{self, Candidate};
use super::{SamplingError, SamplingParams};

/// The purpose of the random stream ("smpl"): no other use of the seed shares its numbers.
const PURPOSE: u32 = u32::from_be_bytes(*b"smpl");

/// Chooses tokens from logits. See the [module](super) for the steps.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    vocab: usize,
    isa: Isa,
    /// Tokens drawn so far: the counter of the random stream.
    drawn: u64,
    /// `seen[t] == stamp` if token `t` occurs in the history of this call.
    seen: Vec<u32>,
    stamp: u32,
    candidates: Vec<Candidate>,
    weights: Vec<f32>,
}

impl Sampler {
    /// A sampler over `vocab` tokens; allocates all that it will ever need.
    ///
    /// # Errors
    /// [`SamplingError::OutOfRange`] for a parameter, [`SamplingError::VocabularySize`] for `vocab`.
    pub fn new(params: SamplingParams, vocab: usize) -> Result<Self, SamplingError> {
        params.validate()?;
        if vocab == 0 || u32::try_from(vocab).is_err() {
            return Err(SamplingError::VocabularySize { found: vocab });
        }
        let draws = params.temperature > 0.0;
        let room = if draws {
            filters::top_k_room(params.top_k, vocab)
        } else {
            0
        };
        let seen = if params.repetition_penalty != 1.0 { vocab } else { 0 };
        Ok(Self {
            params,
            vocab,
            isa: Isa::best(),
            drawn: 0,
            seen: vec![0; seen],
            stamp: 0,
            candidates: Vec::with_capacity(room),
            weights: Vec::with_capacity(room),
        })
    }

    /// Bytes that a sampler takes.
    pub(crate) fn memory_bytes(params: &SamplingParams, vocab: usize) -> usize {
        let room = if params.temperature > 0.0 {
            filters::top_k_room(params.top_k, vocab)
        } else {
            0
        };
        let seen = if params.repetition_penalty != 1.0 { vocab } else { 0 };
        let candidate = size_of::<Candidate>().saturating_add(size_of::<f32>());
        room.saturating_mul(candidate)
            .saturating_add(seen.saturating_mul(size_of::<u32>()))
    }

    /// The parameters given to [`Sampler::new`].
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// How many of the largest logits, once penalised, settle what is drawn; `None` if all of them count. Tokens with a repetition penalty come on
    /// top of these many.
    pub fn needed(&self) -> Option<usize> {
        let SamplingParams {
            temperature,
            top_k,
            repetition_penalty,
            ..
        } = self.params;
        match (temperature == 0.0, top_k) {
            // A penalty below 1 lifts tokens from anywhere.
            _ if repetition_penalty < 1.0 => None,
            (true, _) => Some(1),
            (false, 0) => None,
            (false, k) => Some(k),
        }
    }

    /// Starts the random stream again, as after [`Sampler::new`].
    pub fn reset(&mut self) {
        self.drawn = 0;
    }

    /// The next token. `logits` is `[vocab]` and is changed by the repetition penalty; `history` holds the tokens that the
    /// penalty applies to, each counted once however often it occurs.
    ///
    /// # Errors
    /// [`SamplingError::LogitCount`], [`SamplingError::BadLogit`], [`SamplingError::NoToken`], and
    /// [`SamplingError::UnknownToken`] for a token of `history` outside the vocabulary when there is a penalty.
    pub fn sample(&mut self, logits: &mut [f32], history: &[u32]) -> Result<u32, SamplingError> {
        if logits.len() != self.vocab {
            return Err(SamplingError::LogitCount {
                expected: self.vocab,
                found: logits.len(),
            });
        }
        // NaN is not below infinity either. The fold looks at every logit and so runs in vectors.
        let usable = |x: &f32| *x < f32::INFINITY;
        if !logits.iter().fold(true, |all, x| all & usable(x))
            && let Some((token, &found)) = (0u32..).zip(logits.iter()).find(|(_, x)| !usable(x))
        {
            return Err(SamplingError::BadLogit { token, found });
        }
        self.penalise(logits, history)?;
        let token = if self.params.temperature == 0.0 {
            most_likely(logits)?
        } else {
            self.draw(logits)?
        };
        self.drawn = self.drawn.wrapping_add(1);
        Ok(token)
    }

    /// Divides positive and multiplies negative logits of the tokens in `history`, each once.
    fn penalise(&mut self, logits: &mut [f32], history: &[u32]) -> Result<(), SamplingError> {
        let penalty = self.params.repetition_penalty;
        if penalty == 1.0 {
            return Ok(());
        }
        if let Some(token) = history.iter().find(|t| **t as usize >= self.vocab) {
            return Err(SamplingError::UnknownToken {
                token: *token,
                vocab: self.vocab,
            });
        }
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.seen.fill(0);
            self.stamp = 1;
        }
        for token in history {
            let place = *token as usize;
            let (Some(seen), Some(logit)) = (self.seen.get_mut(place), logits.get_mut(place)) else {
                continue;
            };
            if *seen != self.stamp {
                *seen = self.stamp;
                let penalised = if *logit > 0.0 {
                    *logit / penalty
                } else {
                    *logit * penalty
                };
                // A penalty far below 1 may overflow, and an excluded token stays excluded.
                *logit = if *logit == f32::NEG_INFINITY {
                    *logit
                } else {
                    penalised.clamp(f32::MIN, f32::MAX)
                };
            }
        }
        Ok(())
    }

    /// Filters and draws; the temperature is above 0.
    fn draw(&mut self, logits: &[f32]) -> Result<u32, SamplingError> {
        let candidates = &mut self.candidates;
        filters::top_k(logits, self.params.top_k, candidates);
        let most = candidates.iter().fold(f32::NEG_INFINITY, |a, c| a.max(c.logit));
        self.weights.clear();
        // Relative to the largest, so that a small temperature cannot overflow upwards; e^−1000 is 0.
        self.weights.extend(
            candidates
                .iter()
                .map(|c| ((c.logit - most) / self.params.temperature).max(-1000.0)),
        );
        softmax_weights(self.isa, &mut self.weights);
        for (c, w) in candidates.iter_mut().zip(&self.weights) {
            c.weight = *w;
        }
        if self.params.top_p < 1.0 {
            filters::top_p(candidates, self.params.top_p);
        }
        if self.params.min_p > 0.0 {
            filters::min_p(candidates, self.params.min_p);
        }

        // 53 uniform bits: a token may be less likely than 2⁻²⁴.
        let key = Key::new(self.params.seed, PURPOSE, self.drawn);
        let bits = (u64::from(key.u32(0)) << 32 | u64::from(key.u32(1))) >> 11;
        let uniform = bits as f64 / (1u64 << 53) as f64;
        let total: f64 = candidates.iter().map(|c| f64::from(c.weight)).sum();
        let mut left = uniform * total;
        let mut chosen = None;
        for c in candidates.iter().filter(|c| c.weight > 0.0) {
            chosen = Some(c.id);
            left -= f64::from(c.weight);
            if left < 0.0 {
                break;
            }
        }
        chosen.ok_or(SamplingError::NoToken)
    }
}

/// The token with the largest logit, the lowest id among equals.
fn most_likely(logits: &[f32]) -> Result<u32, SamplingError> {
    let mut best = None;
    filters::above(logits, |id, logit| {
        best = Some(id);
        logit
    });
    best.ok_or(SamplingError::NoToken)
}

#[cfg(test)]
impl Sampler {
    /// Room in the buffers, to see that none grows.
    pub(super) fn capacities(&self) -> [usize; 3] {
        [
            self.seen.capacity(),
            self.candidates.capacity(),
            self.weights.capacity(),
        ]
    }
}
