//! How much memory a run takes, before it starts.

use onebit_engine::ops::adamw8bit::BLOCK;
use onebit_model::config::{LinearMode, ModelConfig, TensorKind};
use serde::Serialize;

use crate::options::{OptimizerKind, TrainOptions};

/// Bytes of a training run by use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// f32 master weights.
    pub weights: u64,
    /// One gradient for each weight, f32 or on a GPU in part bf16; on the CPU a second set while micro-batches are added up.
    pub gradients: u64,
    /// Moments.
    pub optimizer: u64,
    /// On a GPU what products read of the weights, int8 and bf16; on the CPU that counts among the activations.
    pub products: u64,
    /// What one micro-batch keeps for its backward, at its largest (the phase before the hard one), and the quantised
    /// weights of the step.
    pub activations: u64,
    /// Teachers, and what they think of a micro-batch.
    pub teachers: u64,
    /// Weights and moments as they were at a checkpoint, while it is written and training goes on. A GPU copies them within its memory where there is room, and else waits: that does not count.
    pub snapshot: u64,
}

impl MemoryEstimate {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights
            + self.gradients
            + self.optimizer
            + self.products
            + self.activations
            + self.teachers
            + self.snapshot
    }
}

/// Memory of training `config` with `options` and teachers of these configurations on the CPU.
///
/// Activations are counted tensor by tensor as the operations keep them; every one of these is `[tokens, width]` f32:
/// the block's inputs of both norms and of both residual sums, the norms' outputs and their blends, q, k, v before and after the
/// rotation (and the QK-norm), the attention's output, gate, up and their product, and for the head the logits, their
/// gradient and the loss.
pub fn memory_estimate(config: &ModelConfig, teachers: &[ModelConfig], options: &TrainOptions) -> MemoryEstimate {
    let specs = config.tensors();
    let elements = |wanted: &dyn Fn(TensorKind) -> bool| {
        specs
            .iter()
            .filter(|s| wanted(s.kind))
            .map(|s| s.len() as u64)
            .sum::<u64>()
    };
    let all = elements(&|_| true);
    let linears = elements(&|k| matches!(k, TensorKind::Linear(_)));
    let quantized = elements(&|k| matches!(k, TensorKind::Linear(m) if m != LinearMode::F16));
    let tables = elements(&|k| match k {
        TensorKind::Embedding => config.embedding_mode != LinearMode::F16,
        TensorKind::Head => config.head_mode != LinearMode::F16,
        _ => false,
    });
    let moments = match options.optimizer {
        OptimizerKind::AdamW => 8 * all,
        OptimizerKind::AdamW8bit => {
            let blocks = specs.iter().map(|s| s.len().div_ceil(BLOCK) as u64);
            2 * all + 8 * blocks.sum::<u64>()
        }
        OptimizerKind::Muon => 8 * all - 4 * linears,
    };
    let tokens = (options.batch_size * options.seq_len) as u64;
    let (h, f) = (config.hidden_size as u64, config.intermediate_size as u64);
    let (q, kv) = (config.query_size() as u64, config.key_value_size() as u64);
    let qk_norm = if config.qk_norm { q + kv } else { 0 };
    let sub_norms = if config.sub_norms { q + f } else { 0 };
    let rates = options.dropout_rates();
    let dropout = [rates.hidden, rates.depth].iter().filter(|p| **p > 0.0).count() as u64 * 2 * h;
    let blends = if quantized > 0 { 2 * h + q + f } else { 0 };
    let gate = if config.feed_forward.has_gate() { f } else { 0 };
    let block = 6 * h + 3 * q + 3 * kv + qk_norm + gate + 2 * f + sub_norms + blends + dropout;
    let rounded = !matches!(config.head_mode, LinearMode::F16 | LinearMode::Int8);
    let head = (2 + u64::from(rounded)) * h + 2 * config.vocab_size as u64;
    let kept = tokens * (config.num_hidden_layers as u64 * block + head);
    // Their weights, the logits of each and the mean of their probabilities; what is between is less than the learner's.
    let logits = 4 * tokens * config.vocab_size as u64;
    let taught = match teachers.len() as u64 {
        0 => 0,
        n => 4 * teachers.iter().map(ModelConfig::parameter_count).sum::<u64>() + (n + 1) * logits,
    };
    MemoryEstimate {
        weights: 4 * all,
        gradients: 4 * all * if options.accumulation_steps > 1 { 2 } else { 1 },
        optimizer: moments,
        products: 0,
        activations: 4 * (kept + quantized + tables),
        teachers: taught,
        snapshot: 4 * all + moments,
    }
}
