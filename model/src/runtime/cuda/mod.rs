//! Inference on a GPU: [`CudaModel`] is a [`PackedModel`](super::PackedModel) in its memory, [`CudaSession`] a sequence, [`CudaBatch`] many side by side.
//!
//! The logits are those of [`Session`](super::Session), bit for bit (`onebit_kernels_cuda::decode`), so whatever is made of them is the same text.
//! A single token is a recording that runs again, with the position on the GPU; [`CudaSession::greedy`] runs it many times without the host. Generation takes either session
//! through [`Sequence`](super::Sequence). [`CudaModel::memory`] says what would be needed, and what has no kernel, before anything is uploaded.

mod batch;
mod convert;
mod memory;
mod parts;
mod recordings;
mod session;
mod snapshot;

use onebit_kernels_cuda::CudaError;

use super::RuntimeError;

pub use batch::CudaBatch;
pub use convert::CudaModel;
pub use memory::CudaMemory;
pub use session::CudaSession;

/// Why the GPU runtime refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaRuntimeError {
    /// As on the CPU.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The GPU's own.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// A part of the model that has no kernel.
    #[error("{what}: no kernel of the GPU takes {found}")]
    Unsupported {
        /// The part.
        what: String,
        /// The form that it has.
        found: String,
    },
}
