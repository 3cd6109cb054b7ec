//! Tokens a second of one GPU.

use onebit_model::config::ModelConfig;
use serde::Serialize;

use crate::options::{OptimizerKind, TrainOptions};
use crate::schedule::Phase;

/// Where a rate is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Measured on an H200 with these options.
    Measured,
    /// Of the operations, at a share of an H200's peak that models of about the size were measured to reach.
    Estimated,
    /// From whoever asks.
    Given,
}

impl Source {
    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Source::Measured => "measured",
            Source::Estimated => "estimated",
            Source::Given => "given",
        }
    }
}

/// Tokens a second of one GPU, its whole step counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// Tokens a second.
    pub tokens_per_second: f64,
    /// Where it is from.
    pub source: Source,
}

/// Of an H200: bf16 products of 8192 cubed, operations a second, and a copy in memory, bytes read and written a second (kernels-cuda/NOTES.md).
const PEAK: f64 = 788e12;
pub(super) const MEMORY: f64 = 4.25e12;

/// `onebit bench train` on an H200, hard phase: preset, batch, tokens of a sequence, whether with recomputation, 8-bit moments and bf16 gradients, tokens a second (kernels-cuda/NOTES.md).
const MEASURED: [(&str, usize, usize, bool, f64); 5] = [
    ("25m", 32, 256, false, 1_637e3),
    ("25m", 256, 256, false, 2_106e3),
    ("125m", 64, 1024, false, 651e3),
    ("1b3", 8, 2048, false, 70.2e3),
    ("8b", 1, 2048, true, 9.08e3),
];

/// The share of the peak that is estimated for a model of so many weights in blocks and head: 25m reached 0.37 and 0.48 of it, 125m 0.55, 1b3 and 8b 0.69.
fn share(weights: f64) -> f64 {
    match weights {
        ..1e8 => 0.4,
        1e8..1e9 => 0.55,
        _ => 0.65,
    }
}

/// The rate of the preset `name` in `phase`, if it was measured with these options, or else an estimate.
pub fn rate_of(name: Option<&str>, config: &ModelConfig, options: &TrainOptions, phase: Phase) -> Rate {
    let least = options.recompute && options.optimizer == OptimizerKind::AdamW8bit && options.bf16_gradients();
    let plain = !options.recompute && options.optimizer == OptimizerKind::AdamW && !options.bf16_gradients();
    let measured = MEASURED.iter().find(|(preset, batch, seq, recompute, _)| {
        let same = if *recompute { least } else { plain };
        same && phase == Phase::Hard
            && Some(*preset) == name
            && (*batch, *seq, 1) == (options.batch_size, options.seq_len, options.accumulation_steps)
    });
    match measured {
        Some(measured) => Rate {
            tokens_per_second: measured.4,
            source: Source::Measured,
        },
        None => Rate {
            tokens_per_second: estimate(config, options),
            source: Source::Estimated,
        },
    }
}

/// Tokens a second at that share: 6 operations for each weight of blocks and head, 8 with recomputation.
fn estimate(config: &ModelConfig, options: &TrainOptions) -> f64 {
    let linears = (0..config.num_hidden_layers).flat_map(|layer| config.linears(layer));
    let blocks: f64 = linears.map(|linear| linear.rows as f64 * linear.cols as f64).sum();
    let weights = blocks + (config.vocab_size * config.hidden_size) as f64;
    share(weights) * PEAK / (weights * if options.recompute { 8.0 } else { 6.0 })
}
