//! Several linears over one input, each in a type of its own: what a block does for q, k and v, for o, for gate and up, for down.
//!
//! ```text
//! x [tokens, cols] ─ norm ─┬─ floats ──────────── chain_gemv    f32, f16, bf16, bytes with float activations
//!                          └─ bytes, scales ─┬─── ternary_gemv  binary, ternary, int8; ternary_gemm for a chunk of a prompt
//!                                            └─── chain_gemv    int4
//! ```
//!
//! Matrices of one type become one, whose tiles know their rows of the output; each product writes its own rows, epilogue included, so that nothing has to be put together. Gate and up of one packed
//! type lie row beside row and are one product; of two types the gate's goes to the output first, and up's finds it there
//! ([`Epilogue::ByGateRelu2`], [`Epilogue::ByGateSilu`]).
//!
//! Floats and bytes are made once for all ([`norm_quantize`](crate::ternary_gemv::norm_quantize)'s kernel), but where all matrices are packed and the tokens are few each product makes the bytes for itself
//! ([`normed_ternary_gemv`]), as a single packed matrix always does: the bits are the same, and a kernel less.
//!
//! **Cost** of one token: a kernel for each type, and one more where floats or int4 are among them; the borders between them are some 1.5 µs each.

mod matrix;
#[cfg(test)]
mod tests;

pub use matrix::{LinearKind, LinearPart, LinearStack};

use crate::chain_gemv::{ChainInput, chain_gemv};
use crate::device::{CudaError, DeviceArray, Gpu, Result};
use crate::ternary_gemm::{Opened, ternary_gemm};
use crate::ternary_gemv::{Epilogue, norm_rows, normed_ternary_gemv, norms_itself, ternary_gemv};
use matrix::Matrix;

/// Memory for the inputs of products: of the widest stack, for all tokens.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Normed rows; [`Extent::floats`](crate::ternary_gemv::Extent::floats) for each token.
    pub floats: DeviceArray<f32>,
    /// Bytes; [`Extent::cols`](crate::ternary_gemv::Extent::cols) for each token.
    pub bytes: DeviceArray<i8>,
    /// A scale, or the steps of an int4 head, for each token.
    pub scales: DeviceArray<f32>,
}

impl Inputs {
    /// Whether there is room for so many floats and bytes of each token, and so many scales of all.
    pub(crate) fn check(&self, tokens: usize, floats: usize, bytes: usize, scales: usize) -> Result<()> {
        let found = [self.floats.len(), self.bytes.len(), self.scales.len()];
        let needed = [tokens * floats, tokens * bytes, scales];
        if found.iter().zip(&needed).all(|(found, needed)| found >= needed) {
            return Ok(());
        }
        let expected = format!("room for {needed:?} floats, bytes and scales");
        Err(CudaError::shape("LinearStack", expected, format!("{found:?}")))
    }
}

/// The product of `stack` with RMSNorm of `x`, `[tokens, stack.cols()]`, of weights `norm`, unless there are none. What the epilogue writes is `[tokens, stack.rows()]`: a gated one for gate and up, any
/// other for all else. More than 16 tokens need `opened`, with which packed matrices are opened into bytes for the tensor cores.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not agree, an epilogue that does not fit the stack, or too little room.
pub fn mixed_linear(
    gpu: &Gpu,
    stack: &LinearStack,
    x: &DeviceArray<f32>,
    norm: Option<&DeviceArray<f32>>,
    eps: f32,
    epilogue: Epilogue<'_>,
    inputs: &Inputs,
    opened: Option<&Opened>,
) -> Result<()> {
    let tokens = x.len() / stack.cols().max(1);
    let parts = stack.in_turn(epilogue)?;
    let itself = |matrix: &Matrix| matches!(matrix, Matrix::Packed(matrix) if norms_itself(gpu, matrix, tokens));
    if opened.is_none() && parts.iter().all(|(matrix, _)| itself(matrix)) {
        return parts.into_iter().try_for_each(|(matrix, epilogue)| match matrix {
            Matrix::Packed(matrix) => normed_ternary_gemv(gpu, matrix, x, norm, eps, epilogue),
            Matrix::Chains(_) => Ok(()),
        });
    }
    let (float_width, stride) = (stack.float_cols(), stack.byte_cols());
    let normed = if norm.is_some() { float_width } else { 0 };
    let scales = if stride > 0 { tokens } else { 0 };
    inputs.check(tokens, normed, stride, scales)?;
    let (floats, bytes, scales) = (
        inputs.floats.slice(..tokens * normed),
        inputs.bytes.slice(..tokens * stride),
        inputs.scales.slice(..scales),
    );
    if normed > 0 || stride > 0 {
        let quantized = (stride > 0).then_some((&bytes, &scales));
        norm_rows(
            gpu,
            x,
            stack.cols(),
            norm,
            eps,
            quantized,
            (normed > 0).then_some(&floats),
        )?;
    }
    // What nothing norms is there already.
    let floats = if normed > 0 { &floats } else { x };
    for (matrix, epilogue) in parts {
        match (matrix, opened) {
            (Matrix::Packed(matrix), Some(opened)) => ternary_gemm(gpu, matrix, &bytes, &scales, epilogue, opened)?,
            (Matrix::Packed(matrix), None) => ternary_gemv(gpu, matrix, &bytes, &scales, epilogue)?,
            (Matrix::Chains(matrix), _) => {
                let input = match matrix.kind().takes_floats() {
                    true => ChainInput::Floats(floats),
                    false => ChainInput::Bytes(&bytes, &scales),
                };
                chain_gemv(gpu, matrix, input, tokens, epilogue)?;
            }
        }
    }
    Ok(())
}
