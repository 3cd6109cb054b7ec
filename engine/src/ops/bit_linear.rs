//! The bit-linear layer: several weight matrices over one input, quantised as the phase asks. A head is one too, whose input its mode rounds otherwise.
//!
//! `y_i = x_eff · W_eff,iᵀ`. In the hard ternary phase the product is the packed integer one, the very kernel that inference runs,
//! and what is kept for the backward is the int8 activation: a quarter of the f32 bytes.
//! The backward is straight-through (Bengio et al. 2013): `dx = Σ dy_i · W_eff,i`, `dW_i = dy_iᵀ · x_eff`, as if both
//! quantisers were the identity, everywhere.

use super::matmul::{Arithmetic, Layout, Products, Right, matmul_in, matmul_into, matmul_right};
use super::quantize::{
    EffectiveWeight, Input, Precision, QuantizedActivations, blend_activations, blend_groups, ternary_product,
};
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

/// What [`bit_linear`] and [`multiply`] keep for [`bit_linear_backward`].
pub struct BitLinearState {
    /// What products read, by [`Input`]; the input itself shares its memory.
    inputs: [Option<Saved>; 3],
    weights: Vec<(EffectiveWeight, Input)>,
    /// Of the gradients' products.
    arithmetic: Arithmetic,
}

impl BitLinearState {
    /// Bytes of activations kept beside the input itself.
    pub fn saved_bytes(&self) -> usize {
        let quantized = [Input::Tokens, Input::Groups].map(|input| &self.inputs[input as usize]);
        quantized.into_iter().flatten().map(Saved::bytes).sum()
    }
}

/// `x` `[tokens, cols]` through each weight `[rows_i, cols]` at annealing value `anneal`; outputs `[tokens, rows_i]`. The input of a quantised weight is rounded
/// to a byte, by its token. Products that are not the packed integer one use `products`.
///
/// # Errors
/// Columns that do not agree, or elements that are not f32.
pub fn bit_linear(
    x: &Tensor,
    weights: &[(&Tensor, Precision)],
    anneal: f32,
    products: Products,
) -> Result<(Vec<Tensor>, BitLinearState)> {
    let effective = weights.iter().map(|&(w, precision)| {
        let input = if precision == Precision::Full {
            Input::Float
        } else {
            Input::Tokens
        };
        Ok((EffectiveWeight::new(w, precision, anneal)?, input))
    });
    multiply(x, effective.collect::<Result<_>>()?, anneal, products)
}

/// As [`bit_linear`], of weights that are at `anneal` already, each with what becomes of its input there: a head, whose table others read too.
///
/// # Errors
/// Columns that do not agree, or elements that are not f32.
pub fn multiply(
    x: &Tensor,
    mut weights: Vec<(EffectiveWeight, Input)>,
    anneal: f32,
    products: Products,
) -> Result<(Vec<Tensor>, BitLinearState)> {
    let cols = x.shape().last();
    let mut inputs = [const { None }; 3];
    for (w, input) in &mut weights {
        let shape = w.dense.shape();
        if shape.last() != cols {
            return Err(shape_error("bit_linear", format!("weights of {cols} columns"), shape));
        }
        if anneal <= 0.0 {
            *input = Input::Float;
        }
        let slot = &mut inputs[*input as usize];
        if slot.is_none() {
            *slot = Some(match input {
                Input::Float => Saved::Float(x.clone()),
                Input::Tokens if anneal < 1.0 => Saved::Float(blend_activations(x, anneal)?),
                Input::Tokens => Saved::Int8(QuantizedActivations::new(x)?),
                Input::Groups => Saved::Float(blend_groups(x, anneal)?),
            });
        }
    }

    let mut outputs = Vec::with_capacity(weights.len());
    let mut opened: Option<Tensor> = None;
    for (w, input) in &weights {
        let y = match (&inputs[*input as usize], w.packed()) {
            (Some(Saved::Int8(xq)), Some((packed, gamma))) => {
                ternary_product(xq, packed, gamma, w.dense.shape().rows(), cols)?
            }
            (Some(Saved::Int8(xq)), None) => {
                let x = match &opened {
                    Some(x) => x,
                    None => opened.insert(xq.dequantize()?),
                };
                matmul_in(products.forward, Layout::NT, x, &w.dense)?
            }
            (Some(Saved::Float(x)), _) => matmul_in(products.forward, Layout::NT, x, &w.dense)?,
            (None, _) => matmul_in(products.forward, Layout::NT, x, &w.dense)?,
        };
        outputs.push(y);
    }
    let state = BitLinearState {
        inputs,
        weights,
        arithmetic: products.backward,
    };
    Ok((outputs, state))
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
    let arithmetic = state.arithmetic;
    let mut dx: Option<Tensor> = None;
    let mut dws = Vec::with_capacity(dys.len());
    // What the weights were multiplied by, opened and packed when first needed: the weights' gradients share them.
    let mut opened: [Option<Tensor>; 3] = [const { None }; 3];
    let mut packed: [Option<Right>; 3] = [const { None }; 3];
    for ((weight, input), dy) in state.weights.iter().zip(dys) {
        let Some(dy) = dy else {
            dws.push(None);
            continue;
        };
        let at = *input as usize;
        let x = match (&mut opened[at], &state.inputs[at]) {
            (Some(x), _) => &*x,
            (slot, Some(saved)) => &*slot.insert(saved.values()?),
            (None, None) => return Err(shape_error("bit_linear_backward", "a saved input", "none")),
        };
        match &mut dx {
            Some(dx) => matmul_into(arithmetic, Layout::NN, dy, &weight.dense, true, dx)?,
            None => dx = Some(matmul_in(arithmetic, Layout::NN, dy, &weight.dense)?),
        }
        let dw = match (arithmetic, &mut packed[at]) {
            (Arithmetic::F32, _) => matmul_in(arithmetic, Layout::TN, dy, x)?,
            (Arithmetic::Bf16, Some(x)) => matmul_right(Layout::TN, dy, x)?,
            (Arithmetic::Bf16, slot @ None) => matmul_right(Layout::TN, dy, slot.insert(Right::new(Layout::TN, x)?))?,
        };
        dws.push(Some(dw));
    }
    Ok((dx, dws))
}
