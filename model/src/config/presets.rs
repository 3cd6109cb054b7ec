//! Models by name, each with the training settings that suit it, and [`resolve`], which takes a name or a file.

mod training;

use std::path::Path;
use std::string::{String, ToString};
use std::vec::Vec;

use super::{ConfigError, FeedForward, LinearMode, ModelConfig, WeightStorage, json};

pub use training::{DropoutDefaults, TeacherDefaults, TrainingDefaults};

/// A model shipped by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// The name, as given to `--config`.
    pub name: &'static str,
    /// One line about it.
    pub summary: &'static str,
    /// The model. A tokenizer with another vocabulary overrides `vocab_size`.
    pub config: ModelConfig,
    /// Its training settings.
    pub training: TrainingDefaults,
}

/// Sizes in the order in which tables of models give them; `seq` is the longest context.
struct Shape {
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    ffn: usize,
    vocab: usize,
    seq: usize,
}

/// A BitNet b1.58 model (sub-norms, gated ReLU², tied head) with every linear ternary.
fn bitnet(shape: Shape) -> ModelConfig {
    let mut config = ModelConfig {
        vocab_size: shape.vocab,
        hidden_size: shape.hidden,
        intermediate_size: shape.ffn,
        num_hidden_layers: shape.layers,
        num_attention_heads: shape.heads,
        num_key_value_heads: shape.kv_heads,
        head_dim: shape.hidden / shape.heads,
        max_position_embeddings: shape.seq,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        feed_forward: FeedForward::Relu2Gated,
        tie_word_embeddings: true,
        sub_norms: true,
        qk_norm: false,
        residual_scaling: false,
        final_logit_softcapping: None,
        layer_modes: Vec::new(),
        bos_token_id: None,
        eos_token_ids: Vec::new(),
        initializer_range: 0.02,
        storage: WeightStorage::Master,
    };
    config.set_all_modes(LinearMode::Ternary);
    config
}

/// Name, summary and shape of the presets that differ in nothing else.
const SHAPES: &[(&str, &str, Shape)] = &[
    (
        "25m",
        "hidden 512, 8 layers, vocabulary 8192",
        shape(512, 8, 8, 8, 1408, 8192),
    ),
    (
        "125m",
        "hidden 768, 12 layers, vocabulary 32768",
        shape(768, 12, 12, 12, 2048, 32768),
    ),
    (
        "350m",
        "hidden 1024, 24 layers, vocabulary 32768",
        shape(1024, 24, 16, 16, 2816, 32768),
    ),
    (
        "0.7b",
        "hidden 1536, 24 layers, vocabulary 32002",
        shape(1536, 24, 16, 16, 4096, 32002),
    ),
    (
        "1b3",
        "hidden 2048, 24 layers, vocabulary 32768",
        shape(2048, 24, 32, 32, 5632, 32768),
    ),
];

const fn shape(hidden: usize, layers: usize, heads: usize, kv_heads: usize, ffn: usize, vocab: usize) -> Shape {
    Shape {
        hidden,
        layers,
        heads,
        kv_heads,
        ffn,
        vocab,
        seq: 2048,
    }
}

fn preset(name: &'static str, summary: &'static str, config: ModelConfig) -> Preset {
    let training = TrainingDefaults::for_model(&config);
    Preset {
        name,
        summary,
        config,
        training,
    }
}

/// All presets, small ones first.
pub fn all() -> Vec<Preset> {
    let mut all = Vec::from([
        quickstart(),
        shakespeare_tiny(),
        wikitext2_cpu(),
        wikitext2_production(),
        wikitext2_25m(),
        wikitext2_35m(),
        stories_3m(),
    ]);
    for (name, summary, shape) in SHAPES {
        all.push(preset(name, summary, bitnet(Shape { ..*shape })));
    }
    all.push(bitnet_2b4t());
    all.push(eight_billion());
    all
}

fn quickstart() -> Preset {
    let shape = Shape {
        hidden: 128,
        layers: 2,
        heads: 16,
        kv_heads: 16,
        ffn: 256,
        vocab: 1024,
        seq: 160,
    };
    // A story keeps nine things the same and a head learns to copy one or two of them: many heads, wider in all than the stream. What
    // they look for is what a word is, not where it stands: slow rotations.
    let config = ModelConfig {
        head_dim: 16,
        rope_theta: 1e6,
        qk_norm: true,
        ..bitnet(shape)
    };
    let mut preset = preset(
        "quickstart",
        "stories of the built-in grammar in three minutes on two CPU cores",
        config,
    );
    preset.training = TrainingDefaults {
        batch_size: 16,
        seq_len: 112,
        lr: 3e-2,
        init: "mimetic",
        ..preset.training
    }
    .muon()
    .steps(1_260);
    preset
}

fn shakespeare_tiny() -> Preset {
    let shape = Shape {
        hidden: 128,
        layers: 4,
        heads: 4,
        kv_heads: 4,
        ffn: 384,
        vocab: 1024,
        seq: 256,
    };
    let config = ModelConfig {
        qk_norm: true,
        ..bitnet(shape)
    };
    let mut preset = preset(
        "shakespeare-tiny",
        "tiny Shakespeare in three minutes on two CPU cores",
        config,
    );
    preset.training = TrainingDefaults {
        batch_size: 8,
        lr: 1.5e-2,
        ..preset.training
    }
    .muon()
    .steps(700);
    preset
}

fn wikitext2_cpu() -> Preset {
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

fn wikitext2_production() -> Preset {
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

/// And while a ternary one learns it from a teacher.
const MILD: DropoutDefaults = DropoutDefaults {
    word: 0.2,
    input: Some(0.4),
    hidden: 0.15,
    output: 0.4,
};

fn wikitext2_25m() -> Preset {
    wikitext2_words(
        "wikitext2-25m",
        "WikiText-2 by words, 23 M parameters, taught by its twin: word perplexity 70.3 on the validation text",
        [320, 10, 5],
        9_000,
        TeacherDefaults {
            preset: "wikitext2-25m",
            steps: 5_000,
            dropout: STRONG,
            weight: 0.5,
        },
    )
}

fn wikitext2_35m() -> Preset {
    wikitext2_words(
        "wikitext2-35m",
        "WikiText-2 by words, 34 M parameters, taught by the twin of the smaller: word perplexity 69.1 on the validation text",
        [448, 8, 7],
        6_500,
        // In full precision the larger shape learns more by heart, and teaches less.
        TeacherDefaults {
            preset: "wikitext2-25m",
            steps: 6_000,
            dropout: STRONG,
            weight: 0.6,
        },
    )
}

/// A model of WikiText-2's own 33,278 words, of so many values, blocks and heads. Text is scarce: much is dropped, and the text is read fifty to seventy times.
fn wikitext2_words(
    name: &'static str,
    summary: &'static str,
    [hidden, layers, heads]: [usize; 3],
    steps: u64,
    teacher: TeacherDefaults,
) -> Preset {
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
        teacher: Some(teacher),
        ..preset.training
    };
    preset
}

/// The quickstart's stories with a model for which they hold nothing new.
fn stories_3m() -> Preset {
    let shape = Shape {
        hidden: 256,
        layers: 3,
        heads: 32,
        kv_heads: 32,
        ffn: 512,
        vocab: 1024,
        seq: 160,
    };
    let config = ModelConfig {
        head_dim: 16,
        rope_theta: 1e6,
        qk_norm: true,
        ..bitnet(shape)
    };
    let mut preset = preset(
        "stories-3m",
        "stories of the built-in grammar with 3 M parameters (onebit quickstart --config stories-3m)",
        config,
    );
    preset.training = TrainingDefaults {
        batch_size: 64,
        seq_len: 112,
        lr: 1.5e-2,
        init: "mimetic",
        ..preset.training
    }
    .muon()
    .steps(3_000);
    preset
}

fn bitnet_2b4t() -> Preset {
    let shape = Shape {
        hidden: 2560,
        layers: 30,
        heads: 20,
        kv_heads: 5,
        ffn: 6912,
        vocab: 128_256,
        seq: 4096,
    };
    let config = ModelConfig {
        rope_theta: 500_000.0,
        bos_token_id: Some(128_000),
        eos_token_ids: Vec::from([128_001]),
        ..bitnet(shape)
    };
    preset("2b4t", "the shape of microsoft/bitnet-b1.58-2B-4T", config)
}

fn eight_billion() -> Preset {
    let shape = Shape {
        hidden: 4096,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        ffn: 14_336,
        vocab: 128_256,
        seq: 4096,
    };
    let config = ModelConfig {
        rope_theta: 500_000.0,
        ..bitnet(shape)
    };
    let mut preset = preset(
        "8b",
        "hidden 4096, 32 layers, vocabulary 128256: on one GPU of 80 GB with --recompute --gradients bf16",
        config,
    );
    // What fits beside 7.5 billion weights, gradients and moments.
    preset.training = TrainingDefaults {
        batch_size: 1,
        accumulation_steps: 1,
        seq_len: 2048,
        optimizer: "adamw8bit",
        ..preset.training
    };
    preset
}

/// The preset of this name.
pub fn by_name(name: &str) -> Option<Preset> {
    all().into_iter().find(|preset| preset.name == name)
}

/// The names of all presets.
pub fn names() -> Vec<&'static str> {
    all().iter().map(|preset| preset.name).collect()
}

/// What [`resolve`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The model.
    pub config: ModelConfig,
    /// The preset's training settings, or those of [`TrainingDefaults::for_model`].
    pub training: TrainingDefaults,
    /// The preset's name, when no file was read.
    pub preset: Option<&'static str>,
    /// The file reader's notes.
    pub notes: Vec<String>,
}

/// Turns the value of `--config` into a model: a file if there is one (or a directory that holds `config.json`), else a
/// preset. `config_wikitext2_production.json`, the replaced system's sample, finds the preset `wikitext2-production` where
/// no such file exists; so does `config_NAME.json` for every other preset, `_` standing for `-`.
///
/// # Errors
/// The file's own error, or [`ConfigError::UnknownPreset`] with all presets and the nearest.
pub fn resolve(name_or_path: &str) -> Result<Resolved, ConfigError> {
    let path = Path::new(name_or_path);
    let nested = path.join("config.json");
    let file = if path.is_file() {
        Some(path)
    } else {
        nested.is_file().then_some(nested.as_path())
    };
    if let Some(file) = file {
        let parsed = json::read_file(file)?;
        let training = TrainingDefaults::for_model(&parsed.config);
        return Ok(Resolved {
            config: parsed.config,
            training,
            preset: None,
            notes: parsed.notes,
        });
    }
    let base = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let sample = base.strip_prefix("config_").and_then(|rest| rest.strip_suffix(".json"));
    let wanted = match sample {
        Some(stem) => stem.replace('_', "-"),
        None => name_or_path.to_string(),
    };
    match by_name(&wanted) {
        Some(found) => Ok(Resolved {
            config: found.config,
            training: found.training,
            preset: Some(found.name),
            notes: Vec::new(),
        }),
        None => Err(ConfigError::UnknownPreset {
            name: name_or_path.to_string(),
            suggestion: json::nearest(&wanted, names().into_iter()),
            known: names().join(", "),
        }),
    }
}
