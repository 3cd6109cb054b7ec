//! Modes with figures of their own: a neural cache, and dynamic evaluation.

use std::path::Path;
use std::time::Instant;

use onebit_model::files;
use onebit_model::network::Network;
use onebit_model::runtime::{KvType, PackedModel};
use onebit_trainer::evaluate::{self, DynamicEvaluation, NeuralCache};
use serde::Serialize;

use super::{Corpus, Eval, Evaluation, evaluation, rate};
use crate::device::Placement;
use crate::{CliError, Result};

/// Dynamic evaluation.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Dynamic {
    pub(super) tokens: usize,
    pub(super) lr: f32,
    pub(super) decay: f32,
}

/// A neural cache.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Cache {
    pub(super) tokens: usize,
    pub(super) theta: f32,
    pub(super) weight: f64,
}

impl Eval {
    /// How the model learns what it is scored on, if it does.
    pub(super) fn dynamic(&self) -> Result<Option<DynamicEvaluation>> {
        let Some(piece) = self.dynamic else {
            return match (self.dynamic_lr, self.dynamic_decay) {
                (None, None) => Ok(None),
                _ => Err(CliError::Usage(
                    "--dynamic-lr and --dynamic-decay need --dynamic".into(),
                )),
            };
        };
        let others = [
            ("--cache", self.cache.is_some()),
            ("--stride", self.stride.is_some()),
            ("--context", self.context.is_some()),
            ("--logits", self.logits),
            ("--head", self.head.is_some()),
            ("--kv-type", self.kv_type.is_some()),
            (
                "--device",
                self.device.as_deref().is_some_and(|device| device.starts_with("cuda")),
            ),
        ];
        if let Some((other, _)) = others.iter().find(|(_, given)| *given) {
            return Err(CliError::Usage(format!(
                "--dynamic scores float weights as they learn, on the CPU; leave {other} out"
            )));
        }
        Ok(Some(DynamicEvaluation {
            piece,
            lr: self.dynamic_lr.unwrap_or(1e-5),
            decay: self.dynamic_decay.unwrap_or(0.0),
        }))
    }

    /// The cache that is asked for.
    pub(super) fn cache(&self) -> Result<Option<NeuralCache>> {
        let Some(size) = self.cache else {
            return match (self.cache_theta, self.cache_weight) {
                (None, None) => Ok(None),
                _ => Err(CliError::Usage("--cache-theta and --cache-weight need --cache".into())),
            };
        };
        if self.logits {
            return Err(CliError::Usage(
                "--logits are the model's own; leave --cache out".into(),
            ));
        }
        if self.device.as_deref().is_some_and(|device| device.starts_with("cuda")) {
            return Err(CliError::Usage(
                "--cache is computed on the CPU; leave --device out".into(),
            ));
        }
        Ok(Some(NeuralCache {
            size,
            theta: self.cache_theta.unwrap_or(0.3),
            weight: self.cache_weight.unwrap_or(0.1),
        }))
    }
}

/// Scores `corpus` with a neural cache.
pub(super) fn score_with_cache(
    model: &PackedModel,
    corpus: &Corpus,
    window: (usize, usize),
    kv: KvType,
    cache: NeuralCache,
    place: &Placement,
) -> Result<Evaluation> {
    corpus.check()?;
    let (progress, start) = (corpus.progress(), Instant::now());
    let told = |done| progress.set(done, || rate(done, start));
    let score = evaluate::score_with_cache(model, place.isa, &corpus.ids, window, kv, cache, &told)?;
    let mut evaluation = evaluation(corpus, &score, start);
    evaluation.cache = Some(Cache {
        tokens: cache.size,
        theta: cache.theta,
        weight: cache.weight,
    });
    Ok(evaluation)
}

/// Scores `corpus` with the float weights at `path`, which learn on the way.
pub(super) fn score_dynamically(
    path: &Path,
    corpus: &Corpus,
    how: DynamicEvaluation,
    place: Placement,
) -> Result<Evaluation> {
    if !path.is_dir() {
        return Err(CliError::Failed(format!(
            "--dynamic: {} is packed; a model learns with its float weights, so give the directory that it was trained in",
            path.display()
        )));
    }
    let (config, tensors) = files::load_master(path)?;
    let tensors = tensors.into_iter().map(|(name, tensor)| (name, tensor.data)).collect();
    let network = Network::from_master(config, place.device(), tensors)?;
    let (progress, start) = (corpus.progress(), Instant::now());
    let told = |done| progress.set(done, || rate(done, start));
    // On a thread of the pool, as the trainer does.
    let score = rayon::scope(|_| evaluate::score_dynamically(network, &corpus.ids, how, &told))?;
    let mut evaluation = evaluation(corpus, &score, start);
    evaluation.dynamic = Some(Dynamic {
        tokens: how.piece,
        lr: how.lr,
        decay: how.decay,
    });
    Ok(evaluation)
}
