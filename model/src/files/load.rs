//! The float weights of a model directory in memory, as training needs them.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;

use super::{FileError, HfDirectory, ModelSource};
use crate::config::{ModelConfig, WeightStorage};
use crate::runtime::{FloatValues, TensorSource};

/// A float tensor as f32.
#[derive(Clone, Debug, PartialEq)]
pub struct MasterTensor {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub data: Vec<f32>,
    /// The type in the file: f32, f16 or bf16.
    pub stored: Dtype,
}

impl MasterTensor {
    pub(super) fn new(shape: Vec<usize>, values: FloatValues) -> Self {
        let stored = match &values {
            FloatValues::F16(_) => Dtype::F16,
            FloatValues::Bf16(_) => Dtype::BF16,
            _ => Dtype::F32,
        };
        let data = values.into_f32();
        Self { shape, data, stored }
    }
}

/// Reads a model directory with float weights: every tensor by name.
///
/// # Errors
/// As [`HfDirectory::open`], and [`FileError::Packed`] when the linears are packed.
pub fn load_master(dir: &Path) -> Result<(ModelConfig, BTreeMap<String, MasterTensor>), FileError> {
    let packed = || FileError::Packed {
        path: dir.to_path_buf(),
    };
    let source = HfDirectory::open(dir)?;
    let config = source.config();
    if config.storage != WeightStorage::Master {
        return Err(packed());
    }
    let mut all = BTreeMap::new();
    for spec in config.tensors() {
        let TensorSource::Float(values) = source.tensor(&spec.name)? else {
            return Err(packed());
        };
        all.insert(spec.name, MasterTensor::new(spec.shape, values));
    }
    Ok((config.clone(), all))
}
