//! The product of [`ternary_gemv`](crate::ternary_gemv) for many tokens: the same results, bit for bit, by the int8 product of tensor cores.
//!
//! The packed matrix is opened into bytes once for all tokens ([`Opened`]), [`gemm_s8`] makes the exact sums, and a last kernel
//! gives them the epilogue's arithmetic. The product's output is f32 with all factors 1: an exact integer that is converted once, which is what the product of
//! few tokens does with its own.
//!
//! Few tokens read 0.25 bytes a weight each time; here it is 0.25 read, 1 written and 1 read, once. So this pays from about the 17th token on.

#[cfg(test)]
mod tests;

use crate::device::{CudaError, DeviceArray, Gpu, Launch, Module, Result, ptx};
use crate::gemm::{Matrix, Output, Scales, gemm_s8};
use crate::ternary_gemv::{Epilogue, TernaryCode, TernaryMatrix};

static MODULE: Module = ptx!("kernel.ptx");

const THREADS: usize = 256;
/// Blocks of packed weights of a block of threads.
const AT_ONCE: usize = THREADS / 32;

/// Memory for [`ternary_gemm`].
#[derive(Clone, Debug)]
pub struct Opened {
    /// The weights of a matrix as bytes, at least [`TernaryMatrix::opened`] of them.
    pub weights: DeviceArray<i8>,
    /// Sums of all tokens, at least [`TernaryMatrix::sums`] for each; what is left of it makes short products faster.
    pub sums: DeviceArray<f32>,
}

/// The product of `matrix` with the bytes `xq`, `[tokens, stride]` ([`ternary_gemv`](crate::ternary_gemv::ternary_gemv)), and their scales `s`, `[tokens]`, for any number of tokens up to 65,535.
/// What the epilogue writes is `[tokens, matrix.rows()]`. Values of `xq` beyond the matrix's columns do not count.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not agree, or an epilogue that does not fit the matrix.
pub fn ternary_gemm(
    gpu: &Gpu,
    matrix: &TernaryMatrix,
    xq: &DeviceArray<i8>,
    scales: &DeviceArray<f32>,
    epilogue: Epilogue<'_>,
    opened: &Opened,
) -> Result<()> {
    const OP: &str = "ternary_gemm";
    let (tokens, padded) = (scales.len(), matrix.padded_cols());
    matrix.check(OP, tokens, 65_535, &epilogue)?;
    let stride = matrix.stride(OP, tokens, xq)?;
    let sums = tokens * matrix.sums();
    if opened.sums.len() < sums {
        let room = format!("room for {sums} sums");
        return Err(CudaError::shape(OP, room, opened.sums.len()));
    }
    let weights = open(gpu, matrix, &opened.weights)?;
    let (out, workspace) = (opened.sums.slice(..sums), opened.sums.slice(sums..));
    let output = Output::F32 {
        matrix: Matrix {
            array: &out,
            stride: matrix.sums(),
        },
        accumulate: false,
    };
    let bytes = |array, stride| Matrix { array, stride };
    let sizes = (tokens, matrix.sums(), matrix.cols());
    gemm_s8(
        gpu,
        sizes,
        bytes(xq, stride),
        bytes(&weights, padded),
        output,
        Scales::NONE,
        &workspace,
    )?;
    let (kind, to, factor) = epilogue.parts();
    let units = if matrix.paired { matrix.tiles / 2 } else { matrix.tiles };
    let grid = [(2 * units).div_ceil(THREADS) as u32, tokens as u32, 1];
    let name = match matrix.code {
        TernaryCode::Int8 => "finish_sums_i8",
        _ => "finish_sums",
    };
    let launch = Launch::new(gpu, MODULE.kernel(name), grid, THREADS as u32)
        .array(&out)
        .array(&matrix.descriptors)
        .u32(matrix.tiles)
        .array(scales)
        .u32(kind)
        .f32(factor)
        .array(to)
        .u32(matrix.rows());
    // SAFETY: the kernel's parameters in order; `check` has compared the output, there are sums of every tile of every token, and the descriptors, made for
    // this matrix, name rows of it.
    unsafe { launch.run() }
}

/// The weights of `matrix` as bytes, `[matrix.sums(), matrix.padded_cols()]`, rows in the order of the tiles: at the beginning of `to`, which is returned. Rows that
/// fill up a tile and columns beyond the matrix's hold anything.
pub(crate) fn open(gpu: &Gpu, matrix: &TernaryMatrix, to: &DeviceArray<i8>) -> Result<DeviceArray<i8>> {
    if to.len() < matrix.opened() {
        let room = format!("room for {} weights", matrix.opened());
        return Err(CudaError::shape("ternary_gemm", room, to.len()));
    }
    let to = to.slice(..matrix.opened());
    let name = match matrix.code {
        TernaryCode::B1 => "unpack_b1",
        TernaryCode::T2 => "unpack_t2",
        TernaryCode::T5 => "unpack_t3",
        TernaryCode::Int8 => "unpack_i8",
    };
    let blocks = matrix.tiles * matrix.k_blocks();
    let grid = [blocks.div_ceil(AT_ONCE) as u32, 1, 1];
    let launch = Launch::new(gpu, MODULE.kernel(name), grid, THREADS as u32)
        .array(&matrix.weights)
        .u32(blocks)
        .u32(matrix.k_blocks())
        .array(&to);
    // SAFETY: the kernel's parameters in order; the matrix has so many blocks, each of which becomes `code.block()` bytes of each of 8 rows of `to`.
    unsafe { launch.run()? };
    Ok(to)
}
