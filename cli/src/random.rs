//! Random models and ids: what is in the weights does not change the speed.

use half::f16;
use onebit_kernels_cpu::rng::Key;
use onebit_kernels_cpu::t2;
use onebit_model::config::{ModelConfig, presets};
use onebit_model::runtime::{FloatStorage, FloatValues, PackedModel, RuntimeError, TensorSource};

use crate::{CliError, Result};

/// RNG purpose of the ids ("bnch").
const PURPOSE: u32 = u32::from_be_bytes(*b"bnch");

/// The shapes that can be had.
const SHAPES: [&str; 6] = ["25m", "125m", "350m", "0.7b", "1b3", "2b4t"];

/// The configuration of a shape.
pub(crate) fn config(shape: &str) -> Result<ModelConfig> {
    let known = SHAPES.contains(&shape).then(|| presets::by_name(shape)).flatten();
    let unknown = || {
        CliError::Usage(format!(
            "--shape: expected one of {}, found {shape:?}",
            SHAPES.join(", ")
        ))
    };
    Ok(known.ok_or_else(unknown)?.config)
}

/// A stream of 64 random bits at a time (xorshift64*), for billions of trits that no one depends on.
struct Stream(u64);

impl Stream {
    fn new(seed: u64) -> Self {
        // Never 0, which the generator does not leave.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// The 81 bytes that hold four trits.
fn packed_bytes() -> Vec<u8> {
    (0..=255u8)
        .filter(|byte| (0..4).all(|field| (byte >> (2 * field)) & 3 < 3))
        .collect()
}

/// `len` random token ids.
pub(crate) fn ids(len: usize, vocab_size: usize, seed: u64) -> Vec<u32> {
    let key = Key::new(seed, PURPOSE, 0);
    (0..len as u64).map(|i| key.below(i, vocab_size as u32)).collect()
}

/// A model of random trits, written in packed form: float weights of the linears never exist. Embedding and head are f16.
pub(crate) fn model(config: ModelConfig, seed: u64, head: FloatStorage) -> Result<PackedModel> {
    let mut stream = Stream::new(seed);
    let bytes = packed_bytes();
    let linears: std::collections::BTreeMap<String, (usize, usize)> = (0..config.num_hidden_layers)
        .flat_map(|layer| {
            config
                .linears(layer)
                .map(|l| (l.name, (l.rows, l.cols)))
                .collect::<Vec<_>>()
        })
        .collect();
    let specs: std::collections::BTreeMap<String, usize> = config
        .tensors()
        .into_iter()
        .map(|spec| (spec.name.clone(), spec.len()))
        .collect();
    let get = |name: &str| -> std::result::Result<TensorSource, RuntimeError> {
        if let Some(&(rows, cols)) = linears.get(name) {
            let mut packed = vec![0; t2::bytes(rows, cols)];
            for eight in packed.chunks_mut(8) {
                let random = stream.next().to_le_bytes();
                eight
                    .iter_mut()
                    .zip(random)
                    .for_each(|(out, r)| *out = bytes[(usize::from(r) * bytes.len()) >> 8]);
            }
            // Keeps the sums' size: a third of the trits are 0.
            let scale = 1.0 / (cols as f32 * 2.0 / 3.0).sqrt();
            return Ok(TensorSource::Packed { bytes: packed, scale });
        }
        let len = specs.get(name).copied().unwrap_or(0);
        if name.ends_with("norm.weight") {
            return Ok(TensorSource::Float(FloatValues::F32(vec![1.0; len].into())));
        }
        // In the type in which it is kept: twice the bytes of a large embedding would be more than the rest of the model.
        let mut value = || f16::from_f32(((stream.next() >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * 0.05);
        Ok(TensorSource::Float(FloatValues::F16(
            (0..len).map(|_| value()).collect(),
        )))
    };
    Ok(PackedModel::from_parts(config, head, get)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packed_byte_holds_four_trits() {
        let bytes = packed_bytes();
        assert_eq!(bytes.len(), 81);
        assert!(t2::is_valid(&bytes));
    }

    #[test]
    fn a_random_model_is_a_model() {
        let mut config = onebit_model::config::presets::by_name("quickstart").unwrap().config;
        config.num_hidden_layers = 1;
        config.layer_modes.truncate(1);
        let model = model(config, 3, FloatStorage::Stored).unwrap();
        assert!(model.bytes().ternary > 0 && model.bytes().float == 0);
        assert!(ids(1000, 7, 1).iter().all(|&id| id < 7));
    }
}
