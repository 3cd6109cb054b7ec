//! What can go wrong while a text is generated.

use std::path::PathBuf;

use crate::files::FileError;
use crate::runtime::RuntimeError;
#[cfg(feature = "cuda")]
use crate::runtime::cuda::CudaRuntimeError;
use crate::sampling::SamplingError;
use crate::tokenizer::TokenizerError;

/// Why a text could not be generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerationError {
    /// Inference.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The GPU.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Gpu(CudaRuntimeError),
    /// Choosing tokens.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// Tokens and text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

#[cfg(feature = "cuda")]
impl From<CudaRuntimeError> for GenerationError {
    /// What has nothing to do with the GPU is told as on the CPU.
    fn from(error: CudaRuntimeError) -> Self {
        match error {
            CudaRuntimeError::Runtime(error) => GenerationError::Runtime(error),
            error => GenerationError::Gpu(error),
        }
    }
}

/// Why a prompt cache could not be used or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptCacheError {
    /// The file cannot be read.
    #[error("cannot read the prompt cache {}: {source}; check the path", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's account.
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("{} is no prompt cache: it begins otherwise; give another path, this file stays as it is", path.display())]
    OtherFile {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error("the prompt cache {} is damaged: expected {expected}, found {found}; delete it, and it is made again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What there should be.
        expected: String,
        /// What there is.
        found: String,
    },
    /// The file belongs to another model, or to other types of its embedding or of the cache.
    #[error("the prompt cache {} was made with another model or other types of --head or --kv-type; give another path, or delete it", path.display())]
    OtherModel {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
    /// The tokens do not fit the session, or the GPU failed.
    #[error(transparent)]
    Session(#[from] GenerationError),
}
