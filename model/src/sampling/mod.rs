//! From logits to the next token.
//!
//! [`Sampler::sample`] applies, in this order:
//!
//! ```text
//! repetition penalty   l ← l / r if l > 0 else l · r, once for each token seen   (Keskar et al., CTRL, 2019)
//! temperature          l ← l / T;  T = 0 takes the largest logit and stops here
//! top-k                the k largest                                             (Fan et al., 2018)
//! top-p                the smallest set of the most likely that holds mass p of what top-k left (Holtzman et al., 2020)
//! min-p                those at least min_p as likely as the most likely         (Nguyen et al., 2024)
//! draw                 one of the rest, in proportion to its probability
//! ```
//!
//! Ties go to the lower token id. The draw of token number `i` depends on the seed and `i` alone (a counter-based generator), and
//! the exponentials are those of the CPU kernels: same seed and logits, same tokens, on every CPU.
//!
//! One pass over the logits finds the k largest; no vocabulary is ever sorted whole. Nothing is allocated after
//! [`Sampler::new`].
//!
//! [`StopStrings`] watches the text that comes out of it.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unreachable,
    clippy::unwrap_used
)]

mod error;
pub(crate) mod filters;
mod sampler;
mod stop;
#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "tests"
)]
mod tests;

use onebit_kernels_cpu::rng::Key;

pub use error::SamplingError;
pub use sampler::Sampler;
pub use stop::{StopStrings, Streamed};

/// The purpose of the seeds of further samples ("nsmp").
const SAMPLES: u32 = u32::from_be_bytes(*b"nsmp");

/// How the next token is chosen. The defaults are those of chat: temperature 0.8, top-k 50, top-p 0.9, no min-p, repetition
/// penalty 1.1, seed 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 always takes the most likely token. Default 0.8.
    pub temperature: f32,
    /// Only the `top_k` most likely tokens; 0 for no limit. Default 50.
    pub top_k: usize,
    /// Only the most likely tokens that together hold this much of the probability; 1 for no limit. Default 0.9.
    pub top_p: f32,
    /// Only tokens at least this fraction as likely as the most likely one; 0 for no limit. Default 0.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens already seen; 1 for none. Default 1.1.
    pub repetition_penalty: f32,
    /// Chooses the stream of random numbers. Default 0.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 50,
            top_p: 0.9,
            min_p: 0.0,
            repetition_penalty: 1.1,
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// The most likely token each time, with no repetition penalty.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            repetition_penalty: 1.0,
            ..Self::default()
        }
    }

    /// The same for sample `index` of several: 0 has the seed itself, each further one a seed that follows from both and from nothing
    /// else, so that more samples change none of those before.
    pub fn for_sample(self, index: u64) -> Self {
        let seed = match index {
            0 => self.seed,
            _ => {
                let [low, high, ..] = Key::new(self.seed, SAMPLES, index).words();
                u64::from(high) << 32 | u64::from(low)
            }
        };
        Self { seed, ..self }
    }

    /// Checks that every parameter is in its range.
    ///
    /// # Errors
    /// [`SamplingError::OutOfRange`] names the parameter, its range and what was found.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let check = |good: bool, name: &'static str, range: &'static str, found: f32| {
            if good {
                Ok(())
            } else {
                Err(SamplingError::OutOfRange { name, range, found })
            }
        };
        let t = self.temperature;
        check(
            t.is_finite() && t >= 0.0,
            "temperature",
            "a finite number, 0 or more",
            t,
        )?;
        check(
            self.top_p > 0.0 && self.top_p <= 1.0,
            "top_p",
            "more than 0 and at most 1",
            self.top_p,
        )?;
        check((0.0..=1.0).contains(&self.min_p), "min_p", "0 to 1", self.min_p)?;
        let r = self.repetition_penalty;
        check(
            r.is_finite() && r > 0.0,
            "repetition_penalty",
            "a finite number above 0",
            r,
        )
    }
}
