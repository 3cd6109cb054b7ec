//! A model of a few kilobytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use onebit_model::config::{LayerModes, LinearMode, ModelConfig};
use onebit_model::files::{Dtype, Extras, HighPrecision, MasterTensor, NamedTensor, save_master, save_packed};

use crate::common;
use crate::harness::peak_of;

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
        embedding_mode: LinearMode::F16,
        head_mode: LinearMode::F16,
        ..common::config()
    }
}

/// Random weights of a configuration.
fn tensors(config: &ModelConfig) -> BTreeMap<String, MasterTensor> {
    let specs = config.tensors().into_iter();
    specs
        .map(|spec| {
            let data = common::values(5, &spec.name, spec.len());
            let (shape, stored) = (spec.shape, Dtype::F32);
            (spec.name, MasterTensor { shape, data, stored })
        })
        .collect()
}

/// A model directory with float weights of a configuration.
pub fn save(dir: &Path, config: &ModelConfig) {
    save_master(dir, config, &NamedTensor::all(&tensors(config)), Extras::default()).unwrap();
}

/// A model directory with float weights.
pub fn save_floats(dir: &Path) {
    save(dir, &config());
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

/// Puts files at `path` that are no text, or far too long, or no file, and asks for the error of each, which the reader gives without reading them
/// whole: in at most so many bytes of memory.
pub fn check_no_texts(path: &Path, most: usize, error: impl Fn() -> String) {
    let refused = |expected: &str| {
        let (error, peak) = peak_of(&error);
        assert!(peak < most, "{expected}: {peak} bytes");
        assert!(error.contains(expected), "{error}");
    };
    fs::write(path, b"{\"a\": \"\xff\xfe\"}").unwrap();
    refused("UTF-8");
    // A sparse file, as long as a disk.
    fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
    refused("longer than");
    fs::remove_file(path).unwrap();
    fs::create_dir(path).unwrap();
    refused("not a regular file");
}
