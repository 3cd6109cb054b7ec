//! Options as C has them.

use onebit_model::decode::TextOptions;
use onebit_model::image::Image;
use onebit_model::runtime::KvType;
use onebit_model::sampling::SamplingParams;

use crate::status::{Problem, Status};

/// Keys and values in 32 bits.
pub const KV_F32: i32 = 0;
/// Keys and values in 16 bits.
pub const KV_F16: i32 = 1;
/// Keys and values in 8 bits.
pub const KV_INT8: i32 = 2;

/// How tokens are chosen; the names and ranges of [`SamplingParams`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Chooses the stream of random numbers.
    pub seed: u64,
    /// Divides the logits; 0 always takes the most likely token.
    pub temperature: f32,
    /// The most likely tokens together hold this much of the probability; 1 for no limit.
    pub top_p: f32,
    /// Tokens are at least this fraction as likely as the most likely one; 0 for no limit.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens already seen; 1 for none.
    pub repetition_penalty: f32,
    /// Only so many of the most likely tokens; 0 for no limit.
    pub top_k: u32,
}

/// What a generator takes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens of prompt and answer that are held.
    pub context: u32,
    /// Tokens of a prompt that are read at once.
    pub chunk: u32,
    /// How keys and values are kept: [`KV_F32`], [`KV_F16`] or [`KV_INT8`].
    pub kv: i32,
    /// Not 0: a full context lets its older half go, instead of ending the answer.
    pub slides: i32,
}

/// As many as there are, for a `usize` of any width.
fn count(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn short(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Sampling {
    pub(crate) fn params(self) -> SamplingParams {
        SamplingParams {
            temperature: self.temperature,
            top_k: count(self.top_k),
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        }
    }
}

impl Options {
    /// Those that a model recommends.
    pub(crate) fn of(image: &Image) -> Self {
        let options = TextOptions::of(image);
        let sampling = options.sampling;
        Self {
            sampling: Sampling {
                seed: sampling.seed,
                temperature: sampling.temperature,
                top_p: sampling.top_p,
                min_p: sampling.min_p,
                repetition_penalty: sampling.repetition_penalty,
                top_k: short(sampling.top_k),
            },
            context: short(options.context),
            chunk: short(options.chunk),
            kv: KV_F32,
            slides: 0,
        }
    }

    pub(crate) fn of_model(self, image: &Image) -> Result<TextOptions, Problem<'static>> {
        let kv = match self.kv {
            KV_F32 => KvType::F32,
            KV_F16 => KvType::F16,
            KV_INT8 => KvType::Int8,
            _ => {
                return Err(Problem {
                    status: Status::Option,
                    message: &"kv: expected ONEBIT_KV_F32, ONEBIT_KV_F16 or ONEBIT_KV_INT8",
                });
            }
        };
        Ok(TextOptions {
            context: count(self.context),
            kv,
            chunk: count(self.chunk),
            slides: self.slides != 0,
            sampling: self.sampling.params(),
            ..TextOptions::of(image)
        })
    }
}
