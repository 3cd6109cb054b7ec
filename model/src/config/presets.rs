//! Models by name, each with the training settings that suit it, and [`resolve`], which takes a name or a file.

mod stack;
mod stories;
mod training;
mod wikitext2;

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
        embedding_mode: LinearMode::F16,
        head_mode: LinearMode::F16,
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
        stories::quickstart(),
        shakespeare_tiny(),
        wikitext2::cpu(),
        wikitext2::production(),
        wikitext2::words_25m(),
        wikitext2::words_35m(),
        stories::stories_3m(),
        stories::stories_mcu(),
    ]);
    for (name, summary, shape) in SHAPES {
        all.push(preset(name, summary, bitnet(Shape { ..*shape })));
    }
    all.push(bitnet_2b4t());
    all.push(eight_billion());
    all.extend(stack::all());
    all
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
/// no such file exists; so does `config_NAME.json`, or `config_NAME` alone, for every other preset, `_` standing for `-`, between digits for a
/// point, and capitals for small letters: `config_0_3B_stack` is `0.3b-stack`.
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
    let sample = base.strip_prefix("config_");
    let wanted = match sample.map(|rest| rest.strip_suffix(".json").unwrap_or(rest)) {
        Some(stem) => preset_of_sample(stem),
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

/// The preset that a sample's `stem` means, `0_3B_stack`.
fn preset_of_sample(stem: &str) -> String {
    let digit = |i: usize| stem.as_bytes().get(i).is_some_and(u8::is_ascii_digit);
    let name = stem.char_indices().map(|(i, c)| match c {
        '_' if i > 0 && digit(i - 1) && digit(i + 1) => '.',
        '_' => '-',
        other => other.to_ascii_lowercase(),
    });
    name.collect()
}
