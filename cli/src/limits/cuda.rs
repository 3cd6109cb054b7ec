//! What a GPU can do: bytes a second of a copy, operations a second of a large product, both measured now.

use half::bf16;
use onebit_kernels_cuda::gemm::{Layout, Matrix, Output, Scales, gemm_bf16};
use onebit_kernels_cuda::{DeviceArray, Gpu};

use super::median;
use crate::{Result, random};

/// Side of the square product that a GPU is usually measured by, and the one that is tried first.
const SIDES: [usize; 2] = [128, 8192];
/// Bytes of a copy, likewise.
const COPIES: [usize; 2] = [16 << 20, 1 << 30];
/// Different values of the product: a prime, so that rows differ.
const PERIOD: usize = 65_521;
/// What takes longer than this is large enough: launching it does not count.
const LONG: f64 = 1e-3;

/// Bytes read and written a second by a copy on the GPU.
pub(crate) fn copy_bandwidth(gpu: &Gpu) -> Result<f64> {
    let mut bytes = COPIES[0];
    loop {
        let (from, to) = (gpu.zeros::<u8>(bytes)?, gpu.zeros::<u8>(bytes)?);
        let seconds = timed(gpu, || Ok(gpu.copy(&from, &to)?))?;
        let room = gpu.free_memory()? / 8;
        if seconds > LONG || bytes >= COPIES[1] || bytes as u64 > room {
            return Ok(2.0 * bytes as f64 / seconds);
        }
        bytes *= 2;
    }
}

/// Operations a second of a product of bf16 that is large enough to be fast.
pub(crate) fn product_rate(gpu: &Gpu) -> Result<f64> {
    // Not zeros, on which a GPU runs faster.
    let values: Vec<bf16> = random::ids(PERIOD, 1 << 16, 1)
        .iter()
        .map(|&id| bf16::from_f32(id as f32 / 32768.0 - 1.0))
        .collect();
    let mut side = SIDES[0];
    loop {
        let values: Vec<bf16> = values.iter().copied().cycle().take(side * side).collect();
        let seconds = product(gpu, side, &values)?;
        if seconds > LONG || side >= SIDES[1] {
            return Ok(2.0 * (side as f64).powi(3) / seconds);
        }
        side *= 2;
    }
}

/// Seconds of a product of two squares.
fn product(gpu: &Gpu, side: usize, values: &[bf16]) -> Result<f64> {
    let (a, b) = (gpu.upload(values)?, gpu.upload(values)?);
    let out: DeviceArray<bf16> = gpu.zeros(side * side)?;
    let none = gpu.zeros(0)?;
    let matrix = |array| Matrix { array, stride: side };
    timed(gpu, || {
        let out = Output::Bf16(matrix(&out));
        let size = (side, side, side);
        Ok(gemm_bf16(
            gpu,
            Layout::NT,
            size,
            matrix(&a),
            matrix(&b),
            out,
            Scales::NONE,
            &none,
        )?)
    })
}

/// Seconds of `work`, the median of several.
fn timed(gpu: &Gpu, work: impl Fn() -> Result<()>) -> Result<f64> {
    const TIMES: usize = 10;
    work()?;
    let mut marks = vec![gpu.mark()?];
    for _ in 0..TIMES {
        work()?;
        marks.push(gpu.mark()?);
    }
    let mut times = Vec::new();
    for pair in marks.windows(2) {
        times.push(pair[1].seconds_since(&pair[0])?);
    }
    Ok(median(&mut times))
}
