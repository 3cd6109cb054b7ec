mod attacks;
mod generation;
mod golden;
mod roundtrip;
mod shards;
mod streams;
mod variants;
mod weights;
mod whole;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;
use crate::config::ModelConfig;
use crate::config::presets::by_name;
pub(super) use whole::{LoadedLinear, load_model};

/// A small model: 2 blocks, 32 channels, all ternary.
pub(super) fn small() -> ModelConfig {
    let mut config = ModelConfig {
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        vocab_size: 40,
        bos_token_id: Some(1),
        ..by_name("quickstart").unwrap().config
    };
    config.set_all_modes(crate::config::LinearMode::Ternary);
    config
}

/// Weights for a configuration, different for each tensor.
pub(super) fn weights_of(config: &ModelConfig) -> BTreeMap<String, MasterTensor> {
    let tensor = |(i, spec): (usize, crate::config::TensorSpec)| {
        let value = |j: usize| (((i * 7919 + j) as f32 * 12.9898).sin() * 437.5).fract() * 0.1;
        let data = (0..spec.len()).map(value).collect();
        (
            spec.name,
            MasterTensor {
                shape: spec.shape,
                data,
                stored: Dtype::F32,
            },
        )
    };
    config.tensors().into_iter().enumerate().map(tensor).collect()
}

fn save_small(dir: &Path) -> (ModelConfig, BTreeMap<String, MasterTensor>) {
    let config = small();
    let tensors = weights_of(&config);
    save_master(dir, &config, &NamedTensor::all(&tensors), Extras::default()).unwrap();
    (config, tensors)
}

/// A container with this header and so many zero bytes of data.
pub(super) fn container(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// Rewrites the container with one entry changed; the data stay.
pub(super) fn edit(path: &Path, from: &str, to: &str) {
    let whole = fs::read(path).unwrap();
    let end = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let header = String::from_utf8(whole[8..end].to_vec()).unwrap();
    assert!(header.contains(from), "{from} in {header}");
    let mut bytes = container(&header.replacen(from, to, 1), 0);
    bytes.extend(&whole[end..]);
    fs::write(path, bytes).unwrap();
}

/// Kilobytes of the map around `address` that are resident, as the system counts them.
#[cfg(target_os = "linux")]
pub(super) fn resident(address: usize) -> usize {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        let number = |text: &str| usize::from_str_radix(text, 16).ok();
        if let Some((start, end)) = first.split_once('-').and_then(|(a, b)| Some((number(a)?, number(b)?))) {
            inside = (start..end).contains(&address);
        } else if inside && first == "Rss:" {
            return words.next().unwrap().parse().unwrap();
        }
    }
    panic!("nothing is mapped at {address:x}");
}
