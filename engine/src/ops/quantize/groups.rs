//! int4: weights and the input of a head in groups of 32 columns, as `onebit_kernels_cpu::int4_gemv` has them.
//!
//! ```text
//! weights   q · step       q in −8..=7, step an f16 of either sign, that of nine with the least sum of squared errors
//! input     p · max|x|/127   p = clamp(round(x · 127/max|x|), ±127)                      of each token and group
//! ```
//! A weight beyond ±491,000 has no step that an f16 holds: its group is NaN, and so is the loss, which a run reports and goes back from as from any other
//! that is not finite. The runtime refuses such a weight; a clamp would train a model that it can't run. A group with an input that is not finite is NaN too.

use half::f16;
use onebit_kernels_cpu::int4_gemv as kernel;

use super::super::elementwise::{axpy, scale};
use crate::parallel::over_rows;
use crate::{Result, Tensor};

/// `q · step` of each weight of `w` `[rows, cols]`, exactly.
pub(super) fn integers(w: &Tensor) -> Result<Tensor> {
    let cols = w.shape().last();
    let (isa, data) = (w.device().isa(), w.f32()?);
    let mut dense = Tensor::for_overwrite(w.device(), w.shape().clone());
    over_rows(dense.f32_mut()?, cols, |first, out| {
        let mut codes = vec![0; kernel::row_bytes(cols)];
        let mut steps = vec![f16::ZERO; kernel::row_steps(cols)];
        for (r, out) in out.chunks_exact_mut(cols).enumerate() {
            let row = &data[(first + r) * cols..][..cols];
            kernel::quantize(isa, row, cols, &mut codes, &mut steps);
            kernel::dequantize(&codes, &steps, cols, out);
        }
    });
    Ok(dense)
}

/// `(1−a)·x + a·q(x)` with `q` the rounding in groups; at `a ≥ 1` `q(x)` itself, what the integer kernel multiplies.
///
/// # Errors
/// Elements that are not f32.
pub fn blend_groups(x: &Tensor, anneal: f32) -> Result<Tensor> {
    let cols = x.shape().last();
    let (isa, data) = (x.device().isa(), x.f32()?);
    let mut rounded = Tensor::for_overwrite(x.device(), x.shape().clone());
    over_rows(rounded.f32_mut()?, cols, |first, out| {
        let mut blocks = vec![kernel::InputBlock::ZERO; kernel::blocks(cols)];
        for (r, out) in out.chunks_exact_mut(cols).enumerate() {
            kernel::quantize_input(isa, &data[(first + r) * cols..][..cols], cols, &mut blocks);
            kernel::dequantize_input(&blocks, cols, out);
        }
    });
    if anneal >= 1.0 {
        return Ok(rounded);
    }
    let mut blended = scale(1.0 - anneal, x)?;
    axpy(anneal, &rounded, &mut blended)?;
    Ok(blended)
}
