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
//! as fit the caller's workspace, whose partial sums `[split, m, n]` a second kernel adds in the order of the pieces. How many there are depends on sizes and the GPU
//! alone, never on timing: equal inputs give equal bytes. Pieces of int8 products are i32 in the workspace, so their sums are exact too.
//!
//! **Cost**: 2·m·n·k operations; at best A, B and the output once through memory.

mod dispatch;

use half::bf16;

use crate::device::{DeviceArray, Gpu, Result};

/// How the operands lie; the first letter is A's, the second B's, T standing for transposed in the terms of BLAS on row-major matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A `[m, k]`, B `[n, k]`.
    NT,
    /// A `[m, k]`, B `[k, n]`.
    NN,
    /// A `[k, m]`, B `[k, n]`.
    TN,
}

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

/// `out` = A·B in bf16 with f32 sums, `(m, n, k)` being its rows, its columns and the length of its sums. An empty workspace means that sums are not cut;
/// [`workspace_len`] says how much of it is of use.
///
/// # Errors
/// A matrix that does not fit its array, rows at no multiple of 16 bytes, or factors of another length.
pub fn gemm_bf16(
    gpu: &Gpu,
    layout: Layout,
    (m, n, k): (usize, usize, usize),
    a: Matrix<bf16>,
    b: Matrix<bf16>,
    out: Output,
    scales: Scales,
    workspace: &DeviceArray<f32>,
) -> Result<()> {
    dispatch::gemm_bf16(gpu, layout, (m, n, k), a, b, out, scales, workspace)
}

/// `out` = A·Bᵀ in int8 with i32 sums, A `[m, k]` and B `[n, k]`; else as [`gemm_bf16`]. Sums are exact below 2³¹, and are converted to f32 once.
///
/// # Errors
/// As [`gemm_bf16`].
pub fn gemm_s8(
    gpu: &Gpu,
    (m, n, k): (usize, usize, usize),
    a: Matrix<i8>,
    b: Matrix<i8>,
    out: Output,
    scales: Scales,
    workspace: &DeviceArray<f32>,
) -> Result<()> {
    dispatch::gemm_s8(gpu, (m, n, k), a, b, out, scales, workspace)
}

/// Elements of workspace with which the bf16 product (`int8`: the int8 product) of these sizes runs as fast as it can; 0 where cutting its sums does not pay.
pub fn workspace_len(gpu: &Gpu, layout: Layout, (m, n, k): (usize, usize, usize), int8: bool) -> usize {
    dispatch::workspace_len(gpu, layout, (m, n, k), int8)
}
