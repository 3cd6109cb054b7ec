//! From wherever a model lies to a packed model.

use std::path::Path;
use std::string::String;
use std::vec::Vec;

use super::{FloatStorage, PackedModel, RuntimeError};
use crate::files::{FileError, HfDirectory, ModelSource};

impl PackedModel {
    /// Packs a model from wherever it lies, one tensor at a time. Float linears in a quantised mode are quantised from the very f32 values
    /// that training would quantise, so γ and the weights agree with it to the last bit.
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
    pub fn open(dir: &Path, storage: FloatStorage) -> Result<(Self, Vec<String>), LoadError> {
        let source = HfDirectory::open(dir)?;
        Ok((Self::from_source(&source, storage)?, source.notes().to_vec()))
    }
}

/// Why a model directory could not be made ready to run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The files.
    #[error(transparent)]
    Files(#[from] FileError),
    /// The weights.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
