//! What can go wrong on a GPU.

use cudarc::driver::{DriverError, sys};

/// Result of an operation on a GPU.
pub type Result<T> = std::result::Result<T, CudaError>;

/// Why something cannot be done on a GPU.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// `libcuda` is not on this machine.
    #[error("no NVIDIA driver on this machine (libcuda was not found)")]
    NoDriver,
    /// There is a driver, but no such GPU.
    #[error("there is no cuda:{ordinal}: the NVIDIA driver reports {count} GPUs")]
    NoSuchDevice {
        /// What was asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// The driver is older than the PTX in this program.
    #[error("the NVIDIA driver supports CUDA {found}, and the kernels need CUDA 13.0: install driver 580 or newer")]
    OldDriver {
        /// The driver's version of CUDA.
        found: String,
    },
    /// The GPU is older than what the kernels are compiled for.
    #[error("{name} has compute capability {found}, and the kernels need 8.0 or newer")]
    OldDevice {
        /// Name of the GPU.
        name: String,
        /// Its compute capability.
        found: String,
    },
    /// The memory that is free is less than what was asked for.
    #[error("the GPU has {free} bytes of free memory, and {needed} are needed")]
    OutOfMemory {
        /// Bytes that were asked for.
        needed: u64,
        /// Bytes that were free.
        free: u64,
    },
    /// Arrays that do not fit each other, or that a kernel has no form for.
    #[error("{op}: expected {expected}, found {found}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// What it takes.
        expected: String,
        /// What it was given.
        found: String,
    },
    /// What was being recorded failed for a reason of its own.
    #[error("while launches were recorded: {0}")]
    Recording(String),
    /// NCCL is not on this machine, or not one that can be used.
    #[error(
        "several GPUs need NVIDIA's NCCL, which cannot be loaded ({why}); install libnccl2, or name the file by ONEBIT_NCCL"
    )]
    NoNccl {
        /// What the system says.
        why: String,
    },
    /// NCCL answered with an error.
    #[error("{function} failed: {what}{}{more}", if more.is_empty() { "" } else { "; " })]
    Nccl {
        /// What was called.
        function: &'static str,
        /// The kind of error.
        what: String,
        /// What NCCL adds.
        more: String,
    },
    /// The driver answered with an error.
    #[error("the NVIDIA driver failed: {0}")]
    Driver(#[from] DriverError),
}

impl CudaError {
    /// A [`CudaError::Shape`].
    pub(crate) fn shape(op: &'static str, expected: impl ToString, found: impl ToString) -> Self {
        CudaError::Shape {
            op,
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}

/// The driver's answer as a result.
pub(super) fn check(answer: sys::CUresult) -> Result<()> {
    Ok(answer.result()?)
}

/// `op` needs `expected` elements of `what` and was given `found`.
pub(crate) fn need(op: &'static str, what: &str, expected: usize, found: usize) -> Result<()> {
    if found == expected {
        Ok(())
    } else {
        Err(CudaError::shape(op, format!("{what} of {expected} elements"), found))
    }
}
