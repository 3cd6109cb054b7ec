//! The global norm of the gradients, and the guard.

use super::*;
use crate::device::{Kernel, Module, ptx};

static MODULE: Module = ptx!("norm.ptx");
const SQUARES: Kernel = MODULE.kernel("gradient_squares");
const SQUARES_BF16: Kernel = MODULE.kernel("gradient_squares_bf16");
const SUM: Kernel = MODULE.kernel("gradient_sum");
const NORM: Kernel = MODULE.kernel("gradient_norm");

/// Elements of the scratch array of [`global_norm`] for each arena, and of that of [`muon`]: 1024 sums in f64.
pub const NORM_PARTIALS: usize = 1024;

/// Writes the L2 norm of all `gradients`, arenas whose order is that of the sums, and the factor min(1, `max_norm` / norm) that clips it (1 where `max_norm` is 0), to `guard` `[GUARD_WORDS]`. If the
/// norm or one of `losses` (any number of them) is not finite, the guard shuts for this step, and, after as many in a row as `scalars` `[STEP_WORDS]` allow, for good.
/// `partials` `[arenas · NORM_PARTIALS]` is scratch memory. Squares are added in f32 by 32 and in f64 from there, in the same order on every GPU.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not fit.
pub fn global_norm(
    gpu: &Gpu,
    gradients: &[Gradients],
    losses: &DeviceArray<f32>,
    max_norm: f32,
    scalars: &DeviceArray<u32>,
    partials: &DeviceArray<u64>,
    guard: &DeviceArray<u32>,
) -> Result<()> {
    const OP: &str = "global_norm";
    check_step(OP, scalars, guard)?;
    need(OP, "partials", gradients.len() * NORM_PARTIALS, partials.len())?;
    for (i, arena) in gradients.iter().enumerate() {
        let sums = partials.slice(i * NORM_PARTIALS..(i + 1) * NORM_PARTIALS);
        squares(gpu, OP, arena, &sums, false)?;
    }
    norm_of_sums(gpu, partials, losses, max_norm, scalars, guard)
}

/// What [`global_norm`] finds of the slices of gradients that a rank has: the sum of their squares in `sum` `[1]`, an f64, which is not finite if one of `losses` is not. Over all ranks
/// every gradient is in one slice; [`norm_of_sums`] ends with the sums of all. `partials` `[NORM_PARTIALS]` is scratch memory.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not fit, slices that are no whole blocks.
pub fn sum_of_squares(
    gpu: &Gpu,
    slices: &[Gradients],
    losses: &DeviceArray<f32>,
    partials: &DeviceArray<u64>,
    sum: &DeviceArray<u64>,
) -> Result<()> {
    const OP: &str = "sum_of_squares";
    need(OP, "partials", NORM_PARTIALS, partials.len())?;
    need(OP, "the sum", 1, sum.len())?;
    check_losses(OP, losses)?;
    if slices.is_empty() {
        gpu.fill_bytes(partials, 0)?;
    }
    for (i, slice) in slices.iter().enumerate() {
        squares(gpu, OP, slice, partials, i > 0)?;
    }
    let launch = Launch::new(gpu, SUM, [1, 1, 1], 256)
        .array(partials)
        .u32(partials.len())
        .array(losses)
        .u32(losses.len())
        .array(sum);
    // SAFETY: all lengths are those that the kernel reads and writes.
    unsafe { launch.run() }
}

/// The end of [`global_norm`] where `sums` are those of all ranks, f64, in an order that is the same on all: equal sums and equal losses give equal guards. `losses` may be empty, for ranks
/// tell of theirs by their sums.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not fit.
pub fn norm_of_sums(
    gpu: &Gpu,
    sums: &DeviceArray<u64>,
    losses: &DeviceArray<f32>,
    max_norm: f32,
    scalars: &DeviceArray<u32>,
    guard: &DeviceArray<u32>,
) -> Result<()> {
    const OP: &str = "norm_of_sums";
    check_step(OP, scalars, guard)?;
    check_losses(OP, losses)?;
    let launch = Launch::new(gpu, NORM, [1, 1, 1], 256)
        .array(sums)
        .u32(sums.len())
        .array(losses)
        .u32(losses.len())
        .f32(max_norm)
        .array(scalars)
        .array(guard);
    // SAFETY: all lengths are those that the kernel reads and writes.
    unsafe { launch.run() }
}

/// The sums of squares of `gradients` in `partials` `[NORM_PARTIALS]`, or added to what is there.
fn squares(gpu: &Gpu, op: &'static str, gradients: &Gradients, partials: &DeviceArray<u64>, add: bool) -> Result<()> {
    check_arena(op, gradients.len(), gradients.address())?;
    let kernel = match gradients {
        Gradients::F32(_) => SQUARES,
        Gradients::Bf16(_) => SQUARES_BF16,
    };
    let launch = gradients
        .argument(Launch::new(gpu, kernel, [NORM_PARTIALS as u32, 1, 1], 256))
        .u64(gradients.len() as u64 / 4)
        .array(partials)
        .u32(usize::from(add));
    // SAFETY: the kernel reads as many chunks of four gradients as there are, and each of `NORM_PARTIALS` blocks writes one sum.
    unsafe { launch.run() }
}

fn check_losses(op: &'static str, losses: &DeviceArray<f32>) -> Result<()> {
    if losses.len() > i32::MAX as usize {
        return Err(CudaError::shape(op, "less than 2^31 losses", losses.len()));
    }
    Ok(())
}
