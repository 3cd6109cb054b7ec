//! Differentiable operations. Each runs the engine's forward and records its backward.

mod basic;
mod network;
#[cfg(test)]
mod tests;

pub use basic::{add, add_scaled, matmul, mean, mul, reshape, scale, sum};
pub use network::{
    Table, attention, bit_linear, cross_entropy, dropout, embedding, gated, head, linear, relu2, rms_norm, rope,
    scale_rows, softcap, table,
};

use onebit_engine::Tensor;

use crate::{AutogradError, Result, Var};

/// The one gradient of an operation with one output. Backward closures run only when some gradient came, so with one output it is there.
fn only(gradients: Vec<Option<Tensor>>) -> Result<Tensor> {
    gradients
        .into_iter()
        .next()
        .flatten()
        .ok_or(AutogradError::OtherTape("backward"))
}

/// The one variable of an operation with one output.
fn single(outputs: Vec<Var>) -> Result<Var> {
    outputs.into_iter().next().ok_or(AutogradError::OtherTape("record"))
}
