//! The error of training.

use std::path::PathBuf;

use onebit_engine::EngineError;
use onebit_model::network::NetworkError;

use crate::data::DataError;

/// What can go wrong in a training run.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Training data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The GPU.
    #[error(transparent)]
    Cuda(#[from] onebit_kernels_cuda::CudaError),
    /// A step on the GPU met a number that is not finite. [`TrainError::NotFinite`] is what the trainer makes of it, once it has found the place.
    #[error("step {}: a number is not finite", step + 1)]
    StoppedOnGpu {
        /// The step, counted from 0.
        step: u64,
        /// Whether it was a gradient, not the loss.
        loss_is_finite: bool,
    },
    /// A tensor operation.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Automatic differentiation.
    #[error(transparent)]
    Autograd(#[from] onebit_autograd::AutogradError),
    /// Reading or writing a model directory.
    #[error(transparent)]
    Files(#[from] onebit_model::files::FileError),
    /// The packed runtime.
    #[error("packed runtime: {0}")]
    Runtime(String),
    /// An option that makes no sense.
    #[error("--{option}: {why}")]
    Option {
        /// The option, as typed.
        option: &'static str,
        /// What is wrong and what to do.
        why: String,
    },
    /// A file or directory that could not be read or written.
    #[error("{}: {source}; {action}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// What to do.
        action: &'static str,
    },
    /// A checkpoint that cannot be used.
    #[error("checkpoint {}: {why}", path.display())]
    Checkpoint {
        /// Its directory.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The loss or a gradient is not a finite number.
    #[error(
        "step {step}: {what} is not finite, first seen in {place}; the last good checkpoint is {checkpoint}; lower --lr or --grad-clip-max-norm, then --resume"
    )]
    NotFinite {
        /// Optimiser step.
        step: u64,
        /// `loss` or `gradient`.
        what: &'static str,
        /// The layer or parameter.
        place: String,
        /// Where to go on from.
        checkpoint: String,
    },
}

/// Attaches a path and advice to an I/O error.
pub(crate) fn io_error(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(std::io::Error) -> TrainError {
    let path = path.into();
    move |source| TrainError::Io { path, source, action }
}
