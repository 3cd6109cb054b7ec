//! Inference on a GPU: [`CudaModel`] is a [`PackedModel`] in its memory, [`CudaSession`] a sequence.
//!
//! The logits are those of [`Session`](super::Session), bit for bit (`onebit_kernels_cuda::decode`), so whatever is made of them is the same text.
//! A single token is a recording that runs again, with the position on the GPU; [`CudaSession::greedy`] runs it many times without the host.

mod convert;
mod session;

use onebit_kernels_cuda::CudaError;

use super::RuntimeError;

pub use convert::CudaModel;
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
    #[error("{what}: the GPU runtime has no kernel for {found}; run this model on the CPU")]
    Unsupported {
        /// The part.
        what: String,
        /// The form that it has.
        found: &'static str,
    },
}
