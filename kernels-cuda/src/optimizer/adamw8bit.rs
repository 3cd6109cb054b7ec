//! AdamW with both moments in 8 bits, after the block-wise quantisation of Dettmers et al. 2022.
//!
//! The codes, and what they are for, are in `kernels-cpu/src/adamw8bit`, whose bits these are. 2 bytes and 8/256 for the moments of a parameter, instead of 8.

use super::*;
use crate::device::{Kernel, Module, ptx};

static MODULE: Module = ptx!("adamw8bit.ptx");
const ADAMW: Kernel = MODULE.kernel("adamw8bit");
const ADAMW_BF16: Kernel = MODULE.kernel("adamw8bit_bf16");

/// Moments of an arena of `n` elements; all zeros before the first step.
#[derive(Clone, Copy, Debug)]
pub struct EightBitMoments<'a> {
    /// Codes of the mean of gradients, signed, `[n]`.
    pub first: &'a DeviceArray<i8>,
    /// Codes of the mean of squared gradients `[n]`.
    pub second: &'a DeviceArray<u8>,
    /// Scales of `first`, `[n / BLOCK]`.
    pub first_scale: &'a DeviceArray<f32>,
    /// Scales of `second`, `[n / BLOCK]`.
    pub second_scale: &'a DeviceArray<f32>,
    /// The number of the first element, a multiple of [`BLOCK`]: draws count from it, so that a slice draws what the whole would.
    pub element: usize,
}

/// As [`adamw()`], with moments in 8 bits.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that differ, an `n` or a first element that is not a multiple of [`BLOCK`].
pub fn adamw8bit(
    gpu: &Gpu,
    constants: AdamW,
    parameters: &DeviceArray<f32>,
    gradients: Gradients,
    moments: EightBitMoments,
    decay: &DeviceArray<u8>,
    scalars: &DeviceArray<u32>,
    guard: &DeviceArray<u32>,
) -> Result<()> {
    const OP: &str = "adamw8bit";
    let n = parameters.len();
    let blocks = n / BLOCK;
    check_arena(OP, n, parameters.address())?;
    check_arena(OP, gradients.len(), gradients.address())?;
    check_arena(OP, moments.first.len(), moments.first.address())?;
    check_arena(OP, moments.second.len(), moments.second.address())?;
    need(OP, "gradients", n, gradients.len())?;
    need(OP, "first moments", n, moments.first.len())?;
    need(OP, "second moments", n, moments.second.len())?;
    need(OP, "scales of first moments", blocks, moments.first_scale.len())?;
    need(OP, "scales of second moments", blocks, moments.second_scale.len())?;
    need(OP, "decay", blocks, decay.len())?;
    check_step(OP, scalars, guard)?;
    if !moments.element.is_multiple_of(BLOCK) {
        let expected = format!("a first element at a multiple of {BLOCK}");
        return Err(CudaError::shape(OP, expected, moments.element));
    }
    let kernel = match gradients {
        Gradients::F32(_) => ADAMW,
        Gradients::Bf16(_) => ADAMW_BF16,
    };
    let launch = Launch::new(gpu, kernel, [blocks.div_ceil(8) as u32, 1, 1], 256).array(parameters);
    let launch = gradients
        .argument(launch)
        .array(moments.first)
        .array(moments.second)
        .array(moments.first_scale)
        .array(moments.second_scale)
        .array(decay)
        .array(scalars)
        .array(guard)
        .u64(blocks as u64)
        .u64(moments.element as u64);
    // SAFETY: all arenas have `blocks` blocks of 256 elements, `decay` and the scales an element for each, the other two arrays the words that are read.
    unsafe { constants.arguments(launch).run() }
}
