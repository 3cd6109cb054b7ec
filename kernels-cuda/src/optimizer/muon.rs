//! Muon (Jordan et al. 2024) around its matrix products, for one matrix of `n` elements that lies in the arenas.
//!
//! ```text
//! momentum(…)                 momentum ← c·momentum + scale·g, sums of squares of scale·g + c·momentum
//! normalize(…)                X = (scale·g + c·momentum) / its Frobenius norm, bf16
//! five times:                 A = X·Xᵀ (Xᵀ·X where there are more rows than columns), A², both bf16
//!   combine(b, A, c, A²)      P = b·A + c·A²
//!   combine(a, X, 1, P·X)     X ← a·X + P·X
//! update(…)                   parameter ← (1 − lr·weight_decay)·parameter − lr·size·X, size = 0.2·√max(rows, cols)
//! ```
//! Cost in bytes an element: 12, 10, 6 each, 10. All but `combine` do nothing while the guard is shut.

use half::bf16;

use super::*;
use crate::device::{Kernel, Module, ptx};

static MODULE: Module = ptx!("muon.ptx");
const MOMENTUM: Kernel = MODULE.kernel("muon_momentum");
const NORMALIZE: Kernel = MODULE.kernel("muon_normalize");
const COMBINE: Kernel = MODULE.kernel("muon_combine");
const UPDATE: Kernel = MODULE.kernel("muon_update");

/// Updates `momentum` `[n]` by `gradient` `[n]` times the scale of `guard`, at decay `c`, and writes to `partials` `[NORM_PARTIALS]` what [`normalize`]
/// takes.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that differ, or an `n` that is not a multiple of 4.
pub fn momentum(
    gpu: &Gpu,
    gradient: &DeviceArray<f32>,
    momentum: &DeviceArray<f32>,
    c: f32,
    guard: &DeviceArray<u32>,
    partials: &DeviceArray<u64>,
) -> Result<()> {
    const OP: &str = "muon momentum";
    let n = gradient.len();
    check_chunks(OP, n, 4, &[gradient.address(), momentum.address()])?;
    need(OP, "momentum", n, momentum.len())?;
    need(OP, "guard", GUARD_WORDS, guard.len())?;
    need(OP, "partials", NORM_PARTIALS, partials.len())?;
    let launch = Launch::new(gpu, MOMENTUM, [NORM_PARTIALS as u32, 1, 1], 256)
        .array(gradient)
        .array(momentum)
        .u64(n as u64 / 4)
        .f32(c)
        .array(guard)
        .array(partials);
    // SAFETY: both arrays have `n / 4` chunks of four elements, and each of `NORM_PARTIALS` blocks writes one sum.
    unsafe { launch.run() }
}

/// Writes to `x` `[n]` what is made orthogonal: Nesterov's look ahead, at Frobenius norm 1. Arguments as for [`momentum()`], which ran just before.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that differ, or an `n` that is not a multiple of 4.
pub fn normalize(
    gpu: &Gpu,
    gradient: &DeviceArray<f32>,
    momentum: &DeviceArray<f32>,
    c: f32,
    guard: &DeviceArray<u32>,
    partials: &DeviceArray<u64>,
    x: &DeviceArray<bf16>,
) -> Result<()> {
    const OP: &str = "muon normalize";
    let n = gradient.len();
    check_chunks(OP, n, 4, &[gradient.address(), momentum.address(), x.address()])?;
    need(OP, "momentum", n, momentum.len())?;
    need(OP, "x", n, x.len())?;
    need(OP, "guard", GUARD_WORDS, guard.len())?;
    need(OP, "partials", NORM_PARTIALS, partials.len())?;
    let blocks = (n / 4).div_ceil(256).min(NORM_PARTIALS);
    let launch = Launch::new(gpu, NORMALIZE, [blocks as u32, 1, 1], 256)
        .array(gradient)
        .array(momentum)
        .u64(n as u64 / 4)
        .f32(c)
        .array(guard)
        .array(partials)
        .array(x);
    // SAFETY: the three arrays have `n / 4` chunks of four elements, `partials` the sums that are read.
    unsafe { launch.run() }
}

/// `out = alpha·x + beta·y`, all `[n]`; `out` may be one of the others.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that differ, or an `n` that is not a multiple of 8.
pub fn combine(
    gpu: &Gpu,
    (alpha, x): (f32, &DeviceArray<bf16>),
    (beta, y): (f32, &DeviceArray<bf16>),
    out: &DeviceArray<bf16>,
) -> Result<()> {
    const OP: &str = "muon combine";
    let n = out.len();
    check_chunks(OP, n, 8, &[x.address(), y.address(), out.address()])?;
    need(OP, "x", n, x.len())?;
    need(OP, "y", n, y.len())?;
    let launch = Launch::new(gpu, COMBINE, [(n / 8).div_ceil(256) as u32, 1, 1], 256)
        .f32(alpha)
        .array(x)
        .f32(beta)
        .array(y)
        .array(out)
        .u64(n as u64 / 8);
    // SAFETY: the three arrays have `n / 8` chunks of eight elements; a thread reads its chunk before it writes it.
    unsafe { launch.run() }
}

/// Decays `parameter` `[n]` and moves it by −lr·`size`·`x` `[n]`, with the numbers of the step in `scalars` `[STEP_WORDS]`.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that differ, or an `n` that is not a multiple of 4.
pub fn update(
    gpu: &Gpu,
    parameter: &DeviceArray<f32>,
    x: &DeviceArray<bf16>,
    size: f32,
    scalars: &DeviceArray<u32>,
    guard: &DeviceArray<u32>,
) -> Result<()> {
    const OP: &str = "muon update";
    let n = parameter.len();
    check_chunks(OP, n, 4, &[parameter.address(), x.address()])?;
    need(OP, "x", n, x.len())?;
    check_step(OP, scalars, guard)?;
    let launch = Launch::new(gpu, UPDATE, [(n / 4).div_ceil(256) as u32, 1, 1], 256)
        .array(parameter)
        .array(x)
        .u64(n as u64 / 4)
        .f32(size)
        .array(scalars)
        .array(guard);
    // SAFETY: both arrays have `n / 4` chunks of four elements, the other two the words that are read.
    unsafe { launch.run() }
}

/// Checks that a matrix is whole chunks of `chunk` elements, no more than a grid has threads for, at addresses for 16-byte accesses.
fn check_chunks(op: &'static str, n: usize, chunk: usize, addresses: &[u64]) -> Result<()> {
    if n.is_multiple_of(chunk) && n / chunk / 256 < i32::MAX as usize && addresses.iter().all(|a| a.is_multiple_of(16))
    {
        Ok(())
    } else {
        Err(CudaError::shape(
            op,
            format!("a multiple of {chunk} elements at 16 bytes"),
            n,
        ))
    }
}
