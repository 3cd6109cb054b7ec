//! Activations of the feed-forward block: ReLU², its gated form, and SwiGLU.

use onebit_kernels_cpu::activation as kernel;

use crate::error::shape_error;
use crate::parallel::{over_rows, over_rows2};
use crate::{Isa, Result, Tensor};

/// `relu(x)²`.
///
/// # Errors
/// Elements that are not f32.
pub fn relu2(x: &Tensor) -> Result<Tensor> {
    let isa = x.device().isa();
    let mut out = Tensor::for_overwrite(x.device(), x.shape().clone());
    let x = x.f32()?;
    over_rows(out.f32_mut()?, 1, |i, out| {
        kernel::relu2(isa, &x[i..i + out.len()], out)
    });
    Ok(out)
}

/// Gradient of [`relu2`].
///
/// # Errors
/// Shapes that differ, or elements that are not f32.
pub fn relu2_backward(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    check("relu2_backward", x, dy)?;
    let isa = x.device().isa();
    let mut dx = Tensor::for_overwrite(x.device(), x.shape().clone());
    let (x, dy) = (x.f32()?, dy.f32()?);
    over_rows(dx.f32_mut()?, 1, |i, dx| {
        let r = i..i + dx.len();
        kernel::relu2_backward(isa, &x[r.clone()], &dy[r], dx);
    });
    Ok(dx)
}

/// A gate: what multiplies the up projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `relu(g)²·u`, BitNet b1.58 2B4T.
    Relu2,
    /// `silu(g)·u`, SwiGLU (Shazeer 2020).
    Silu,
}

impl Gate {
    fn forward(self) -> fn(Isa, &[f32], &[f32], &mut [f32]) {
        match self {
            Gate::Relu2 => kernel::relu2_gate,
            Gate::Silu => kernel::swiglu,
        }
    }

    fn backward(self) -> fn(Isa, &[f32], &[f32], &[f32], &mut [f32], &mut [f32]) {
        match self {
            Gate::Relu2 => kernel::relu2_gate_backward,
            Gate::Silu => kernel::swiglu_backward,
        }
    }
}

/// `gate(g)·u`, both `[tokens, intermediate]`.
///
/// # Errors
/// Shapes that differ, or elements that are not f32.
pub fn gated(gate: Gate, g: &Tensor, u: &Tensor) -> Result<Tensor> {
    check("gated", g, u)?;
    let isa = g.device().isa();
    let mut out = Tensor::for_overwrite(g.device(), g.shape().clone());
    let (g, u) = (g.f32()?, u.f32()?);
    over_rows(out.f32_mut()?, 1, |i, out| {
        let r = i..i + out.len();
        gate.forward()(isa, &g[r.clone()], &u[r], out);
    });
    Ok(out)
}

/// Gradients of [`gated`] with respect to `g` and `u`.
///
/// # Errors
/// Shapes that differ, or elements that are not f32.
pub fn gated_backward(gate: Gate, g: &Tensor, u: &Tensor, dy: &Tensor) -> Result<(Tensor, Tensor)> {
    check("gated_backward", g, u)?;
    check("gated_backward", g, dy)?;
    let isa = g.device().isa();
    let mut dg = Tensor::for_overwrite(g.device(), g.shape().clone());
    let mut du = Tensor::for_overwrite(g.device(), g.shape().clone());
    let (g, u, dy) = (g.f32()?, u.f32()?, dy.f32()?);
    over_rows2((dg.f32_mut()?, 1), (du.f32_mut()?, 1), |i, dg, du| {
        let r = i..i + dg.len();
        gate.backward()(isa, &g[r.clone()], &u[r.clone()], &dy[r], dg, du);
    });
    Ok((dg, du))
}

fn check(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.shape() == b.shape() {
        Ok(())
    } else {
        Err(shape_error(op, a.shape(), b.shape()))
    }
}
