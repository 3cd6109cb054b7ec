//! Rotary position embedding (Su et al. 2021), half-split pairs.

use onebit_kernels_cpu::rope as kernel;

use crate::error::shape_error;
use crate::parallel::over_rows;
use crate::{Device, Result, Tensor};

/// Cosines and sines of positions `0..seq`, each `[seq, head_dim/2]`.
#[derive(Clone, Debug)]
pub struct RopeTable {
    cos: Tensor,
    sin: Tensor,
    head_dim: usize,
}

impl RopeTable {
    /// The table of base `theta` for `seq` positions and heads of `head_dim` (even).
    ///
    /// # Errors
    /// `head_dim` is odd or zero.
    pub fn new(device: Device, theta: f64, head_dim: usize, seq: usize) -> Result<Self> {
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(shape_error("rope", "an even head_dim", head_dim));
        }
        let mut cos = Tensor::zeros(device, [seq, head_dim / 2]);
        let mut sin = Tensor::zeros(device, [seq, head_dim / 2]);
        kernel::rope_table(theta, head_dim, 0, cos.f32_mut()?, sin.f32_mut()?);
        Ok(RopeTable { cos, sin, head_dim })
    }
}

/// Rotates `x` `[batch·seq, heads·head_dim]`, sequences of `seq` tokens each starting at position 0. `inverse` turns the other
/// way, which is the gradient.
///
/// # Errors
/// Shapes that do not fit, or elements that are not f32.
pub fn rope(x: &Tensor, table: &RopeTable, seq: usize, inverse: bool) -> Result<Tensor> {
    let (width, half) = (x.shape().last(), table.head_dim / 2);
    if !width.is_multiple_of(table.head_dim)
        || seq == 0
        || !x.shape().rows().is_multiple_of(seq)
        || seq * half > table.cos.len()
    {
        let expected = format!(
            "sequences of {seq} tokens, heads of {}, at most {} positions",
            table.head_dim,
            table.cos.shape().rows()
        );
        return Err(shape_error("rope", expected, x.shape()));
    }
    let isa = x.device().isa();
    let mut out = Tensor::for_overwrite(x.device(), x.shape().clone());
    let (x, cos, sin) = (x.f32()?, table.cos.f32()?, table.sin.f32()?);
    over_rows(out.f32_mut()?, seq * width, |sequence, out| {
        let first = sequence * seq * width;
        out.copy_from_slice(&x[first..first + out.len()]);
        for one in out.chunks_exact_mut(seq * width) {
            kernel::rope(
                isa,
                one,
                width / table.head_dim,
                table.head_dim,
                &cos[..seq * half],
                &sin[..seq * half],
                inverse,
            );
        }
    });
    Ok(out)
}
