//! Scoring text with the packed runtime.

mod cache;
mod dynamic;
pub(crate) mod stories;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use onebit_engine::Isa;
use onebit_model::config::ModelConfig;
use onebit_model::runtime::cuda::{CudaModel, CudaSession};
use onebit_model::runtime::{KvType, PackedModel, Sequence, Serial, Session, SessionOptions};
use rayon::prelude::*;

pub use cache::{NeuralCache, score_with_cache};
pub use dynamic::{DynamicEvaluation, score_dynamically};
pub use stories::{Agreement, StorySuite, StoryTeller, score_stories};

use crate::{Result, TrainError};

/// Sum of the negative log-likelihoods of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Total in nats, summed in f64.
    pub nats: f64,
    /// Tokens scored.
    pub tokens: u64,
}

impl Score {
    /// Nats a token.
    pub fn loss(&self) -> f64 {
        self.nats / self.tokens as f64
    }
}

/// Scores every token of `ids` but the first, which is context only: put an end-of-text or begin token there.
///
/// The model reads windows of `context` tokens that advance by `stride`; each window scores the tokens that no earlier one did, so every
/// token but those of the first window sees at least `context − stride` tokens before it. `progress` gets the number of
/// tokens done. `kv` is how keys and values are kept. The result does not depend on the number of threads.
///
/// # Errors
/// Fewer than two tokens, a stride of 0 or above the context, an id outside the vocabulary.
pub fn score(
    model: &PackedModel,
    isa: Isa,
    ids: &[u32],
    (context, stride): (usize, usize),
    kv: KvType,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Score> {
    let text = Text::new(model.config(), ids, (context, stride))?;
    let sums = on_all_threads(model, isa, &text, kv, progress, |session, window| {
        let mut nats = 0.0;
        let scored = text.window(session, window, |logits, target| nats += surprise(logits, target));
        Ok((nats, scored.map_err(|e| failed(&e))?))
    })?;
    Ok(text.score(&sums))
}

/// What `read` makes of each window of `text`, in their order; it returns the number of tokens that it scored besides.
fn on_all_threads<T: Send>(
    model: &PackedModel,
    isa: Isa,
    text: &Text<'_>,
    kv: KvType,
    progress: &(dyn Fn(u64) + Sync),
    read: impl Fn(&mut Session<&PackedModel, Serial>, usize) -> Result<(T, u64)> + Sync,
) -> Result<Vec<T>> {
    let options = SessionOptions {
        context: text.context,
        chunk: text.context.min(64),
        logit_rows: text.context.min(16),
        kv,
    };
    let done = AtomicU64::new(0);
    (0..text.windows())
        .into_par_iter()
        .map_init(
            || Session::new(model, Serial, isa, options),
            |session, window| {
                let session = session.as_mut().map_err(|e| failed(&e))?;
                let (told, scored) = read(session, window)?;
                progress(done.fetch_add(scored, Ordering::Relaxed) + scored);
                Ok(told)
            },
        )
        .collect()
}

/// As [`score`] with a model on a GPU, one window after the other, of which all threads sum up logits while the next ones are made. The logits are those of the CPU, and so is the
/// result.
///
/// # Errors
/// As [`score`]; the GPU's.
pub fn score_on_gpu(
    model: &CudaModel,
    ids: &[u32],
    (context, stride): (usize, usize),
    kv: KvType,
    progress: &dyn Fn(u64),
) -> Result<Score> {
    let text = Text::new(model.config(), ids, (context, stride))?;
    let mut session = CudaSession::new(model, context, kv).map_err(|e| failed(&e))?;
    let mut done = 0;
    let mut sums = Vec::with_capacity(text.windows());
    for window in 0..text.windows() {
        let surprises = surprises(&text, &mut session, window).map_err(|e| failed(&e))?;
        sums.push(surprises.iter().sum());
        done += surprises.len() as u64;
        progress(done);
    }
    Ok(text.score(&sums))
}

/// How surprising each token is that window `window` scores.
fn surprises<S: Sequence>(text: &Text<'_>, session: &mut S, window: usize) -> std::result::Result<Vec<f64>, S::Error> {
    let mut found = vec![0.0; text.context];
    let scored = rayon::in_place_scope(|scope| {
        let mut slots = found.iter_mut();
        text.window(session, window, |logits, target| {
            if let Some(slot) = slots.next() {
                let logits = logits.to_vec();
                scope.spawn(move |_| *slot = surprise(&logits, target));
            }
        })
    })?;
    found.truncate(scored as usize);
    Ok(found)
}

fn failed(error: &dyn std::fmt::Display) -> TrainError {
    TrainError::Runtime(error.to_string())
}

/// A text to be scored in windows.
struct Text<'a> {
    ids: &'a [u32],
    context: usize,
    stride: usize,
}

impl<'a> Text<'a> {
    /// `ids`, if a model of `config` can score them.
    fn new(config: &ModelConfig, ids: &'a [u32], (context, stride): (usize, usize)) -> Result<Self> {
        let limit = config.max_position_embeddings;
        if context == 0 || context > limit {
            return Err(TrainError::Option {
                option: "context",
                why: format!("must lie between 1 and the model's {limit}"),
            });
        }
        if stride == 0 || stride > context {
            return Err(TrainError::Option {
                option: "stride",
                why: format!("must lie between 1 and the context of {context}"),
            });
        }
        if ids.len() < 2 {
            return Err(TrainError::Runtime("a text of no token cannot be scored".into()));
        }
        let vocab = config.vocab_size;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
            return Err(TrainError::Runtime(format!(
                "token {id} is outside the model's vocabulary of {vocab}; tokenize with the model's own tokenizer"
            )));
        }
        Ok(Text { ids, context, stride })
    }

    /// Tokens that are scored.
    fn targets(&self) -> usize {
        self.ids.len() - 1
    }

    fn windows(&self) -> usize {
        1 + self.targets().saturating_sub(self.context).div_ceil(self.stride)
    }

    /// The tokens that window `window` reads, and how many targets were scored before it.
    fn span(&self, window: usize) -> (Range<usize>, usize) {
        let first = window * self.stride;
        let last = (first + self.context).min(self.targets());
        let scored_before = if window == 0 {
            0
        } else {
            first - self.stride + self.context
        };
        (first..last, scored_before)
    }

    /// Reads window `window` from its beginning and calls `each(logits, target)` for the tokens that it scores, in order; returns their number.
    fn window<S: Sequence>(
        &self,
        session: &mut S,
        window: usize,
        mut each: impl FnMut(&[f32], u32),
    ) -> std::result::Result<u64, S::Error> {
        let (Range { start, end }, scored_before) = self.span(window);
        let first = scored_before.max(start);
        session.truncate(0);
        if first > start {
            // Of what is only context no logits are wanted but, as the interface has it, the last.
            session.prefill_top(&self.ids[start..first], None)?;
        }
        session.prefill_all_top(&self.ids[first..end], None, |i, logits| {
            each(logits, self.ids[first + i + 1])
        })?;
        Ok((end - first) as u64)
    }

    fn score(&self, windows: &[f64]) -> Score {
        Score {
            nats: windows.iter().sum(),
            tokens: self.targets() as u64,
        }
    }
}

/// `−ln softmax(logits)[target]` in f64; an id outside the vocabulary is infinitely surprising.
fn surprise(logits: &[f32], target: u32) -> f64 {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    logits
        .get(target as usize)
        .map_or(f64::INFINITY, |&x| sum.ln() - f64::from(x - max))
}

#[cfg(test)]
mod tests {
    use onebit_engine::Device;
    use onebit_model::config::presets;
    use onebit_model::network::Network;

    use super::*;

    fn tiny() -> PackedModel {
        let mut config = presets::by_name("quickstart").unwrap().config;
        config.vocab_size = 64;
        config.max_position_embeddings = 32;
        let network = Network::new(config, Device::cpu().unwrap(), 3).unwrap();
        crate::packed(&network).unwrap()
    }

    #[test]
    fn every_token_is_scored_once_whatever_the_stride() {
        let (model, isa) = (tiny(), Isa::best());
        let ids: Vec<u32> = (0..101).map(|i| (i * 37 + i / 7) % 64).collect();
        // One token of context at a time: the definition.
        let one = score(&model, isa, &ids, (1, 1), KvType::F32, &|_| ()).unwrap();
        assert_eq!(one.tokens, 100);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1.5, "an untrained model is near ln 64 a token: {a} {b}");
        for (context, stride) in [(32, 32), (32, 16), (32, 7), (32, 1), (5, 3)] {
            let s = score(&model, isa, &ids, (context, stride), KvType::F32, &|_| ()).unwrap();
            assert_eq!(s.tokens, 100);
            near(s.loss(), 64f64.ln());
            near(s.loss(), one.loss());
        }
    }

    #[test]
    fn a_stride_of_one_is_the_sliding_window() {
        let (model, isa) = (tiny(), Isa::best());
        let ids: Vec<u32> = (0..20).map(|i| (i * 11) % 64).collect();
        let mut nats = 0.0;
        for target in 1..ids.len() {
            let first = target.saturating_sub(8);
            let mut session = Session::new(&model, Serial, isa, SessionOptions::new(8)).unwrap();
            let logits = session.prefill(&ids[first..target]).unwrap();
            nats += surprise(logits, ids[target]);
        }
        let sliding = score(&model, isa, &ids, (8, 1), KvType::F32, &|_| ()).unwrap();
        assert!((sliding.nats - nats).abs() < 1e-9, "{} {nats}", sliding.nats);
    }

    #[test]
    fn senseless_requests_are_refused() {
        let (model, isa) = (tiny(), Isa::best());
        assert!(score(&model, isa, &[1], (8, 4), KvType::F32, &|_| ()).is_err());
        assert!(score(&model, isa, &[1, 2], (33, 4), KvType::F32, &|_| ()).is_err());
        assert!(score(&model, isa, &[1, 2], (8, 9), KvType::F32, &|_| ()).is_err());
        assert!(score(&model, isa, &[1, 64], (8, 8), KvType::F32, &|_| ()).is_err());
    }
}
