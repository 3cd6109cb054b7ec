//! RMSNorm (Zhang & Sennrich 2019) over the innermost dimension, in f32.

use onebit_kernels_cpu::rms_norm as kernel;
use rayon::prelude::*;

use crate::error::shape_error;
use crate::parallel::over_rows;
use crate::{Result, Tensor};

/// Rows of a block of the weight gradient. Fixed, so that it does not depend on the number of threads.
const BLOCK_ROWS: usize = 256;

/// `x / sqrt(mean(x²) + eps) · w` for each row of `w.len()` elements of `x`.
///
/// # Errors
/// `x` is not a whole number of rows, or elements are not f32.
pub fn rms_norm(x: &Tensor, w: &Tensor, eps: f32) -> Result<Tensor> {
    let n = row_len("rms_norm", x, w)?;
    let isa = x.device().isa();
    let mut out = Tensor::for_overwrite(x.device(), x.shape().clone());
    let (x, w) = (x.f32()?, w.f32()?);
    over_rows(out.f32_mut()?, n, |row, out| {
        kernel::rms_norm(isa, &x[row * n..row * n + out.len()], w, eps, out);
    });
    Ok(out)
}

/// Gradients of [`rms_norm`] with respect to `x` and `w`.
///
/// # Errors
/// Shapes that differ, or elements that are not f32.
pub fn rms_norm_backward(x: &Tensor, w: &Tensor, eps: f32, dy: &Tensor) -> Result<(Tensor, Tensor)> {
    let n = row_len("rms_norm_backward", x, w)?;
    if x.shape() != dy.shape() {
        return Err(shape_error("rms_norm_backward", x.shape(), dy.shape()));
    }
    let isa = x.device().isa();
    let mut dx = Tensor::for_overwrite(x.device(), x.shape().clone());
    let mut dw = Tensor::zeros(w.device(), w.shape().clone());
    let (x, w, dy) = (x.f32()?, w.f32()?, dy.f32()?);
    let partials: Vec<Vec<f32>> = dx
        .f32_mut()?
        .par_chunks_mut(BLOCK_ROWS * n)
        .enumerate()
        .map(|(i, dx)| {
            let r = i * BLOCK_ROWS * n..i * BLOCK_ROWS * n + dx.len();
            let mut dw = vec![0.0; n];
            kernel::rms_norm_backward(isa, &x[r.clone()], w, eps, &dy[r], dx, &mut dw);
            dw
        })
        .collect();
    let total = dw.f32_mut()?;
    for partial in &partials {
        onebit_kernels_cpu::elementwise::axpy(isa, 1.0, partial, total);
    }
    Ok((dx, dw))
}

fn row_len(op: &'static str, x: &Tensor, w: &Tensor) -> Result<usize> {
    let n = w.len();
    if n > 0 && x.len().is_multiple_of(n) && x.shape().last().is_multiple_of(n) {
        Ok(n)
    } else {
        Err(shape_error(op, format!("rows of {n}"), x.shape()))
    }
}
