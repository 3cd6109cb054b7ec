//! The error of the network.

use onebit_autograd::AutogradError;
use onebit_engine::EngineError;
use onebit_kernels_cuda::CudaError;

use crate::config::ConfigError;
use crate::files::FileError;
use crate::runtime::RuntimeError;

/// What can go wrong while a network is built or run.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The configuration does not hold together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A tensor operation refused its operands.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A differentiable operation refused its operands.
    #[error(transparent)]
    Autograd(#[from] AutogradError),
    /// The GPU.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// A size that the CUDA kernels have no form for.
    #[error("{what} = {found} cannot be trained on CUDA, which takes {expected}; use --device cpu")]
    NotOnCuda {
        /// The size.
        what: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: usize,
    },
    /// A batch that is not one.
    #[error("expected a target below {vocab} for each input, found {found}")]
    Batch {
        /// The size of the vocabulary.
        vocab: usize,
        /// What is wrong.
        found: String,
    },
    /// The weights that training begins with cannot be read.
    #[error(transparent)]
    Source(#[from] FileError),
    /// A packed tensor of theirs stands for nothing.
    #[error(transparent)]
    Packed(#[from] RuntimeError),
    /// They are of another model in more than the modes of its tensors.
    #[error(
        "the weights to begin from have {field} = {found}, the configuration {expected}; only the modes of its tensors may differ"
    )]
    OtherModel {
        /// What differs.
        field: &'static str,
        /// As the configuration has it.
        expected: String,
        /// As the source has it.
        found: String,
    },
    /// A tensor of theirs has a form that holds no numbers to train.
    #[error("tensor {name} to begin from is {found}, where floats, integers or trits were expected")]
    Form {
        /// Its name.
        name: String,
        /// What it is.
        found: &'static str,
    },
    /// Weights lack a tensor that the configuration asks for.
    #[error("tensor {name} is missing")]
    MissingTensor {
        /// Its name.
        name: String,
    },
    /// Weights hold a tensor that the configuration does not know.
    #[error("tensor {name} is not part of this model")]
    UnknownTensor {
        /// Its name.
        name: String,
    },
    /// A sequence longer than the model's context.
    #[error(
        "sequences of {found} tokens are longer than the model's context of {limit}; lower --seq-len or raise max_position_embeddings"
    )]
    SequenceTooLong {
        /// Tokens of the sequence.
        found: usize,
        /// `max_position_embeddings`.
        limit: usize,
    },
}
