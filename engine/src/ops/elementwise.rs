//! Element by element: sums, products, scalings, and reductions to one number.

use onebit_kernels_cpu::elementwise as kernel;
use rayon::prelude::*;

use crate::error::shape_error;
use crate::parallel::over_rows;
use crate::{Result, Tensor};

/// Elements of a block of a reduction. Fixed, so that a sum does not depend on the number of threads.
const BLOCK: usize = 1 << 16;

fn same_shape(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.shape() == b.shape() {
        Ok(())
    } else {
        Err(shape_error(op, a.shape(), b.shape()))
    }
}

/// `a + b`.
///
/// # Errors
/// Shapes that differ, or elements that are not f32.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    binary("add", a, b, kernel::add)
}

/// `a · b` element by element.
///
/// # Errors
/// Shapes that differ, or elements that are not f32.
pub fn mul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    binary("mul", a, b, kernel::mul)
}

fn binary(
    op: &'static str,
    a: &Tensor,
    b: &Tensor,
    kernel: impl Fn(crate::Isa, &[f32], &[f32], &mut [f32]) + Sync,
) -> Result<Tensor> {
    same_shape(op, a, b)?;
    let isa = a.device().isa();
    let mut out = Tensor::for_overwrite(a.device(), a.shape().clone());
    let (x, y) = (a.f32()?, b.f32()?);
    over_rows(out.f32_mut()?, 1, |i, out| {
        kernel(isa, &x[i..i + out.len()], &y[i..i + out.len()], out)
    });
    Ok(out)
}

/// `y += alpha · x`.
///
/// # Errors
/// Shapes that differ, or elements that are not f32.
pub fn axpy(alpha: f32, x: &Tensor, y: &mut Tensor) -> Result<()> {
    same_shape("axpy", x, y)?;
    let isa = x.device().isa();
    let x = x.f32()?;
    over_rows(y.f32_mut()?, 1, |i, y| kernel::axpy(isa, alpha, &x[i..i + y.len()], y));
    Ok(())
}

/// `alpha · x`.
///
/// # Errors
/// Elements that are not f32.
pub fn scale(alpha: f32, x: &Tensor) -> Result<Tensor> {
    let isa = x.device().isa();
    let mut out = Tensor::for_overwrite(x.device(), x.shape().clone());
    let data = x.f32()?;
    over_rows(out.f32_mut()?, 1, |i, out| {
        kernel::scale(isa, alpha, &data[i..i + out.len()], out)
    });
    Ok(out)
}

/// Row `r` of `x` times `factors[r]`.
///
/// # Errors
/// Elements that are not f32, as many factors as there are not rows.
pub fn scale_rows(x: &Tensor, factors: &[f32]) -> Result<Tensor> {
    let (rows, cols, isa) = (x.shape().rows(), x.shape().last(), x.device().isa());
    if factors.len() != rows {
        return Err(shape_error("scale_rows", format!("{rows} factors"), factors.len()));
    }
    let mut out = Tensor::for_overwrite(x.device(), x.shape().clone());
    let x = x.f32()?;
    over_rows(out.f32_mut()?, cols, |first, out| {
        for (row, out) in (first..).zip(out.chunks_exact_mut(cols)) {
            kernel::scale(isa, factors[row], &x[row * cols..][..cols], out);
        }
    });
    Ok(out)
}

/// Sum of all elements.
///
/// # Errors
/// Elements that are not f32.
pub fn sum(x: &Tensor) -> Result<f64> {
    let isa = x.device().isa();
    Ok(blocks(x.f32()?, |b| kernel::sum(isa, b)))
}

/// Sum of the squares of all elements.
///
/// # Errors
/// Elements that are not f32.
pub fn sum_squares(x: &Tensor) -> Result<f64> {
    let isa = x.device().isa();
    Ok(blocks(x.f32()?, |b| kernel::sum_squares(isa, b)))
}

/// Whether no element is NaN or infinite.
///
/// # Errors
/// Elements that are not f32.
pub fn all_finite(x: &Tensor) -> Result<bool> {
    let isa = x.device().isa();
    Ok(x.f32()?.par_chunks(BLOCK).all(|b| kernel::all_finite(isa, b)))
}

/// Block sums in parallel, added in order.
pub(crate) fn blocks(x: &[f32], f: impl Fn(&[f32]) -> f64 + Sync + Send) -> f64 {
    x.par_chunks(BLOCK).map(f).collect::<Vec<_>>().iter().sum()
}
