//! A model of a few kilobytes.

use std::collections::BTreeMap;
use std::path::Path;

use onebit_model::config::{LayerModes, LinearMode, ModelConfig};
use onebit_model::files::{Dtype, Extras, HighPrecision, MasterTensor, NamedTensor, save_master, save_packed};

use crate::common;

/// One block of 16 channels, twelve tokens, all ternary.
pub fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 12,
        hidden_size: 16,
        intermediate_size: 20,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 8,
        max_position_embeddings: 16,
        layer_modes: vec![LayerModes::uniform(LinearMode::Ternary)],
        ..common::config()
    }
}

/// Random weights of a configuration.
pub fn tensors(config: &ModelConfig) -> BTreeMap<String, MasterTensor> {
    let specs = config.tensors().into_iter();
    specs
        .map(|spec| {
            let data = common::values(5, &spec.name, spec.len());
            let (shape, stored) = (spec.shape, Dtype::F32);
            (spec.name, MasterTensor { shape, data, stored })
        })
        .collect()
}

/// A model directory with float weights.
pub fn save_floats(dir: &Path) {
    let config = config();
    save_master(dir, &config, &NamedTensor::all(&tensors(&config)), Extras::default()).unwrap();
}

/// A model directory with packed trits.
pub fn save_trits(dir: &Path) {
    let config = config();
    let tensors = tensors(&config);
    save_packed(
        dir,
        &config,
        &NamedTensor::all(&tensors),
        Extras::default(),
        HighPrecision::F32,
    )
    .unwrap();
}
