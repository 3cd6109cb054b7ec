//! Options of a training run, with their checks.

mod choice;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use onebit_engine::ops::cross_entropy::LossTerms;
use onebit_model::network::{DropoutRates, Initialization};

pub use self::choice::{OptimizerKind, Precision, Sharding};
use crate::data::Alignment;
use crate::schedule::{LrDecay, LrSchedule, QuantSchedule};
use crate::{Result, TrainError};

/// How a model is trained. Saved with every checkpoint; a resumed run must agree on all that decides its bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainOptions {
    /// Sequences of a micro-batch.
    pub batch_size: usize,
    /// Tokens of a sequence.
    pub seq_len: usize,
    /// Micro-batches of an optimiser step on each rank.
    pub accumulation_steps: usize,
    /// Ranks, each with micro-batches of its own.
    #[serde(default = "one_rank")]
    pub world: usize,
    /// What the ranks have a share of each, instead of all of it.
    #[serde(default)]
    pub shard: Sharding,
    /// Optimiser steps; 0 means as many as `max_epochs` takes.
    pub max_steps: u64,
    /// Passes over the data; 0 means no limit.
    pub max_epochs: u64,
    /// Peak learning rate.
    pub lr: f32,
    /// Learning rate at the end.
    pub lr_min: f32,
    /// Steps of linear warm-up.
    pub lr_warmup_steps: u64,
    /// Shape of the decay.
    pub lr_decay: LrDecay,
    /// Optimiser of the matrices.
    pub optimizer: OptimizerKind,
    /// Decoupled weight decay of the linear layers; norms, embedding and head have none.
    pub weight_decay: f32,
    /// The part of the run for which it lasts: 1 to the end, and 0.5 for BitNet's two stages, whose second has none.
    #[serde(default = "to_the_end")]
    pub weight_decay_until: f32,
    /// First moment's decay (Muon: momentum).
    pub beta1: f32,
    /// Second moment's decay.
    pub beta2: f32,
    /// AdamW's ε.
    pub adam_eps: f32,
    /// Gradients are scaled down to this global norm; 0 means never.
    pub grad_clip_max_norm: f32,
    /// Label smoothing of the minimised loss; reported losses are without.
    pub label_smoothing: f32,
    /// z of the z-loss, which keeps the log-sum-exp of the logits near 0; reported losses are without.
    #[serde(default)]
    pub z_loss: f32,
    /// The teachers' share of what is learned, above 0 and at most 1; 0 without teachers.
    #[serde(default)]
    pub teacher_weight: f32,
    /// Checksums of the teachers, made when the run begins.
    #[serde(default)]
    pub teachers: Vec<String>,
    /// Dropout on what each block writes to the residual stream.
    pub dropout: f32,
    /// Dropout on the embedded tokens; as `dropout` if there is none.
    #[serde(default)]
    pub input_dropout: Option<f32>,
    /// Dropout of attention's probabilities, behind the softmax.
    #[serde(default)]
    pub attention_dropout: f32,
    /// Dropout on the head's input.
    #[serde(default)]
    pub output_dropout: f32,
    /// Dropout of whole words: of a word everywhere in a micro-batch.
    #[serde(default)]
    pub word_dropout: f32,
    /// Dropout of the last block's branches, whole, for a sequence; blocks before it have less.
    #[serde(default)]
    pub stochastic_depth: f32,
    /// Steps in full precision.
    pub quant_warmup_steps: u64,
    /// Steps from full precision to hard.
    pub quant_anneal_steps: u64,
    /// Steps between checkpoints; 0 means only at the end.
    pub save_every: u64,
    /// Checkpoints kept.
    pub keep: usize,
    /// Whether the one with the lowest validation loss on ternary weights is kept besides.
    #[serde(default)]
    pub keep_best: bool,
    /// Steps in a row with a loss or gradient that is not finite after which the run stops; those before are skipped.
    #[serde(default = "most_skipped")]
    pub max_skipped: u64,
    /// A loss so many standard deviations above the mean, three times in a row, brings the run back to its newest checkpoint; 0 means never.
    #[serde(default)]
    pub spike_guard: f32,
    /// Steps between validations; 0 means only at the end.
    pub eval_every: u64,
    /// Validation windows of one validation; 0 means all.
    pub eval_windows: usize,
    /// Whether windows begin at documents instead of anywhere.
    pub align_documents: bool,
    /// Steps between metric lines.
    pub log_every: u64,
    /// Arithmetic of the matrix products.
    #[serde(default = "Precision::of_older_runs")]
    pub precision: Precision,
    /// What gradients of the blocks' matrices are rounded to: f32, or, on a GPU, bf16 for half the memory. Sums of several micro-batches are f32 alone.
    #[serde(default = "Precision::of_older_runs")]
    pub gradients: Precision,
    /// On a GPU: keep only the input of each block, and compute the block again for its gradient. Less memory, a third more work, the same bytes.
    #[serde(default)]
    pub recompute: bool,
    /// Where training begins.
    pub init: Initialization,
    /// Seed of initial weights, data order and dropout.
    pub seed: u64,
}

fn to_the_end() -> f32 {
    1.0
}

fn one_rank() -> usize {
    1
}

/// Steps in a row that a run may skip but for the last.
fn most_skipped() -> u64 {
    3
}

impl Default for TrainOptions {
    fn default() -> Self {
        TrainOptions {
            batch_size: 16,
            seq_len: 128,
            accumulation_steps: 1,
            world: one_rank(),
            shard: Sharding::None,
            max_steps: 10_000,
            max_epochs: 0,
            lr: 3e-3,
            lr_min: 0.0,
            lr_warmup_steps: 100,
            lr_decay: LrDecay::Cosine,
            optimizer: OptimizerKind::AdamW,
            weight_decay: 0.1,
            weight_decay_until: to_the_end(),
            beta1: 0.9,
            beta2: 0.95,
            adam_eps: 1e-8,
            grad_clip_max_norm: 1.0,
            label_smoothing: 0.0,
            z_loss: 0.0,
            teacher_weight: 0.0,
            teachers: Vec::new(),
            dropout: 0.0,
            input_dropout: None,
            attention_dropout: 0.0,
            output_dropout: 0.0,
            word_dropout: 0.0,
            stochastic_depth: 0.0,
            quant_warmup_steps: 2_000,
            quant_anneal_steps: 4_000,
            save_every: 1_000,
            keep: 2,
            keep_best: false,
            max_skipped: most_skipped(),
            spike_guard: 0.0,
            eval_every: 500,
            eval_windows: 64,
            align_documents: false,
            log_every: 10,
            precision: Precision::Auto,
            gradients: Precision::F32,
            recompute: false,
            init: Initialization::Normal,
            seed: 42,
        }
    }
}

impl TrainOptions {
    /// Checks every option.
    ///
    /// # Errors
    /// [`TrainError::Option`] for the first one that makes no sense.
    pub fn validate(&self) -> Result<()> {
        let positive: [(&'static str, usize); 4] = [
            ("batch-size", self.batch_size),
            ("seq-len", self.seq_len),
            ("accumulation-steps", self.accumulation_steps),
            ("gpus", self.world),
        ];
        for (option, value) in positive {
            ensure(value > 0, option, "must be at least 1")?;
        }
        ensure(
            self.max_steps > 0 || self.max_epochs > 0,
            "max-steps",
            "0 needs --max-epochs, or the run would never end",
        )?;
        ensure(self.log_every > 0, "log-every", "must be at least 1")?;
        ensure(
            self.keep > 0,
            "keep",
            "must be at least 1, or a resume would find nothing",
        )?;
        ensure(self.max_skipped > 0, "max-skipped-steps", "must be at least 1")?;
        ensure(
            self.spike_guard == 0.0 || self.spike_guard >= 2.0 && self.spike_guard.is_finite(),
            "spike-guard",
            "must be at least 2 standard deviations, or 0 for none",
        )?;
        ensure(
            self.spike_guard == 0.0 || self.save_every > 0,
            "spike-guard",
            "needs checkpoints to go back to; give --save-every",
        )?;
        ensure(self.lr.is_finite() && self.lr > 0.0, "lr", "must be a positive number")?;
        ensure(
            self.lr_min >= 0.0 && self.lr_min <= self.lr,
            "lr-min",
            "must lie between 0 and --lr",
        )?;
        ensure(
            self.weight_decay.is_finite() && self.weight_decay >= 0.0,
            "weight-decay",
            "must not be negative",
        )?;
        ensure(
            self.grad_clip_max_norm.is_finite() && self.grad_clip_max_norm >= 0.0,
            "grad-clip-max-norm",
            "must not be negative",
        )?;
        ensure(
            (0.0..=1.0).contains(&self.weight_decay_until),
            "weight-decay-until",
            "must be a part of the run, from 0 to 1",
        )?;
        ensure(
            (0.0..=1.0).contains(&self.teacher_weight),
            "teacher-weight",
            "must be at least 0 and at most 1",
        )?;
        ensure(
            (0.0..0.1).contains(&self.z_loss),
            "z-loss",
            "must be at least 0 and below 0.1; 1e-4 is usual",
        )?;
        for (option, value) in [
            ("label-smoothing", self.label_smoothing),
            ("dropout", self.dropout),
            ("input-dropout", self.input_dropout.unwrap_or(0.0)),
            ("attention-dropout", self.attention_dropout),
            ("output-dropout", self.output_dropout),
            ("word-dropout", self.word_dropout),
            ("stochastic-depth", self.stochastic_depth),
            ("beta1", self.beta1),
            ("beta2", self.beta2),
        ] {
            ensure((0.0..1.0).contains(&value), option, "must be at least 0 and below 1")?;
        }
        ensure(self.adam_eps > 0.0, "adam-eps", "must be positive")?;
        ensure(self.gradients != Precision::Auto, "gradients", "must be f32 or bf16")?;
        ensure(
            !self.bf16_gradients() || self.accumulation_steps == 1,
            "gradients",
            "bf16 would round each sum of micro-batches; use --accumulation-steps 1, or f32",
        )?;
        ensure(
            !self.bf16_gradients() || self.optimizer != OptimizerKind::Muon,
            "gradients",
            "bf16 is for --optimizer adamw or adamw8bit; Muon's are f32",
        )
    }

    /// How much is dropped where.
    pub fn dropout_rates(&self) -> DropoutRates {
        DropoutRates {
            word: self.word_dropout,
            input: self.input_dropout.unwrap_or(self.dropout),
            attention: self.attention_dropout,
            hidden: self.dropout,
            output: self.output_dropout,
            depth: self.stochastic_depth,
        }
    }

    /// What is minimised beside the negative log-likelihood.
    pub fn loss_terms(&self) -> LossTerms {
        LossTerms {
            smoothing: self.label_smoothing,
            z_loss: self.z_loss,
        }
    }

    /// Weight decay at `step` of a run of `steps`.
    pub fn weight_decay_at(&self, step: u64, steps: u64) -> f32 {
        let until = f64::from(self.weight_decay_until) * steps as f64;
        if (step as f64) < until { self.weight_decay } else { 0.0 }
    }

    /// Whether gradients of the blocks' matrices are bf16.
    pub fn bf16_gradients(&self) -> bool {
        self.gradients == Precision::Bf16
    }

    /// Checks what only one kind of device can do.
    ///
    /// # Errors
    /// [`TrainError::Option`].
    pub fn validate_device(&self, gpu: bool) -> Result<()> {
        ensure(
            !(gpu && self.precision == Precision::F32),
            "precision",
            "products on a GPU are bf16; use --device cpu, or leave it out",
        )?;
        ensure(
            gpu || !self.bf16_gradients(),
            "gradients",
            "bf16 is for training on a GPU (--device cuda)",
        )?;
        ensure(
            gpu || self.shard != Sharding::Parameters,
            "shard",
            "parameters are divided among GPUs (--device cuda); on CPUs use optimizer",
        )?;
        ensure(
            !gpu || self.shard == Sharding::None || self.optimizer != OptimizerKind::Muon,
            "shard",
            "is for --optimizer adamw or adamw8bit on GPUs; Muon's products need whole matrices",
        )?;
        ensure(
            gpu || !self.recompute,
            "recompute",
            "is for training on a GPU (--device cuda)",
        )
    }

    /// Whether a run with `other` options is the same run as far as its bytes go: how often it saves (unless it may go back to what it saved), how many
    /// checkpoints it keeps, when it gives up and what it computes again may differ, and so may the ranks among which the micro-batches of a step are divided.
    pub fn same_run(&self, other: &TrainOptions) -> bool {
        let deciding = |o: &TrainOptions| TrainOptions {
            save_every: 0,
            keep: 1,
            keep_best: false,
            max_skipped: 1,
            recompute: false,
            accumulation_steps: o.micro_batches_per_step(),
            world: 1,
            shard: Sharding::None,
            ..o.clone()
        };
        let saves = |o: &TrainOptions| (o.spike_guard > 0.0).then_some(o.save_every);
        deciding(self) == deciding(other) && saves(self) == saves(other)
    }

    /// Where windows begin.
    pub fn alignment(&self) -> Alignment {
        if self.align_documents {
            Alignment::Documents
        } else {
            Alignment::Stream
        }
    }

    /// Micro-batches of one optimiser step, those of all ranks.
    pub fn micro_batches_per_step(&self) -> usize {
        self.accumulation_steps.saturating_mul(self.world)
    }

    /// Tokens of one optimiser step, those of all ranks.
    pub fn tokens_per_step(&self) -> u64 {
        self.windows_per_step() * self.seq_len as u64
    }

    /// Windows of one optimiser step, those of all ranks.
    pub fn windows_per_step(&self) -> u64 {
        (self.batch_size * self.micro_batches_per_step()) as u64
    }

    /// Optimiser steps of the run, on data of `windows` windows an epoch.
    pub fn total_steps(&self, windows: u64) -> u64 {
        let by_epochs = (self.max_epochs * windows).div_ceil(self.windows_per_step());
        match (self.max_steps, self.max_epochs) {
            (steps, 0) => steps,
            (0, _) => by_epochs,
            (steps, _) => steps.min(by_epochs),
        }
    }

    /// The learning rate over `total_steps`.
    pub fn lr_schedule(&self, total_steps: u64) -> LrSchedule {
        LrSchedule {
            peak: self.lr,
            min: self.lr_min,
            warmup_steps: self.lr_warmup_steps,
            decay: self.lr_decay,
            total_steps,
        }
    }

    /// The annealing value over the steps.
    pub fn quant_schedule(&self) -> QuantSchedule {
        QuantSchedule {
            warmup_steps: self.quant_warmup_steps,
            anneal_steps: self.quant_anneal_steps,
        }
    }
}

fn ensure(holds: bool, option: &'static str, why: &str) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(TrainError::Option {
            option,
            why: why.into(),
        })
    }
}
