//! The error of training.

use std::path::PathBuf;

use onebit_engine::EngineError;
use onebit_model::network::NetworkError;

use crate::data::DataError;
use crate::parallel::ParallelError;
use crate::stack::StackError;

/// What can go wrong in a training run.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Training data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A stream of shards.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The Hub, or the way to it.
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),
    /// The manifest of a sharded data set.
    #[error(transparent)]
    Manifest(#[from] crate::stack::manifest::ManifestError),
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The GPU.
    #[error(transparent)]
    Cuda(#[from] onebit_kernels_cuda::CudaError),
    /// Other ranks of the run.
    #[error(transparent)]
    Parallel(#[from] ParallelError),
    /// A tensor operation.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Automatic differentiation.
    #[error(transparent)]
    Autograd(#[from] onebit_autograd::AutogradError),
    /// Reading or writing a model directory.
    #[error(transparent)]
    Files(#[from] onebit_model::files::FileError),
    /// Scoring a text.
    #[error(transparent)]
    Evaluation(#[from] onebit_model::evaluation::EvaluationError),
    /// A search that makes no sense.
    #[error(transparent)]
    Search(#[from] crate::search::SetupError),
    /// Inference.
    #[error(transparent)]
    Inference(#[from] onebit_model::runtime::RuntimeError),
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
    /// Less room on the disk than a checkpoint takes.
    #[error("{}: a checkpoint takes {needed} bytes and {free} are free; make room, or give --keep a smaller number", path.display())]
    NoSpace {
        /// Where it would go.
        path: PathBuf,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Another run has the directory.
    #[error("{}: another run is at work there (its process is {owner}); wait for it, stop it, or choose another directory", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Number of the process, as far as it is known.
        owner: String,
    },
    /// A checkpoint that cannot be used.
    #[error("checkpoint {}: {why}", path.display())]
    Checkpoint {
        /// Its directory.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A stream of training data that ended within a step.
    #[error("the stream of training data ends before window {window}, within a step; report this")]
    EndOfStream {
        /// The window that is not there.
        window: u64,
    },
    /// The loss or a gradient is not a finite number.
    #[error(
        "step {step}: {what} is not finite, first seen in {place}, and {skipped} steps before it were skipped for the like; the last good state is {checkpoint}; begin from it in another directory (--init-from) with a lower --lr or --grad-clip-max-norm"
    )]
    NotFinite {
        /// Optimiser step.
        step: u64,
        /// `loss` or `gradient`.
        what: &'static str,
        /// The layer or parameter.
        place: String,
        /// Steps in a row before it that were skipped.
        skipped: u64,
        /// Where to go on from.
        checkpoint: String,
    },
    /// The loss rose beyond all measure again and again.
    #[error(
        "step {step}: the loss is {loss} again after {times} rollbacks to {checkpoint}; begin from it in another directory (--init-from) with a lower --lr"
    )]
    Diverged {
        /// Optimiser step.
        step: u64,
        /// Its loss.
        loss: f64,
        /// Rollbacks to the same checkpoint.
        times: u64,
        /// That checkpoint.
        checkpoint: String,
    },
}

/// Attaches a path and advice to an I/O error.
pub(crate) fn io_error(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(std::io::Error) -> TrainError {
    let path = path.into();
    move |source| TrainError::Io { path, source, action }
}
