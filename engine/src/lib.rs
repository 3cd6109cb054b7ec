//! Tensors of OneBit-LLM: shape, dtype, device, and every operation dispatched to a kernel crate.
//!
//! A [`Tensor`] is contiguous, row-major and reference counted; cloning one shares its memory. The operations live in
//! [`ops`], one file each: they check shapes, allocate the result, split the work over rayon's threads by output row (or
//! by sequence) and call the kernel. Nothing is ever split along a reduction, and sums that cross rows are taken over
//! blocks of a fixed size, so results do not depend on the number of threads.
//!
//! ```
//! use onebit_engine::ops::matmul::{Layout, matmul};
//! use onebit_engine::{Device, Tensor};
//!
//! let device = Device::cpu()?;
//! let a = Tensor::from_f32(device, [2, 2], vec![1.0, 2.0, 3.0, 4.0])?;
//! let b = Tensor::from_f32(device, [2, 1], vec![10.0, 100.0])?;
//! let c = matmul(Layout::NN, &a, &b)?;
//! assert_eq!(c.f32()?, [210.0, 430.0]);
//! // Shapes that do not fit are an error value that names both.
//! assert!(matmul(Layout::NN, &b, &b).is_err());
//! # Ok::<(), onebit_engine::EngineError>(())
//! ```
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
