//! AdamW with moments in 8 bits: see the kernel for how they are kept.

use onebit_kernels_cpu::adamw8bit as kernel;
pub use onebit_kernels_cpu::adamw8bit::{BLOCK, Draw};
use rayon::prelude::*;

use super::adamw::AdamWStep;
use crate::error::shape_error;
use crate::{Result, Tensor};

/// Elements of a task, whole blocks.
const TASK: usize = 1 << 15;

/// The moments of a tensor: codes, and a scale for each [`BLOCK`] of them, the last of which may be fewer.
#[derive(Clone, Debug, PartialEq)]
pub struct EightBit {
    /// Codes of the mean of gradients.
    pub first: Vec<i8>,
    /// Codes of the mean of squared gradients.
    pub second: Vec<u8>,
    /// Scales of `first`.
    pub first_scale: Vec<f32>,
    /// Scales of `second`.
    pub second_scale: Vec<f32>,
}

impl EightBit {
    /// Those of `len` elements before the first step: zeros.
    pub fn zeros(len: usize) -> Self {
        let blocks = len.div_ceil(BLOCK);
        EightBit {
            first: vec![0; len],
            second: vec![0; len],
            first_scale: vec![0.0; blocks],
            second_scale: vec![0.0; blocks],
        }
    }
}

/// Updates `parameter` and `moments` from `gradient`, in place.
///
/// # Errors
/// Shapes that differ, or elements that are not f32.
pub fn adamw8bit(
    step: &AdamWStep,
    draw: Draw,
    parameter: &mut Tensor,
    gradient: &Tensor,
    moments: &mut EightBit,
) -> Result<()> {
    if gradient.shape() != parameter.shape() {
        return Err(shape_error("adamw8bit", parameter.shape(), gradient.shape()));
    }
    let (len, blocks) = (parameter.len(), parameter.len().div_ceil(BLOCK));
    let found = [moments.first.len(), moments.second.len()];
    let scales = [moments.first_scale.len(), moments.second_scale.len()];
    if found != [len; 2] || scales != [blocks; 2] {
        return Err(shape_error("adamw8bit", format!("{len} moments"), format!("{found:?}")));
    }
    let isa = parameter.device().isa();
    let codes = (moments.first.par_chunks_mut(TASK)).zip(moments.second.par_chunks_mut(TASK));
    let scales =
        (moments.first_scale.par_chunks_mut(TASK / BLOCK)).zip(moments.second_scale.par_chunks_mut(TASK / BLOCK));
    let weights = parameter
        .f32_mut()?
        .par_chunks_mut(TASK)
        .zip(gradient.f32()?.par_chunks(TASK));
    weights.zip(codes.zip(scales)).enumerate().for_each(
        |(task, ((p, g), ((first, second), (first_scale, second_scale))))| {
            let moments = kernel::EightBit {
                first,
                second,
                first_scale,
                second_scale,
            };
            let element = draw.element.wrapping_add((task * TASK) as u32);
            kernel::adamw8bit(isa, step, Draw { element, ..draw }, p, g, moments);
        },
    );
    Ok(())
}
