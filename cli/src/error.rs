//! The error of the command: what, where, what to do, on one line.

use std::path::Path;

use onebit_model::chat::ChatError;
use onebit_model::config::ConfigError;
use onebit_model::evaluation::EvaluationError;
use onebit_model::files::FileError;
use onebit_model::generation::{GenerationError, PromptCacheError};
use onebit_model::runtime::{LoadError, RuntimeError};
use onebit_model::sampling::SamplingError;
use onebit_model::tokenizer::TokenizerError;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line makes no sense; nothing was begun.
    #[error("{0}")]
    Usage(String),
    /// The work failed.
    #[error("{0}")]
    Failed(String),
    /// Somebody pressed Ctrl-C, and what is needed to go on is saved.
    #[error("{0}")]
    Interrupted(String),
    /// Processes that this one started have ended, and said why; it ends with this status.
    #[error("status {0}")]
    Ended(u8),
    /// Whoever read our output has gone, as `head` does; no fault of anybody.
    #[error("the reader of the output has gone")]
    ReaderGone,
    /// A model configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A model directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// A tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Inference.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A model that could not be read or made ready.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Generating a text.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// A prompt cache.
    #[error(transparent)]
    PromptCache(#[from] PromptCacheError),
    /// Choosing tokens.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A chat template.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// Scoring a text.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// The GPU.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] onebit_kernels_cuda::CudaError),
    /// Inference on the GPU.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    CudaRuntime(#[from] onebit_model::runtime::cuda::CudaRuntimeError),
    /// Training data.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Data(#[from] onebit_trainer::data::DataError),
    /// Training.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Train(#[from] onebit_trainer::TrainError),
    /// The trainable network.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Network(#[from] onebit_model::network::NetworkError),
    /// A device or a tensor.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Engine(#[from] onebit_engine::EngineError),
}

impl CliError {
    /// A file or directory that the system refused.
    pub(crate) fn io(path: &Path, what: &str, error: &std::io::Error, action: &str) -> Self {
        Self::Failed(format!("cannot {what} {}: {error}; {action}", path.display()))
    }
}
