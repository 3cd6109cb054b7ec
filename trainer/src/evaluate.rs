//! Scoring text with the packed runtime.

use std::sync::atomic::{AtomicU64, Ordering};

use onebit_engine::Isa;
use onebit_model::runtime::{KvType, PackedModel, Serial, Session, SessionOptions};
use rayon::prelude::*;

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
    let limit = model.config().max_position_embeddings;
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
    let failed = |e: onebit_model::runtime::RuntimeError| TrainError::Runtime(e.to_string());
    let vocab = model.config().vocab_size;
    if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
        return Err(TrainError::Runtime(format!(
            "token {id} is outside the model's vocabulary of {vocab}; tokenize with the model's own tokenizer"
        )));
    }
    let targets = ids.len() - 1;
    let windows = 1 + targets.saturating_sub(context).div_ceil(stride);
    let options = SessionOptions {
        context,
        chunk: context.min(64),
        logit_rows: context.min(16),
        kv,
    };
    let done = AtomicU64::new(0);
    let sums: Vec<f64> = (0..windows)
        .into_par_iter()
        .map_init(
            || Session::new(model, Serial, isa, options),
            |session, window| {
                let session = session.as_mut().map_err(|e| TrainError::Runtime(e.to_string()))?;
                let first = window * stride;
                let last = (first + context).min(targets);
                let scored_before = if window == 0 { 0 } else { first - stride + context };
                session.reset();
                let mut nats = 0.0;
                session
                    .prefill_all(&ids[first..last], |i, logits| {
                        if first + i >= scored_before {
                            nats += surprise(logits, ids[first + i + 1]);
                        }
                    })
                    .map_err(failed)?;
                let scored = (last - scored_before.max(first)) as u64;
                progress(done.fetch_add(scored, Ordering::Relaxed) + scored);
                Ok(nats)
            },
        )
        .collect::<Result<_>>()?;
    Ok(Score {
        nats: sums.iter().sum(),
        tokens: targets as u64,
    })
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
