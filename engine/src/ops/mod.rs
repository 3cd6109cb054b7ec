//! Operations on tensors, one file each: shapes checked, result allocated, work split by rows, kernel called.
//!
//! Backward functions take the saved inputs and the gradient of the output, and return the gradients of the inputs.

pub mod activation;
pub mod adamw;
pub mod adamw8bit;
pub mod attention;
pub mod bit_linear;
pub mod cross_entropy;
pub mod dropout;
pub mod elementwise;
pub mod embedding;
pub mod matmul;
pub mod quantize;
pub mod rms_norm;
pub mod rope;
pub mod softcap;
#[cfg(test)]
mod tests;
