//! Training settings that go with a model.

use crate::config::ModelConfig;

/// Probabilities of dropout by place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DropoutDefaults {
    /// On what each block writes to the residual stream, and on the embedded tokens unless `input` says otherwise.
    pub hidden: f64,
    /// On the embedded tokens.
    pub input: Option<f64>,
    /// On the head's input.
    pub output: f64,
    /// Of whole words.
    pub word: f64,
}

/// Teachers that are trained first: models in full precision that differ by their seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TeacherDefaults {
    /// The preset whose shape and settings they have.
    pub preset: &'static str,
    /// How many. The mean of their probabilities is learned.
    pub count: usize,
    /// The optimiser steps of each.
    pub steps: u64,
    /// What is dropped while they learn: more than of the model that has them to learn from.
    pub dropout: DropoutDefaults,
    /// Their share of what the model learns.
    pub weight: f64,
}

/// Training settings that go with a model; every one is an option of `onebit train`.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingDefaults {
    /// Sequences per micro-batch.
    pub batch_size: usize,
    /// Micro-batches per optimiser step.
    pub accumulation_steps: usize,
    /// Tokens per sequence, at most `max_position_embeddings`.
    pub seq_len: usize,
    /// Optimiser steps.
    pub max_steps: u64,
    /// Peak learning rate.
    pub lr: f64,
    /// Learning rate at the end of the decay.
    pub lr_min: f64,
    /// Steps over which the learning rate rises linearly from 0.
    pub lr_warmup_steps: u64,
    /// Decoupled weight decay of AdamW.
    pub weight_decay: f64,
    /// Largest global L2 norm of the gradient; 0 turns clipping off.
    pub grad_clip_max_norm: f64,
    /// Share of the target probability spread over the whole vocabulary.
    pub label_smoothing: f64,
    /// Steps in full precision, before quantisation begins.
    pub quant_warmup_steps: u64,
    /// Steps over which quantisation goes from soft to hard.
    pub quant_anneal_steps: u64,
    /// Where training begins: `normal`, or `mimetic` for attention that begins as matching and copying.
    pub init: &'static str,
    /// `adamw` or `adamw8bit` for everything, or `muon` for the blocks' matrices and AdamW for the rest.
    pub optimizer: &'static str,
    /// Shape of the learning rate's decay: `cosine`, `linear`, `wsd`, `two-stage` or `none`.
    pub lr_decay: &'static str,
    /// What is dropped.
    pub dropout: DropoutDefaults,
    /// Who teaches, beside the text.
    pub teacher: Option<TeacherDefaults>,
    /// Steps between evaluations on held-out text.
    pub eval_every: u64,
    /// Steps between checkpoints.
    pub save_every: u64,
}

impl TrainingDefaults {
    /// Settings for a model without a preset: 10,000 steps, a tenth of them in full precision and two tenths of
    /// annealing, with a peak learning rate that falls with the square root of the width.
    pub fn for_model(config: &ModelConfig) -> Self {
        let lr = 3e-3 * (256.0 / config.hidden_size.max(256) as f64).sqrt();
        Self {
            batch_size: 8,
            accumulation_steps: 4,
            seq_len: config.max_position_embeddings.min(1024),
            max_steps: 10_000,
            lr,
            lr_min: lr / 20.0,
            lr_warmup_steps: 200,
            weight_decay: 0.1,
            grad_clip_max_norm: 1.0,
            label_smoothing: 0.0,
            quant_warmup_steps: 1_000,
            quant_anneal_steps: 2_000,
            init: "normal",
            optimizer: "adamw",
            lr_decay: "cosine",
            dropout: DropoutDefaults::default(),
            teacher: None,
            eval_every: 500,
            save_every: 1_000,
        }
    }

    /// Muon with a linear decay to a hundredth: what learns most from few tokens.
    pub(super) fn muon(self) -> Self {
        Self {
            optimizer: "muon",
            lr_decay: "linear",
            lr_min: self.lr / 100.0,
            accumulation_steps: 1,
            weight_decay: 0.05,
            ..self
        }
    }

    /// Sets the number of steps and the lengths of the phases that are shares of it.
    pub(super) fn steps(self, max_steps: u64) -> Self {
        Self {
            max_steps,
            lr_warmup_steps: (max_steps / 30).clamp(1, 200),
            quant_warmup_steps: max_steps / 5,
            quant_anneal_steps: max_steps / 5,
            eval_every: (max_steps / 10).max(1),
            save_every: (max_steps / 4).max(1),
            ..self
        }
    }
}
