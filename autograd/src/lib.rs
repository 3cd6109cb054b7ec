//! Reverse-mode automatic differentiation of OneBit-LLM.
//!
//! A [`Tape`] records operations as they run; [`Tape::backward`] walks them in reverse and returns the gradient of every leaf.
//! Each operation of [`ops`] calls the engine's forward and records a closure that owns what its backward needs; the closure
//! is consumed when it runs, so saved activations are freed as the walk goes. A tape serves one forward and one backward.
//!
//! ```
//! use onebit_autograd::{Tape, ops};
//! use onebit_engine::{Device, Tensor};
//!
//! let device = Device::cpu()?;
//! let tape = Tape::new();
//! let x = tape.leaf(Tensor::from_f32(device, [3], vec![1.0, -2.0, 3.0])?);
//! let loss = ops::sum(&ops::mul(&x, &x)?)?;
//! let mut gradients = tape.backward(&loss)?;
//! let dx = gradients.take(&x).expect("x is a leaf of the loss");
//! assert_eq!(dx.f32()?, [2.0, -4.0, 6.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod error;
pub mod gradcheck;
pub mod ops;
mod tape;

pub use error::AutogradError;
pub use tape::{Gradients, Tape, Var};

/// Result of a differentiable operation.
pub type Result<T> = std::result::Result<T, AutogradError>;
