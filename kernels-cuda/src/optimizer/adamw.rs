//! AdamW with f32 moments.

use super::*;
use crate::device::{Kernel, Module, ptx};

static MODULE: Module = ptx!("adamw.ptx");
const ADAMW: Kernel = MODULE.kernel("adamw");
const ADAMW_BF16: Kernel = MODULE.kernel("adamw_bf16");
const ZERO: Kernel = MODULE.kernel("zero");

/// The constants of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the mean of gradients, in `[0, 1)`.
    pub beta1: f32,
    /// Decay of the mean of squared gradients, in `[0, 1)`.
    pub beta2: f32,
    /// Added to the root, against division by zero.
    pub eps: f32,
}

impl AdamW {
    /// As the kernels take them, at the end of their parameters.
    pub(super) fn arguments<'a>(&self, launch: Launch<'a>) -> Launch<'a> {
        launch
            .f32(self.beta1)
            .f32(1.0 - self.beta1)
            .f32(self.beta2)
            .f32(1.0 - self.beta2)
            .f32(self.eps)
    }
}

/// One step on `parameters` `[n]` with `gradients` `[n]` and moments `first` and `second` `[n]`, with the numbers of the step in `scalars`
/// `[STEP_WORDS]`; the same operations as the CPU's, so the same bits. Gradients are multiplied by the scale of `guard` `[GUARD_WORDS]`, and nothing changes
/// if it is shut. `decay` `[n / BLOCK]` is not 0 for blocks whose weights are decayed.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that differ, or an `n` that is not a multiple of [`BLOCK`].
pub fn adamw(
    gpu: &Gpu,
    constants: AdamW,
    parameters: &DeviceArray<f32>,
    gradients: Gradients,
    (first, second): (&DeviceArray<f32>, &DeviceArray<f32>),
    decay: &DeviceArray<u8>,
    scalars: &DeviceArray<u32>,
    guard: &DeviceArray<u32>,
) -> Result<()> {
    const OP: &str = "adamw";
    let n = parameters.len();
    for array in [parameters, first, second] {
        check_arena(OP, array.len(), array.address())?;
        need(OP, "an arena", n, array.len())?;
    }
    check_arena(OP, gradients.len(), gradients.address())?;
    need(OP, "gradients", n, gradients.len())?;
    need(OP, "decay", n / BLOCK, decay.len())?;
    check_step(OP, scalars, guard)?;
    let kernel = match gradients {
        Gradients::F32(_) => ADAMW,
        Gradients::Bf16(_) => ADAMW_BF16,
    };
    let chunks = n / 4;
    let launch = Launch::new(gpu, kernel, [chunks.div_ceil(256) as u32, 1, 1], 256).array(parameters);
    let launch = gradients
        .argument(launch)
        .array(first)
        .array(second)
        .array(decay)
        .array(scalars)
        .array(guard)
        .u64(chunks as u64);
    // SAFETY: all arenas have `chunks` chunks of four elements, `decay` a flag for every 64 of them, the other two arrays the words that are read.
    unsafe { constants.arguments(launch).run() }
}

/// Writes zeros to all of `array`, whose length is a multiple of 4.
///
/// # Errors
/// [`CudaError::Shape`] for another length.
pub fn zero(gpu: &Gpu, array: &DeviceArray<f32>) -> Result<()> {
    let chunks = array.len() / 4;
    if !array.len().is_multiple_of(4) || !array.address().is_multiple_of(16) || chunks.div_ceil(256) > i32::MAX as usize
    {
        return Err(CudaError::shape(
            "zero",
            "a multiple of 4 elements at 16 bytes",
            format!("{array:?}"),
        ));
    }
    let launch = Launch::new(gpu, ZERO, [chunks.div_ceil(256) as u32, 1, 1], 256)
        .array(array)
        .u64(chunks as u64);
    // SAFETY: the array has `chunks` chunks of four elements.
    unsafe { launch.run() }
}
