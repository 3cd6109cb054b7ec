//! WikiText-2: by tokens of a BPE, and by its own words.

use super::{DropoutDefaults, Preset, Shape, TeacherDefaults, TrainingDefaults, bitnet, preset};
use crate::config::{FeedForward, ModelConfig};

pub(super) fn cpu() -> Preset {
    let shape = Shape {
        hidden: 192,
        layers: 4,
        heads: 6,
        kv_heads: 6,
        ffn: 512,
        vocab: 4096,
        seq: 256,
    };
    let config = ModelConfig {
        qk_norm: true,
        ..bitnet(shape)
    };
    let mut preset = preset("wikitext2-cpu", "WikiText-2 in half an hour on two CPU cores", config);
    preset.training = TrainingDefaults {
        batch_size: 16,
        lr: 1e-2,
        ..preset.training
    }
    .muon()
    .steps(1_800);
    preset
}

pub(super) fn production() -> Preset {
    let shape = Shape {
        hidden: 512,
        layers: 6,
        heads: 8,
        kv_heads: 8,
        ffn: 2048,
        vocab: 50257,
        seq: 256,
    };
    let config = ModelConfig {
        feed_forward: FeedForward::Relu2,
        qk_norm: true,
        residual_scaling: true,
        ..bitnet(shape)
    };
    let mut preset = preset(
        "wikitext2-production",
        "WikiText-2 with the GPT-2 vocabulary: QK-norm, plain ReLU²",
        config,
    );
    preset.training = TrainingDefaults {
        batch_size: 8,
        accumulation_steps: 4,
        ..preset.training
    }
    .steps(20_000);
    preset
}

/// What is dropped while a model learns WikiText-2 in full precision.
const STRONG: DropoutDefaults = DropoutDefaults {
    word: 0.2,
    input: Some(0.5),
    hidden: 0.2,
    output: 0.5,
};

/// And while a ternary one learns it from teachers, which keep it from learning the text by heart.
const MILD: DropoutDefaults = DropoutDefaults {
    word: 0.05,
    input: Some(0.2),
    hidden: 0.05,
    output: 0.2,
};

pub(super) fn words_25m() -> Preset {
    by_words(
        "wikitext2-25m",
        "WikiText-2 by words, 23 M parameters, taught by three twins: word perplexity 64.2 on the validation text",
        [320, 10, 5],
        3,
    )
}

pub(super) fn words_35m() -> Preset {
    by_words(
        "wikitext2-35m",
        "WikiText-2 by words, 34 M parameters, taught by two twins of the smaller: word perplexity 63.7 on the validation text",
        [448, 8, 7],
        2,
    )
}

/// A model of WikiText-2's own 33,278 words, of so many values, blocks and heads, with so many teachers. Text is scarce: each reads it 47 times.
fn by_words(name: &'static str, summary: &'static str, [hidden, layers, heads]: [usize; 3], teachers: usize) -> Preset {
    let steps = 6_000;
    let shape = Shape {
        hidden,
        layers,
        heads,
        kv_heads: heads,
        ffn: 4 * hidden,
        vocab: 33_278,
        seq: 256,
    };
    let config = ModelConfig {
        feed_forward: FeedForward::Relu2,
        qk_norm: true,
        ..bitnet(shape)
    };
    let mut preset = preset(name, summary, config);
    let lr_min = preset.training.lr_min;
    preset.training = preset.training.muon().steps(steps);
    preset.training = TrainingDefaults {
        batch_size: 64,
        seq_len: 256,
        lr: 1.4e-2,
        lr_min,
        lr_warmup_steps: steps / 50,
        weight_decay: 0.1,
        dropout: MILD,
        teacher: Some(TeacherDefaults {
            // In full precision a larger shape learns more by heart, and teaches less.
            preset: "wikitext2-25m",
            count: teachers,
            steps,
            dropout: STRONG,
            weight: 0.8,
        }),
        ..preset.training
    };
    preset
}
