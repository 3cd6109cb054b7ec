//! From a model directory in memory to a packed model.

use alloc::string::String;
use alloc::vec::Vec;

use half::{bf16, f16};
use safetensors::Dtype;

use super::{FloatStorage, FloatValues, PackedModel, RuntimeError, TensorSource};
use crate::files::{LoadedLinear, LoadedModel, MasterTensor, ModelSource};

/// The values in the type that they had in the file. The conversion is exact, because they came from there.
fn as_stored(tensor: MasterTensor) -> FloatValues {
    match tensor.stored {
        Dtype::F16 => FloatValues::F16(tensor.data.into_iter().map(f16::from_f32).collect()),
        Dtype::BF16 => FloatValues::Bf16(tensor.data.into_iter().map(bf16::from_f32).collect()),
        _ => FloatValues::F32(tensor.data.into()),
    }
}

impl PackedModel {
    /// Packs a model directory. Each tensor is freed as soon as it is packed; float linears in a quantised mode are quantised
    /// from the very f32 values that training would quantise, so γ and the weights agree with it to the last bit.
    ///
    /// # Errors
    /// As [`from_parts`](Self::from_parts).
    pub fn from_loaded(loaded: LoadedModel, storage: FloatStorage) -> Result<Self, RuntimeError> {
        let LoadedModel {
            config,
            mut linears,
            mut tensors,
            ..
        } = loaded;
        Self::from_parts(config, storage, |name| match linears.remove(name) {
            Some(LoadedLinear::Ternary(packed)) => Ok(TensorSource::Trits {
                values: packed.trits,
                scale: packed.scale,
            }),
            Some(LoadedLinear::Master(tensor)) => Ok(TensorSource::Float(as_stored(tensor))),
            None => match tensors.remove(name) {
                Some(tensor) => Ok(TensorSource::Float(as_stored(tensor))),
                // An empty tensor is refused with its name and the length wanted.
                None => Ok(TensorSource::Float(FloatValues::F32(Vec::new().into()))),
            },
        })
    }

    /// Packs a model from wherever it lies, one tensor at a time.
    ///
    /// # Errors
    /// [`LoadError`] of the source or of the runtime.
    pub fn from_source(source: &dyn ModelSource, storage: FloatStorage) -> Result<Self, LoadError> {
        Self::from_parts(source.config().clone(), storage, |name| {
            Ok::<_, LoadError>(source.tensor(name)?)
        })
    }

    /// Reads and packs a model directory; the notes are what the configuration's reader wants said.
    ///
    /// # Errors
    /// [`LoadError`] of the files or of the runtime.
    pub fn open(dir: &std::path::Path, storage: FloatStorage) -> Result<(Self, Vec<String>), LoadError> {
        let mut loaded = crate::files::load_model(dir)?;
        let notes = core::mem::take(&mut loaded.notes);
        Ok((Self::from_loaded(loaded, storage)?, notes))
    }
}

/// Why a model directory could not be made ready to run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The files.
    #[error(transparent)]
    Files(#[from] crate::files::FileError),
    /// The weights.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
