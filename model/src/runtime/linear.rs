//! Products of the forward pass: several matrices over one input, cut by output row.
//!
//! The matrices are taken as one stack (q over k over v, gate over up), so that a phase forks once:
//!
//! ```text
//! stack rows   0 ……………… q ……………… | … k … | … v …            pieces cut anywhere at multiples of 4 rows, or of 64 for many tokens
//! ```
//!
//! A piece is computed for all tokens by one thread, which opens its packed weights once, and stays where it is ([`Product`]). Rows are always
//! computed by the same chain of operations, so neither the cut nor the number of tokens changes a bit.

use onebit_kernels_cpu::int4_gemv::{self, InputBlock};
use onebit_kernels_cpu::ternary::{Layout, padded_cols};
use onebit_kernels_cpu::{Isa, dense_gemv, int8_gemm, int8_gemv, quantize, t2, ternary_gemm, ternary_gemv};

use alloc::vec::Vec;

use half::f16;

use super::columns;
use super::executor::{Executor, Shares};
use super::floats::{FloatMatrix, FloatValues};
use super::product::{MOST_PIECES, Product, segments};
use super::weights::Linear;

/// Up to this many tokens packed weights are read in place; from there on they are opened into a panel.
pub(super) const FEW_TOKENS: usize = 3;
/// Rows of a panel.
const PANEL_ROWS: usize = 64;
/// Least number of integer sums that a piece holds: for one token, the rows of a call of the GEMV.
const LEAST_SUMS: usize = 256;
/// Most matrices over one input.
pub(super) const MAX_STACK: usize = 3;

/// What one thread needs beside its piece of the output.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[tokens, rows of a panel]`.
    pub sums: Vec<i32>,
    /// `[tokens]`: what the sums of each are multiplied by.
    pub factors: Vec<f32>,
    /// An opened panel of packed weights.
    pub panel: Vec<u8>,
    /// The parts of attention that are being merged.
    pub scores: Vec<f32>,
    /// Rows of one token that become the input of `down_proj`, `[3, intermediate_size]`.
    pub row: Vec<f32>,
    /// The sums over the columns that the thread took, for each row; empty if it took none.
    pub columns: Vec<i32>,
    /// Bytes of weights that were not read, because what they are multiplied by is 0.
    pub saved: usize,
}

/// Length of [`Scratch::sums`] for up to `tokens` tokens.
pub(super) fn sums_len(tokens: usize) -> usize {
    (PANEL_ROWS * tokens).max(LEAST_SUMS)
}

/// The input of a product, `[tokens, cols]`.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub tokens: usize,
    pub float: &'a [f32],
    /// `[tokens, padded_cols]`; read by quantised matrices only.
    pub bytes: &'a [i8],
    /// `[tokens]`
    pub scales: &'a [f32],
    /// `[tokens, blocks]`; read by int4 matrices only.
    pub blocks: &'a [InputBlock],
}

impl<'a> Input<'a> {
    /// An input that is not quantised.
    pub fn of_floats(tokens: usize, float: &'a [f32]) -> Self {
        Self {
            tokens,
            float,
            bytes: &[],
            scales: &[],
            blocks: &[],
        }
    }

    /// `count` tokens from `first` on.
    pub fn part(self, first: usize, count: usize) -> Self {
        let cut = |len: usize| {
            let each = len / self.tokens;
            first * each..(first + count) * each
        };
        Self {
            tokens: count,
            float: &self.float[cut(self.float.len())],
            bytes: &self.bytes[cut(self.bytes.len())],
            scales: &self.scales[cut(self.scales.len())],
            blocks: &self.blocks[cut(self.blocks.len())],
        }
    }
}

/// A matrix of a stack.
#[derive(Clone, Copy)]
pub(super) enum Matrix<'a> {
    Linear(&'a Linear),
    Float(&'a FloatMatrix),
}

impl Matrix<'_> {
    fn rows(&self) -> usize {
        match self {
            Matrix::Linear(linear) => linear.rows(),
            Matrix::Float(matrix) => matrix.rows,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Matrix::Linear(linear) => linear.bytes(),
            Matrix::Float(matrix) => matrix.values.bytes(),
        }
    }

    /// Rows `lo..hi` of the product into `out`, `[tokens, hi - lo]`.
    fn multiply(&self, isa: Isa, lo: usize, hi: usize, x: Input<'_>, out: &mut [f32], scratch: &mut Scratch) {
        match *self {
            Matrix::Linear(Linear::Ternary {
                cols,
                layout,
                packed,
                scale,
                ..
            }) => {
                ternary(isa, *layout, packed, *cols, *scale, lo, hi, x, out, scratch);
            }
            Matrix::Linear(Linear::Int8 {
                cols, values, steps, ..
            }) => {
                integers(isa, values, *cols, steps, lo, hi, x, out, scratch);
            }
            Matrix::Linear(Linear::Int4 { cols, codes, steps, .. }) => int4(isa, codes, steps, *cols, lo, hi, x, out),
            Matrix::Linear(Linear::Float(matrix)) | Matrix::Float(matrix) => {
                let at = lo * matrix.cols..hi * matrix.cols;
                match &matrix.values {
                    FloatValues::F32(w) => dense_gemv::gemv_f32(isa, &w[at], x.float, x.tokens, out),
                    FloatValues::F16(w) => dense_gemv::gemv_f16(isa, &w[at], x.float, x.tokens, out),
                    FloatValues::Bf16(w) => dense_gemv::gemv_bf16(isa, &w[at], x.float, x.tokens, out),
                    FloatValues::Int8 { values, steps } => {
                        dense_gemv::gemv_i8(isa, &values[at], &steps[lo..hi], x.float, x.tokens, out);
                    }
                    FloatValues::Int4 { codes, steps, cols } => int4(isa, codes, steps, *cols, lo, hi, x, out),
                    FloatValues::Trits {
                        layout,
                        packed,
                        scale,
                        cols,
                        ..
                    } => ternary(isa, *layout, packed, *cols, *scale, lo, hi, x, out, scratch),
                }
            }
        }
    }
}

/// Rows whose sums fit in `scratch`, whole panels where possible.
fn rows_at_once(sums: usize, tokens: usize) -> usize {
    (sums / tokens) / PANEL_ROWS * PANEL_ROWS
}

fn ternary(
    isa: Isa,
    layout: Layout,
    packed: &[u8],
    cols: usize,
    gamma: f32,
    lo: usize,
    hi: usize,
    x: Input<'_>,
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    let (width, group, stride) = (hi - lo, layout.group_bytes(cols), padded_cols(cols));
    if lo.is_multiple_of(t2::GROUP_ROWS) && x.tokens > FEW_TOKENS {
        let w = &packed[lo / t2::GROUP_ROWS * group..hi.div_ceil(t2::GROUP_ROWS) * group];
        let factors = &mut scratch.factors[..x.tokens];
        for (factor, s) in factors.iter_mut().zip(x.scales) {
            *factor = gamma / s;
        }
        ternary_gemm::ternary_gemm_scaled(isa, layout, w, width, cols, x.bytes, factors, out, &mut scratch.panel);
        return;
    }
    let step = rows_at_once(scratch.sums.len(), x.tokens);
    // Packed rows come in groups of four, so a cut inside a group computes its first rows again.
    let mut start = lo / t2::GROUP_ROWS * t2::GROUP_ROWS;
    while start < hi {
        let end = (start + step).min(hi);
        let rows = end - start;
        let w = &packed[start / t2::GROUP_ROWS * group..end.div_ceil(t2::GROUP_ROWS) * group];
        let sums = &mut scratch.sums[..rows * x.tokens];
        if x.tokens <= FEW_TOKENS {
            for (xq, sums) in x.bytes.chunks_exact(stride).zip(sums.chunks_exact_mut(rows)) {
                ternary_gemv::ternary_gemv(isa, layout, w, cols, xq, sums);
            }
        } else {
            ternary_gemm::ternary_gemm(isa, layout, w, rows, cols, x.bytes, x.tokens, sums, &mut scratch.panel);
        }
        let first = start.max(lo);
        for ((sums, s), out) in sums.chunks_exact(rows).zip(x.scales).zip(out.chunks_exact_mut(width)) {
            let sums = &sums[first - start..];
            quantize::scale_sums(isa, sums, gamma / s, &mut out[first - lo..][..sums.len()]);
        }
        start = end;
    }
}

fn int4(isa: Isa, codes: &[u8], steps: &[f16], cols: usize, lo: usize, hi: usize, x: Input<'_>, out: &mut [f32]) {
    let (bytes, groups) = (int4_gemv::row_bytes(cols), int4_gemv::row_steps(cols));
    let (codes, steps) = (&codes[lo * bytes..hi * bytes], &steps[lo * groups..hi * groups]);
    int4_gemv::gemv(isa, codes, steps, x.blocks, x.tokens, out);
}

fn integers(
    isa: Isa,
    values: &[i8],
    cols: usize,
    steps: &[f32],
    lo: usize,
    hi: usize,
    x: Input<'_>,
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    let (width, stride, tokens) = (hi - lo, padded_cols(cols), x.tokens);
    let mut start = lo;
    while start < hi {
        let end = (start + PANEL_ROWS).min(hi);
        let (rows, w) = (end - start, &values[start * cols..end * cols]);
        let sums = &mut scratch.sums[..rows * tokens];
        if tokens > FEW_TOKENS {
            int8_gemm::int8_gemm(isa, w, rows, cols, x.bytes, tokens, sums, &mut scratch.panel);
        } else {
            // The rows meet every token while they are in the cache.
            for (xq, sums) in x.bytes.chunks_exact(stride).zip(sums.chunks_exact_mut(rows)) {
                int8_gemv::int8_gemv(isa, w, cols, &xq[..cols], sums);
            }
        }
        for ((sums, s), out) in sums.chunks_exact(rows).zip(x.scales).zip(out.chunks_exact_mut(width)) {
            for ((y, &sum), step) in out[start - lo..].iter_mut().zip(sums).zip(&steps[start..]) {
                *y = sum as f32 * (step / s);
            }
        }
        start = end;
    }
}

/// `x · stackᵀ`, into `out`, which is as long as all results together.
pub(super) fn multiply<'a, E: Executor>(
    exec: &E,
    isa: Isa,
    stack: &[Matrix<'_>],
    x: Input<'_>,
    out: &'a mut [f32],
    scratch: &mut [Scratch],
) -> Product<'a> {
    let tokens = x.tokens;
    let mut rows = [0; MAX_STACK];
    for (rows, matrix) in rows.iter_mut().zip(stack) {
        *rows = matrix.rows();
    }
    if let [Matrix::Linear(linear)] = stack
        && let Some(read) = columns::multiply(exec, isa, linear, x, out, scratch)
    {
        if let [scratch, ..] = scratch {
            scratch.saved += linear.bytes().saturating_sub(read);
        }
        return Product::new(out, tokens, rows, 1, Shares::even(1));
    }
    let bytes: usize = stack.iter().map(Matrix::bytes).sum();
    let mut shares = exec.shares(bytes.saturating_mul(tokens));
    if tokens > 1 {
        shares.pieces = match exec.threads() {
            // What nobody shares lies as it is laid out.
            1 => 1,
            _ => shares.pieces.min(MOST_PIECES),
        };
    }
    let unit = if tokens > FEW_TOKENS {
        PANEL_ROWS
    } else {
        t2::GROUP_ROWS
    };
    exec.share(shares, &mut *out, unit * tokens, scratch, |first, out, scratch| {
        let lo = first / tokens;
        let mut rest = out;
        segments(&rows, lo, lo + rest.len() / tokens, |i, a, b| {
            let (block, after) = core::mem::take(&mut rest).split_at_mut((b - a) * tokens);
            stack[i].multiply(isa, a, b, x, block, scratch);
            rest = after;
        });
    });
    Product::new(out, tokens, rows, unit, shares)
}
