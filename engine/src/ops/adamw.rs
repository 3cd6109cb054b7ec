//! AdamW (Loshchilov & Hutter 2019): one pass over parameter, gradient and both moments.

use onebit_kernels_cpu::adamw as kernel;
pub use onebit_kernels_cpu::adamw::AdamWStep;
use rayon::prelude::*;

use crate::error::shape_error;
use crate::{Result, Tensor};

/// Elements of a task.
const BLOCK: usize = 1 << 15;

/// Updates `parameter`, `first` and `second` (the moments) from `gradient`, in place.
///
/// # Errors
/// Shapes that differ, or elements that are not f32.
pub fn adamw(
    step: &AdamWStep,
    parameter: &mut Tensor,
    gradient: &Tensor,
    first: &mut Tensor,
    second: &mut Tensor,
) -> Result<()> {
    for other in [gradient, &*first, &*second] {
        if other.shape() != parameter.shape() {
            return Err(shape_error("adamw", parameter.shape(), other.shape()));
        }
    }
    let isa = parameter.device().isa();
    let state = first
        .f32_mut()?
        .par_chunks_mut(BLOCK)
        .zip(second.f32_mut()?.par_chunks_mut(BLOCK));
    let weights = parameter
        .f32_mut()?
        .par_chunks_mut(BLOCK)
        .zip(gradient.f32()?.par_chunks(BLOCK));
    weights
        .zip(state)
        .for_each(|((p, g), (m, v))| kernel::adamw(isa, step, p, g, m, v));
    Ok(())
}
