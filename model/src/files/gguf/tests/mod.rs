//! Models go into files and come out again; damaged files are refused by name.

mod malformed;
mod refusals;
mod roundtrip;
mod vocabulary;

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};

use super::{GgufModel, GgufOptions, save_gguf};
use crate::config::{FeedForward, LinearMode, ModelConfig, TensorKind};
use crate::files::{FileError, ModelSource, StoredAs};
use crate::runtime::{FloatValues, TensorSource};

/// A model made of nothing, in memory.
pub(super) struct Made {
    pub config: ModelConfig,
    pub tensors: BTreeMap<String, TensorSource>,
}

impl ModelSource for Made {
    fn path(&self) -> &Path {
        Path::new("made")
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn notes(&self) -> &[String] {
        &[]
    }

    fn stored(&self, name: &str) -> Result<StoredAs, FileError> {
        Ok(match &self.tensors[name] {
            TensorSource::Float(FloatValues::Int8 { .. }) => StoredAs::Int8,
            TensorSource::Float(FloatValues::F16(_)) => StoredAs::F16,
            TensorSource::Float(FloatValues::Bf16(_)) => StoredAs::Bf16,
            TensorSource::Float(_) => StoredAs::F32,
            TensorSource::Integers { .. } => StoredAs::Int8,
            _ => StoredAs::Trits,
        })
    }

    fn tensor(&self, name: &str) -> Result<TensorSource, FileError> {
        Ok(self.tensors[name].clone())
    }
}

/// The kinds of model that have a graph.
pub(super) fn bitnet() -> ModelConfig {
    let mut config = crate::config::presets::all().remove(0).config;
    config.vocab_size = 40;
    config.hidden_size = 256;
    config.intermediate_size = 512;
    config.num_hidden_layers = 2;
    config.num_attention_heads = 4;
    config.num_key_value_heads = 2;
    config.head_dim = 64;
    config.max_position_embeddings = 64;
    config.feed_forward = FeedForward::SwiGlu;
    config.tie_word_embeddings = true;
    config.sub_norms = true;
    config.qk_norm = false;
    config.residual_scaling = false;
    config.rope_theta = 10_000.0;
    config.bos_token_id = None;
    config.eos_token_ids = Vec::new();
    config.set_all_modes(LinearMode::Ternary);
    config
}

pub(super) fn bitnet_b158() -> ModelConfig {
    ModelConfig {
        feed_forward: FeedForward::Relu2Gated,
        rope_theta: 500_000.0,
        ..bitnet()
    }
}

pub(super) fn llama() -> ModelConfig {
    let mut config = ModelConfig {
        sub_norms: false,
        tie_word_embeddings: false,
        head_dim: 128,
        ..bitnet()
    };
    config.layer_modes[1].down = LinearMode::F16;
    config.layer_modes[1].q = LinearMode::F16;
    config
}

/// Random weights: γ that no f16 has, an embedding in bf16 and other floats in f16.
pub(super) fn made(config: ModelConfig) -> Made {
    let mut state = 1u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let mut tensors = BTreeMap::new();
    for spec in config.tensors() {
        let n = spec.len();
        let source = match spec.kind {
            TensorKind::Linear(LinearMode::Ternary | LinearMode::Binary) => TensorSource::Trits {
                values: (0..n).map(|_| (random() * 3.0) as i8 - 1).collect(),
                scale: 0.02 + random() / 7.0,
            },
            TensorKind::Norm => TensorSource::Float(FloatValues::F32((0..n).map(|_| 0.5 + random()).collect())),
            TensorKind::Embedding => TensorSource::Float(FloatValues::Bf16(
                (0..n).map(|_| bf16::from_f32(random() - 0.5)).collect(),
            )),
            _ => TensorSource::Float(FloatValues::F16(
                (0..n).map(|_| f16::from_f32(random() - 0.5)).collect(),
            )),
        };
        tensors.insert(spec.name, source);
    }
    Made { config, tensors }
}

/// The bytes of a file.
pub(super) fn written(source: &dyn ModelSource, options: &GgufOptions<'_>) -> Result<Vec<u8>, FileError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    save_gguf(&path, source, options, &|_, _| {})?;
    Ok(std::fs::read(path).unwrap())
}

/// The model in a file.
pub(super) fn read(bytes: &[u8]) -> GgufModel {
    GgufModel::from_bytes(bytes.to_vec(), "m.gguf").unwrap()
}
