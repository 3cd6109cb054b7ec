//! The global norm of the gradients, and the guard.

use super::*;
use crate::device::{Kernel, Module, ptx};

static MODULE: Module = ptx!("norm.ptx");
const SQUARES: Kernel = MODULE.kernel("gradient_squares");
const SQUARES_BF16: Kernel = MODULE.kernel("gradient_squares_bf16");
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
    if losses.len() > i32::MAX as usize {
        return Err(CudaError::shape(OP, "less than 2^31 losses", losses.len()));
    }
    for (i, arena) in gradients.iter().enumerate() {
        check_arena(OP, arena.len(), arena.address())?;
        let kernel = match arena {
            Gradients::F32(_) => SQUARES,
            Gradients::Bf16(_) => SQUARES_BF16,
        };
        let sums = partials.slice(i * NORM_PARTIALS..(i + 1) * NORM_PARTIALS);
        let launch = arena
            .argument(Launch::new(gpu, kernel, [NORM_PARTIALS as u32, 1, 1], 256))
            .u64(arena.len() as u64 / 4)
            .array(&sums);
        // SAFETY: the kernel reads as many chunks of four gradients as there are, and each of `NORM_PARTIALS` blocks writes one sum.
        unsafe { launch.run()? };
    }
    let launch = Launch::new(gpu, NORM, [1, 1, 1], 256)
        .array(partials)
        .u32(partials.len())
        .array(losses)
        .u32(losses.len())
        .f32(max_norm)
        .array(scalars)
        .array(guard);
    // SAFETY: all lengths are those that the kernel reads and writes.
    unsafe { launch.run() }
}
