//! Products of matrices on tensor cores: bf16 with f32 sums, int8 with exact i32 sums.
//!
//! ```text
//! out[m, n] = alpha · rows[m] · cols[n] · Σ_k A·B   (+ out[m, n], if that is asked for)
//!
//! layout   A         B         what for
//! NT       [m, k]    [n, k]    forward: activations [tokens, in] by weights [out, in]
//! NN       [m, k]    [k, n]    gradient of the input: dY [tokens, out] by weights [out, in]
//! TN       [k, m]    [k, n]    gradient of the weights: dY [tokens, out] by X [tokens, in], summed over tokens
//! ```
//!
//! bf16 has all three layouts, int8 has NT. Every matrix is row-major with its own distance between rows (a multiple of 16 bytes), so that a part of the columns of a
//! wider matrix is a matrix too; `m`, `n` and `k` are whatever they are.
//!
//! **Two paths.** `wgmma` (Hopper: bulk tensor copies and warpgroup products) and `mma` (every GPU from compute capability 8.0 on: asynchronous copies and the
//! products of a warp). Which one runs is decided here; `ONEBIT_CUDA_PATH=mma|wgmma` in the environment forces one, for tests and reports of faults.
//!
//! **Long sums, small results** (`k` large, `m·n` small: gradients of weights) would leave most of the GPU idle. They are cut along `k` into as many pieces as pay and
//! as fit the caller's workspace, whose partial sums `[splits, m, n]` (m filled up to whole 128s, n to whole fours) a second kernel adds in the order of the pieces. How many there are depends on sizes and the GPU
//! alone, never on timing: equal inputs give equal bytes. Pieces of int8 products are i32 in the workspace, so their sums are exact too.
//!
//! **Cost**: 2·m·n·k operations; at best A, B and the output once through memory.

#[cfg(test)]
mod benches;
mod dispatch;
mod mma;
mod problem;
mod reduce;
#[cfg(test)]
mod tests;
mod wgmma;

use half::bf16;

pub use problem::Layout;
use problem::{Batch, Operands, Problem};

use crate::device::{DeviceArray, Gpu, Result};

/// A row-major matrix in device memory: element (row, col) is `array[row · stride + col]`. Its first element is at a multiple of 16 bytes, and so is every row's.
#[derive(Debug)]
pub struct Matrix<'a, T> {
    /// At least `(rows − 1) · stride + cols` elements.
    pub array: &'a DeviceArray<T>,
    /// Elements from one row to the next: at least a row's length, and a multiple of 16 bytes.
    pub stride: usize,
}

impl<T> Clone for Matrix<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Matrix<'_, T> {}

/// Where a product `[m, n]` goes. What lies between the end of a row and the next is left as it is.
#[derive(Clone, Copy, Debug)]
pub enum Output<'a> {
    /// Rounded to bf16, ties to even.
    Bf16(Matrix<'a, bf16>),
    /// As f32.
    F32 {
        /// The matrix.
        matrix: Matrix<'a, f32>,
        /// Whether the product is added to what is there instead of replacing it.
        accumulate: bool,
    },
}

/// Factors of a product.
#[derive(Clone, Copy, Debug)]
pub struct Scales<'a> {
    /// One per row, `[m]`; absent: 1.
    pub rows: Option<&'a DeviceArray<f32>>,
    /// One per column, `[n]`; absent: 1.
    pub cols: Option<&'a DeviceArray<f32>>,
    /// One for all, fixed when the launch is recorded.
    pub alpha: f32,
}

impl Scales<'_> {
    /// Every factor 1.
    pub const NONE: Scales<'static> = Scales {
        rows: None,
        cols: None,
        alpha: 1.0,
    };
}

/// `out` = A·B in bf16 with f32 sums, `sizes` (m, n, k) being its rows, its columns and the length of its sums. An empty workspace means that sums are not cut;
/// [`workspace_len`] says how much of it is of use.
///
/// # Errors
/// A matrix that does not fit its array, rows at no multiple of 16 bytes, or factors of another length.
pub fn gemm_bf16(
    gpu: &Gpu,
    layout: Layout,
    sizes: (usize, usize, usize),
    a: Matrix<bf16>,
    b: Matrix<bf16>,
    out: Output,
    scales: Scales,
    workspace: &DeviceArray<f32>,
) -> Result<()> {
    let operands = Operands::Bf16 { a: a.array, b: b.array };
    let strides = (a.stride, b.stride);
    dispatch::run(gpu, &problem(layout, sizes, operands, strides, out, scales), workspace)
}

/// Matrices of equal sizes, each `step` elements (a multiple of 16 bytes) behind the one before.
#[derive(Clone, Copy, Debug)]
pub struct Matrices<'a> {
    /// At least `(count − 1) · step` elements, and what the last takes.
    pub array: &'a DeviceArray<bf16>,
    /// Elements from one row to the next, as [`Matrix`] has them.
    pub stride: usize,
    /// Elements from one matrix to the next.
    pub step: usize,
}

/// `count` products as [`gemm_bf16`] makes them, in one launch: for those that are too small to fill a GPU one by one. Results are rounded to bf16 and must not
/// overlap.
///
/// # Errors
/// As [`gemm_bf16`]; results that would overlap.
pub fn gemm_bf16_strided_batched(
    gpu: &Gpu,
    layout: Layout,
    sizes: (usize, usize, usize),
    count: usize,
    a: Matrices,
    b: Matrices,
    out: Matrices,
) -> Result<()> {
    let operands = Operands::Bf16 { a: a.array, b: b.array };
    let to = Output::Bf16(Matrix {
        array: out.array,
        stride: out.stride,
    });
    let single = problem(layout, sizes, operands, (a.stride, b.stride), to, Scales::NONE);
    let batch = Batch {
        count,
        a_step: a.step,
        b_step: b.step,
        c_step: out.step,
    };
    let all = Problem { batch, ..single };
    // Before its memory is taken for what it may not be aligned for.
    all.check()?;
    dispatch::run_batch(gpu, &all, &out.array.slice(..0).cast())
}

/// `out` = A·Bᵀ in int8 with i32 sums, A `[m, k]` and B `[n, k]`; else as [`gemm_bf16`]. Sums are exact below 2³¹, and are converted to f32 once.
///
/// # Errors
/// As [`gemm_bf16`].
pub fn gemm_s8(
    gpu: &Gpu,
    sizes: (usize, usize, usize),
    a: Matrix<i8>,
    b: Matrix<i8>,
    out: Output,
    scales: Scales,
    workspace: &DeviceArray<f32>,
) -> Result<()> {
    let operands = Operands::Int8 { a: a.array, b: b.array };
    let strides = (a.stride, b.stride);
    dispatch::run(
        gpu,
        &problem(Layout::NT, sizes, operands, strides, out, scales),
        workspace,
    )
}

/// Elements of workspace with which the bf16 product (`int8`: the int8 product) of `sizes` (m, n, k) runs as fast as it can; 0 where cutting its sums does not pay.
pub fn workspace_len(gpu: &Gpu, layout: Layout, sizes: (usize, usize, usize), int8: bool) -> usize {
    dispatch::workspace_len(gpu, layout, sizes, int8)
}

fn problem<'a>(
    layout: Layout,
    (m, n, k): (usize, usize, usize),
    operands: Operands<'a>,
    (a_stride, b_stride): (usize, usize),
    out: Output<'a>,
    scales: Scales<'a>,
) -> Problem<'a> {
    let (output, c_stride) = match out {
        Output::Bf16(c) => (problem::Output::Bf16(c.array), c.stride),
        Output::F32 {
            matrix: c,
            accumulate: false,
        } => (problem::Output::F32(c.array), c.stride),
        Output::F32 {
            matrix: c,
            accumulate: true,
        } => (problem::Output::Accumulate(c.array), c.stride),
    };
    Problem {
        layout,
        m,
        n,
        k,
        operands,
        a_stride,
        b_stride,
        output,
        c_stride,
        row_scale: scales.rows,
        col_scale: scales.cols,
        alpha: scales.alpha,
        batch: Batch::ONE,
    }
}
