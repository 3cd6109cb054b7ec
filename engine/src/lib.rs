//! Tensors of OneBit-LLM: shape, dtype, device, and every operation dispatched to a kernel crate.
//!
//! A [`Tensor`] is contiguous, row-major and reference counted; cloning one shares its memory. The operations live in
//! [`ops`], one file each: they check shapes, allocate the result, split the work over rayon's threads by output row (or
//! by sequence) and call the kernel. Nothing is ever split along a reduction, and sums that cross rows are taken over
//! blocks of a fixed size, so results do not depend on the number of threads.
#![forbid(unsafe_code)]

mod buffer;
mod device;
mod dtype;
mod error;
pub mod ops;
mod parallel;
mod shape;
mod tensor;

pub use device::Device;
pub use dtype::DType;
pub use error::EngineError;
pub use onebit_kernels_cpu::Isa;
pub use onebit_kernels_cpu::rng;
pub use shape::Shape;
pub use tensor::Tensor;

/// Result of an engine operation.
pub type Result<T> = std::result::Result<T, EngineError>;
