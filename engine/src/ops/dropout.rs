//! Dropout (Srivastava et al. 2014), kept elements scaled by `1/(1−p)`.

use onebit_kernels_cpu::dropout as kernel;

use crate::parallel::over_rows;
use crate::rng::Key;
use crate::{Result, Tensor};

/// Zeroes each element with probability `p`. The mask is a function of `key` and the element's index alone, so calling it
/// on the gradient with the same key is the backward.
///
/// # Errors
/// Elements that are not f32.
pub fn dropout(x: &Tensor, p: f32, key: Key) -> Result<Tensor> {
    let isa = x.device().isa();
    let mut out = Tensor::for_overwrite(x.device(), x.shape().clone());
    let x = x.f32()?;
    over_rows(out.f32_mut()?, 1, |i, out| {
        kernel::dropout(isa, &x[i..i + out.len()], p, key, i as u64, out)
    });
    Ok(out)
}
