//! The shapes that the replaced system's samples gave for The Stack, `config_0_3B_stack` to `config_8B_gcp`: plain ReLU², QK-norm, scaled residuals, as many key heads as
//! heads, and first and last block in full precision.
//!
//! The sample of 0.3B listed 17 modes for its 16 blocks, so that the `f16` at the end met no block and the last was ternary. Here the modes are made from the number of
//! blocks: the last is in full precision in all four.

use super::{Preset, Shape, TrainingDefaults, bitnet, preset};
use crate::config::{FeedForward, LayerModes, LinearMode, ModelConfig};

/// The vocabulary of GPT-2, which the samples up to 1.3B have.
const GPT2: usize = 50_257;

pub(super) fn all() -> [Preset; 4] {
    let sized = |hidden, layers, heads, ffn, vocab, seq| Shape {
        hidden,
        layers,
        heads,
        kv_heads: heads,
        ffn,
        vocab,
        seq,
    };
    [
        stack(
            "0.3b-stack",
            "the replaced system's config_0_3B_stack: hidden 1024, 16 layers",
            sized(1024, 16, 16, 2816, GPT2, 1024),
        ),
        stack(
            "0.7b-stack",
            "the replaced system's config_0_7B_stack: hidden 1536, 24 layers",
            sized(1536, 24, 24, 4096, GPT2, 2048),
        ),
        stack(
            "1.3b-stack",
            "the replaced system's config_1_3B_stack: hidden 2048, 24 layers",
            sized(2048, 24, 32, 5504, GPT2, 2048),
        ),
        large(stack(
            "8b-gcp",
            "the replaced system's config_8B_gcp: hidden 4096, 32 layers, vocabulary 128256",
            sized(4096, 32, 32, 14_336, 128_256, 4096),
        )),
    ]
}

fn stack(name: &'static str, summary: &'static str, shape: Shape) -> Preset {
    let mut config = ModelConfig {
        feed_forward: FeedForward::Relu2,
        qk_norm: true,
        residual_scaling: true,
        ..bitnet(shape)
    };
    if let [first, .., last] = config.layer_modes.as_mut_slice() {
        *first = LayerModes::uniform(LinearMode::F16);
        *last = *first;
    }
    let mut preset = preset(name, summary, config);
    // The samples anneal over three tenths of the steps.
    preset.training.quant_anneal_steps = 3 * preset.training.max_steps / 10;
    preset
}

/// What fits beside billions of weights, gradients and moments on one GPU.
fn large(mut preset: Preset) -> Preset {
    preset.training = TrainingDefaults {
        batch_size: 1,
        accumulation_steps: 1,
        seq_len: 2048,
        optimizer: "adamw8bit",
        ..preset.training
    };
    preset
}
