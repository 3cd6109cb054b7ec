//! Operations element by element that no other kernel takes along.

#[cfg(test)]
mod tests;

use half::bf16;

use crate::device::{CudaError, DeviceArray, Gpu, Kernel, Launch, Module, Result, need, ptx};
use crate::rms_norm::Dropout;

static MODULE: Module = ptx!("kernel.ptx");
const ADD: Kernel = MODULE.kernel("add_bf16");
const DROPOUT: Kernel = MODULE.kernel("dropout_f32");

const THREADS: usize = 256;

/// `out[i] += x[i]`, the sum rounded to bf16.
///
/// # Errors
/// Lengths that differ or are no multiple of 4.
pub fn add(gpu: &Gpu, out: &DeviceArray<bf16>, x: &DeviceArray<bf16>) -> Result<()> {
    const OP: &str = "add";
    need(OP, "x", out.len(), x.len())?;
    let (chunks, grid) = chunks(OP, out.len())?;
    let launch = Launch::new(gpu, ADD, grid, THREADS as u32).array(out).array(x);
    // SAFETY: both arrays have `4 · chunks` elements.
    unsafe { launch.u64(chunks).run() }
}

/// Applies `dropout` to `x` in place; applied to a gradient it is its own backward.
///
/// # Errors
/// A length that is no multiple of 4, a probability outside `[0, 1)`.
pub fn dropout(gpu: &Gpu, x: &DeviceArray<f32>, dropout: &Dropout<'_>) -> Result<()> {
    const OP: &str = "dropout";
    let (chunks, grid) = chunks(OP, x.len())?;
    let launch = Launch::new(gpu, DROPOUT, grid, THREADS as u32).array(x);
    let launch = Dropout::push(Some(dropout), OP, launch)?;
    // SAFETY: the array has `4 · chunks` elements.
    unsafe { launch.u64(chunks).run() }
}

fn chunks(op: &'static str, len: usize) -> Result<(u64, [u32; 3])> {
    let (chunks, blocks) = (len / 4, (len / 4).div_ceil(THREADS));
    if len.is_multiple_of(4) && blocks < 1 << 31 {
        Ok((chunks as u64, [blocks as u32, 1, 1]))
    } else {
        Err(CudaError::shape(op, "a multiple of 4 elements, fewer than 2^41", len))
    }
}
