//! The soft-cap of logits (Gemma 2, 2024): what is small beside the cap stays, nothing passes it.

use onebit_kernels_cpu::softcap as kernel;

use crate::error::shape_error;
use crate::parallel::over_rows;
use crate::{Result, Tensor};

/// `cap · tanh(x / cap)`.
///
/// # Errors
/// Elements that are not f32.
pub fn softcap(x: &Tensor, cap: f32) -> Result<Tensor> {
    let isa = x.device().isa();
    let mut out = x.clone();
    over_rows(out.f32_mut()?, 1, |_, out| kernel::softcap(isa, cap, out));
    Ok(out)
}

/// Gradient of [`softcap`] from its result `y`: `dy · (1 − (y / cap)²)`, in the memory of `dy` where nobody else has it.
///
/// # Errors
/// Shapes that differ, or elements that are not f32.
pub fn softcap_backward(y: &Tensor, dy: Tensor, cap: f32) -> Result<Tensor> {
    if y.shape() != dy.shape() {
        return Err(shape_error("softcap_backward", y.shape(), dy.shape()));
    }
    let isa = y.device().isa();
    let (y, mut dx) = (y.f32()?, dy);
    over_rows(dx.f32_mut()?, 1, |i, dx| {
        kernel::softcap_backward(isa, cap, &y[i..i + dx.len()], dx);
    });
    Ok(dx)
}
