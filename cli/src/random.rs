//! Random models and ids: what is in the weights does not change the speed.

use std::collections::BTreeMap;
use std::path::Path;

use half::f16;
use onebit_kernels_cpu::rng::Key;
use onebit_kernels_cpu::t2;
use onebit_model::config::{ModelConfig, TensorKind, TensorSpec, presets};
use onebit_model::files::{FileError, ModelSource, StoredAs};
use onebit_model::runtime::{FloatStorage, FloatValues, LoadError, PackedModel, TensorSource};

use crate::{CliError, Result};

/// RNG purpose of the ids ("bnch").
const PURPOSE: u32 = u32::from_be_bytes(*b"bnch");

/// The shapes that can be had.
const SHAPES: [&str; 7] = ["25m", "125m", "350m", "0.7b", "1b3", "2b4t", "8b"];

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

/// A model of random trits that is made as it is read. Embedding and head are f16.
pub(crate) struct RandomModel {
    config: ModelConfig,
    seed: u64,
    specs: BTreeMap<String, (u64, TensorSpec)>,
    bytes: Vec<u8>,
}

impl RandomModel {
    /// A model of this configuration.
    pub(crate) fn new(config: ModelConfig, seed: u64) -> Self {
        let specs = { config.tensors().into_iter().zip(0..) }.map(|(spec, at)| (spec.name.clone(), (at, spec)));
        Self {
            specs: specs.collect(),
            config,
            seed,
            bytes: packed_bytes(),
        }
    }

    fn spec(&self, name: &str) -> std::result::Result<(Stream, &TensorSpec), FileError> {
        match self.specs.get(name) {
            // Each tensor has numbers of its own, whatever the order in which they are asked for.
            Some((at, spec)) => Ok((Stream::new(self.seed ^ at.wrapping_mul(0xd1b5_4a32_d192_ed03)), spec)),
            None => Err(FileError::MissingTensor {
                path: self.path().to_path_buf(),
                name: name.to_string(),
                suggestion: None,
            }),
        }
    }

    /// So many random bytes, each of four trits.
    fn packed(&self, mut stream: Stream, len: usize) -> Vec<u8> {
        let mut packed = vec![0; len];
        for eight in packed.chunks_mut(8) {
            let random = stream.next().to_le_bytes();
            eight
                .iter_mut()
                .zip(random)
                .for_each(|(out, r)| *out = self.bytes[(usize::from(r) * self.bytes.len()) >> 8]);
        }
        packed
    }

    /// Embedding, head or norm.
    fn floats(&self, mut stream: Stream, spec: &TensorSpec) -> TensorSource {
        if spec.kind == TensorKind::Norm {
            return TensorSource::Float(FloatValues::F32(vec![1.0; spec.len()].into()));
        }
        // In the type in which it is kept: twice the bytes of a large embedding would be more than the rest of the model.
        let mut value = || f16::from_f32(((stream.next() >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * 0.05);
        TensorSource::Float(FloatValues::F16((0..spec.len()).map(|_| value()).collect()))
    }
}

/// Keeps the sums' size: a third of the trits are 0.
fn scale(cols: usize) -> f32 {
    1.0 / (cols as f32 * 2.0 / 3.0).sqrt()
}

impl ModelSource for RandomModel {
    fn path(&self) -> &Path {
        Path::new("--shape")
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn notes(&self) -> &[String] {
        &[]
    }

    fn stored(&self, name: &str) -> std::result::Result<StoredAs, FileError> {
        Ok(match self.spec(name)?.1.kind {
            TensorKind::Linear(_) => StoredAs::Trits,
            TensorKind::Norm => StoredAs::F32,
            TensorKind::Embedding | TensorKind::Head => StoredAs::F16,
        })
    }

    fn tensor(&self, name: &str) -> std::result::Result<TensorSource, FileError> {
        let (stream, spec) = self.spec(name)?;
        match (spec.kind, spec.shape.as_slice()) {
            (TensorKind::Linear(_), &[rows, cols]) => {
                let mut values = vec![0; rows * cols];
                t2::unpack(&self.packed(stream, t2::bytes(rows, cols)), rows, cols, &mut values);
                let scale = scale(cols);
                Ok(TensorSource::Trits { values, scale })
            }
            _ => Ok(self.floats(stream, spec)),
        }
    }
}

/// The same model in memory, put together in packed form: single trits never exist. In the layout that this CPU is fastest with, if it is `for_cpu`.
pub(crate) fn model(config: ModelConfig, seed: u64, head: FloatStorage, for_cpu: bool) -> Result<PackedModel> {
    let random = RandomModel::new(config, seed);
    let get = |name: &str| -> std::result::Result<TensorSource, LoadError> {
        let (stream, spec) = random.spec(name)?;
        match (spec.kind, spec.shape.as_slice()) {
            (TensorKind::Linear(_), &[rows, cols]) => Ok(TensorSource::Packed {
                bytes: random.packed(stream, t2::bytes(rows, cols)),
                scale: scale(cols),
            }),
            _ => Ok(random.floats(stream, spec)),
        }
    };
    let config = random.config.clone();
    Ok(match for_cpu {
        true => PackedModel::from_parts(config, head, get)?,
        false => PackedModel::from_parts_as_they_are(config, head, get)?,
    })
}

#[cfg(test)]
mod tests {
    use onebit_model::runtime::Linear;

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
        let read = PackedModel::from_source(&RandomModel::new(config.clone(), 3), FloatStorage::Stored).unwrap();
        let model = model(config, 3, FloatStorage::Stored, true).unwrap();
        assert!(model.bytes().ternary > 0 && model.bytes().float == 0);
        assert_eq!(read.embedding(), model.embedding());
        let trits = |model: &PackedModel| {
            let Some(Linear::Ternary {
                rows,
                cols,
                layout,
                packed,
                ..
            }) = model.blocks()[0].linears().nth(1)
            else {
                panic!("ternary")
            };
            let mut trits = vec![0; rows * cols];
            layout.unpack(packed, *rows, *cols, &mut trits);
            trits
        };
        assert_eq!(trits(&read), trits(&model));
        assert!(ids(1000, 7, 1).iter().all(|&id| id < 7));
    }
}
