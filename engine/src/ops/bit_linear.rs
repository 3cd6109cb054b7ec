//! The bit-linear layer: several weight matrices over one input, quantised as the phase asks.
//!
//! `y_i = x_eff · W_eff,iᵀ`. In the hard ternary phase the product is the packed integer one, the very kernel that inference runs,
//! and what is kept for the backward is the int8 activation: a quarter of the f32 bytes.
//! The backward is straight-through (Bengio et al. 2013): `dx = Σ dy_i · W_eff,i`, `dW_i = dy_iᵀ · x_eff`, as if both
//! quantisers were the identity, everywhere.

use super::matmul::{Arithmetic, Layout, Products, Right, matmul_in, matmul_into, matmul_right};
use super::quantize::{EffectiveWeight, Precision, QuantizedActivations, blend_activations, ternary_product};
use crate::error::shape_error;
use crate::{Result, Tensor};

/// Activations kept for the backward.
enum Saved {
    /// f32: full precision, or the blend of the anneal phase.
    Float(Tensor),
    /// int8 with a scale for each token: the hard phase.
    Int8(QuantizedActivations),
}

impl Saved {
    fn values(&self) -> Result<Tensor> {
        match self {
            Saved::Float(x) => Ok(x.clone()),
            Saved::Int8(q) => q.dequantize(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Saved::Float(x) => 4 * x.len(),
            Saved::Int8(q) => q.bytes(),
        }
    }
}

/// What [`bit_linear`] keeps for [`bit_linear_backward`].
pub struct BitLinearState {
    /// Input in full precision, for the weights that stay there; shares memory with the input.
    full: Option<Tensor>,
    quantized: Option<Saved>,
    weights: Vec<(EffectiveWeight, bool)>,
    /// Of the gradients' products.
    arithmetic: Arithmetic,
}

impl BitLinearState {
    /// Bytes of activations kept beside the input itself.
    pub fn saved_bytes(&self) -> usize {
        self.quantized.as_ref().map_or(0, Saved::bytes)
    }
}

/// `x` `[tokens, cols]` through each weight `[rows_i, cols]` at annealing value `anneal`; outputs `[tokens, rows_i]`.
/// Products that are not the packed integer one use `products`.
///
/// # Errors
/// Columns that do not agree, or elements that are not f32.
pub fn bit_linear(
    x: &Tensor,
    weights: &[(&Tensor, Precision)],
    anneal: f32,
    products: Products,
) -> Result<(Vec<Tensor>, BitLinearState)> {
    let cols = x.shape().last();
    for (w, _) in weights {
        if w.shape().last() != cols {
            return Err(shape_error(
                "bit_linear",
                format!("weights of {cols} columns"),
                w.shape(),
            ));
        }
    }
    let is_quantized = |p: Precision| p != Precision::Full && anneal > 0.0;
    let quantized = if !weights.iter().any(|(_, p)| is_quantized(*p)) {
        None
    } else if anneal < 1.0 {
        Some(Saved::Float(blend_activations(x, anneal)?))
    } else {
        Some(Saved::Int8(QuantizedActivations::new(x)?))
    };
    let full = weights.iter().any(|(_, p)| !is_quantized(*p)).then(|| x.clone());

    let mut outputs = Vec::with_capacity(weights.len());
    let mut kept = Vec::with_capacity(weights.len());
    let mut dequantized: Option<Tensor> = None;
    for &(w, precision) in weights {
        let effective = EffectiveWeight::new(w, precision, anneal)?;
        let y = match (&quantized, effective.packed()) {
            (Some(Saved::Int8(xq)), Some((packed, gamma))) => {
                ternary_product(xq, packed, gamma, w.shape().rows(), cols)?
            }
            (Some(saved), _) if is_quantized(precision) => {
                let input = match &dequantized {
                    Some(input) => input.clone(),
                    None => dequantized.insert(saved.values()?).clone(),
                };
                matmul_in(products.forward, Layout::NT, &input, &effective.dense)?
            }
            _ => matmul_in(products.forward, Layout::NT, x, &effective.dense)?,
        };
        outputs.push(y);
        kept.push((effective, is_quantized(precision)));
    }
    Ok((
        outputs,
        BitLinearState {
            full,
            quantized,
            weights: kept,
            arithmetic: products.backward,
        },
    ))
}

/// Gradients of [`bit_linear`]: with respect to `x`, shaped as the input rows, and to each weight. An output without a
/// gradient (`None`) contributes nothing and its weight gets `None`.
///
/// # Errors
/// Shapes that do not fit.
pub fn bit_linear_backward(
    state: &BitLinearState,
    dys: &[Option<Tensor>],
) -> Result<(Option<Tensor>, Vec<Option<Tensor>>)> {
    let input = state.quantized.as_ref().map(Saved::values).transpose()?;
    let arithmetic = state.arithmetic;
    let mut dx: Option<Tensor> = None;
    let mut dws = Vec::with_capacity(dys.len());
    // The inputs of the weights, quantised and not, packed when first needed: the weights' gradients share them.
    let mut packed: [Option<Right>; 2] = [None, None];
    for ((weight, is_quantized), dy) in state.weights.iter().zip(dys) {
        let Some(dy) = dy else {
            dws.push(None);
            continue;
        };
        let x = if *is_quantized {
            input.as_ref()
        } else {
            state.full.as_ref()
        };
        let x = x.ok_or_else(|| shape_error("bit_linear_backward", "a saved input", "none"))?;
        match &mut dx {
            Some(dx) => matmul_into(arithmetic, Layout::NN, dy, &weight.dense, true, dx)?,
            None => dx = Some(matmul_in(arithmetic, Layout::NN, dy, &weight.dense)?),
        }
        let dw = match (arithmetic, &mut packed[usize::from(*is_quantized)]) {
            (Arithmetic::F32, _) => matmul_in(arithmetic, Layout::TN, dy, x)?,
            (Arithmetic::Bf16, Some(x)) => matmul_right(Layout::TN, dy, x)?,
            (Arithmetic::Bf16, slot @ None) => matmul_right(Layout::TN, dy, slot.insert(Right::new(Layout::TN, x)?))?,
        };
        dws.push(Some(dw));
    }
    Ok((dx, dws))
}
