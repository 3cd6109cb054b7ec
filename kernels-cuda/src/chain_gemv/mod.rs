//! `y[t, r] = Σ_k w[r, k] · x[t, k]` where floats are added, so that the sums have an order: matrices of floats, of bytes that meet floats, and of int4, with the bits of
//! `onebit_kernels_cpu::{dense_gemv, int4_gemv}`.
//!
//! | weights | activations | lane | what a lane's chain adds |
//! |---|---|---|---|
//! | f32, f16, bf16 | f32 | `k mod 16` | `fma(w, x, acc)` in the order of `k` |
//! | bytes, a step a row | f32 | `k mod 16` | `fma(q, x, acc)`; the row's sum is multiplied by its step at the end |
//! | int4, an f16 step a group of 32 | bytes | `4·(g mod 4) + s` of group `g`, columns `4s..4s+4` and `16+4s..16+4s+4` | `fma(Σ q·xq, step · step of x, acc)` over `g, g+4, …` |
//!
//! and the sixteen lanes are folded 8-4-2-1. An int4 linear's bytes are those of the per-token quantiser, whose step is `1 / s`; an int4 head's have a step for each group of 32
//! ([`quantize_groups`]).
//!
//! What can go side by side is rows and lanes: a warp has eight rows, four lanes a thread (`layout.rs`, `kernel.cu`). One token, or eight that read the weights once. Longer chunks go
//! eight by eight, the eights that need the same weights at the same time.
//!
//! **Cost**: the matrix once for eight tokens from the second cache level, and nearly once for all of them from memory; a row of 2,560 f16 weights is 160 steps of 4 multiply-adds a token in 4 threads. On
//! an H200 the multiply-adds of 512 tokens and 13,824 × 2,560 weights take 0.6 ms at best; one token is the time of memory, 17 µs for f16.

mod layout;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use layout::{ChainKind, ChainMatrix, ChainPart, ChainValues};

use crate::device::{CudaError, DeviceArray, Gpu, Launch, Module, Result, ptx};
use crate::ternary_gemv::{Epilogue, need};

static MODULE: Module = ptx!("kernel.ptx");
static OVERLAPPED: Module = ptx!("overlapped.ptx");

const WARPS: usize = 8;
/// Bytes of a block's rings.
const RINGS: usize = WARPS * 16 * 512;
/// Columns that share a step of int4.
const GROUP: usize = 32;
/// What a chunk of columns is a multiple of.
const CHUNK: usize = 1024;
/// Bytes of activations in shared memory: of one token, and of eight, with which a multiprocessor has two blocks.
const SINGLE_BYTES: usize = 96 << 10;
const SEVERAL_BYTES: usize = 32 << 10;
/// Tokens that read the weights once.
const SEVERAL: usize = 8;

/// The activations of a product.
#[derive(Clone, Copy, Debug)]
pub enum ChainInput<'a> {
    /// `[tokens, cols]`, for floats and bytes.
    Floats(&'a DeviceArray<f32>),
    /// For int4, as a linear has them: bytes `[tokens, stride]`, 0 beyond the columns, `stride` a multiple of 16 and at least the columns filled up to a multiple of 128, and scales `s`, `[tokens]`.
    Bytes(&'a DeviceArray<i8>, &'a DeviceArray<f32>),
    /// For int4, as a head has them: such bytes, and a step for each group of 32 of the filled-up columns, `[tokens, groups]`.
    Groups(&'a DeviceArray<i8>, &'a DeviceArray<f32>),
}

/// The groups of 32 of `cols` columns filled up to whole blocks of 128.
pub const fn groups(cols: usize) -> usize {
    cols.div_ceil(128) * 4
}

/// Columns that lie in shared memory at a time.
fn span(cols: usize, bytes_per_column: usize, budget: usize) -> usize {
    let whole = cols.next_multiple_of(128);
    match whole * bytes_per_column <= budget {
        true => whole,
        false => budget / bytes_per_column / CHUNK * CHUNK,
    }
}

/// The product of `matrix` with `tokens` tokens of `x`, any number; what the epilogue writes is `[tokens, matrix.rows()]`.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not agree, activations of the other type, or an epilogue of pairs.
pub fn chain_gemv(
    gpu: &Gpu,
    matrix: &ChainMatrix,
    x: ChainInput<'_>,
    tokens: usize,
    epilogue: Epilogue<'_>,
) -> Result<()> {
    const OP: &str = "chain_gemv";
    if tokens == 0 || matches!(epilogue, Epilogue::GatedRelu2(_) | Epilogue::GatedSilu(_)) {
        return Err(CudaError::shape(
            OP,
            "tokens, and no pairs",
            format!("{tokens}, {epilogue:?}"),
        ));
    }
    let (kind, out, factor) = epilogue.parts();
    need(OP, "output", tokens * matrix.rows, out.len())?;
    let (cols, groups) = (matrix.cols, groups(matrix.cols));
    let stride = match x {
        ChainInput::Floats(x) => {
            need(OP, "x", tokens * cols, x.len())?;
            0
        }
        ChainInput::Bytes(xq, scales) => {
            need(OP, "scales", tokens, scales.len())?;
            xq.len() / tokens
        }
        ChainInput::Groups(xq, steps) => {
            need(OP, "steps", tokens * groups, steps.len())?;
            xq.len() / tokens
        }
    };
    let floats = matches!(x, ChainInput::Floats(_));
    let bytes = match x {
        ChainInput::Floats(_) => 0,
        ChainInput::Bytes(xq, _) | ChainInput::Groups(xq, _) => xq.len(),
    };
    let whole = floats || (stride >= GROUP * groups && stride.is_multiple_of(16) && stride * tokens == bytes);
    if floats != matrix.kind.takes_floats() || !whole {
        return Err(CudaError::shape(
            OP,
            format!("activations of {cols} columns for {:?}", matrix.kind),
            format!("{x:?}"),
        ));
    }
    let (name, at_once, budget) = match (matrix.kind, tokens) {
        (ChainKind::F32, 1) => ("chain_gemv_f32_1", 1, SINGLE_BYTES),
        (ChainKind::F16, 1) => ("chain_gemv_f16_1", 1, SINGLE_BYTES),
        (ChainKind::Bf16, 1) => ("chain_gemv_bf16_1", 1, SINGLE_BYTES),
        (ChainKind::Int8, 1) => ("chain_gemv_int8_1", 1, SINGLE_BYTES),
        (ChainKind::Int4, 1) => ("chain_gemv_int4_1", 1, SINGLE_BYTES),
        (ChainKind::F32, _) => ("chain_gemv_f32_8", SEVERAL, SEVERAL_BYTES),
        (ChainKind::F16, _) => ("chain_gemv_f16_8", SEVERAL, SEVERAL_BYTES),
        (ChainKind::Bf16, _) => ("chain_gemv_bf16_8", SEVERAL, SEVERAL_BYTES),
        (ChainKind::Int8, _) => ("chain_gemv_int8_8", SEVERAL, SEVERAL_BYTES),
        (ChainKind::Int4, _) => ("chain_gemv_int4_8", SEVERAL, SEVERAL_BYTES),
    };
    // Bytes of eight columns: of int4 those and a quarter of a step.
    let eight = at_once * if floats { 32 } else { 9 };
    let span = span(cols, eight.div_ceil(8), budget);
    let eights = tokens.div_ceil(at_once);
    // A block's start and end are shared by all of its tiles; where there are many tokens, those of the same weights should be at work together.
    let shares = match eights {
        1 | 2 => matrix.tiles.min(gpu.properties().multiprocessors as usize),
        _ => matrix.tiles.div_ceil(WARPS),
    };
    let launch = Launch::chained(gpu, [&MODULE, &OVERLAPPED], name, [eights, shares], 32 * WARPS as u32)
        .shared(RINGS + span * eight / 8)
        .array(&matrix.weights)
        .array(&matrix.descriptors)
        .optional(matrix.steps.as_ref())
        .u32(matrix.tiles)
        .u32(cols)
        .u32(span);
    let launch = match x {
        ChainInput::Floats(x) => launch.array(x).u32(0).u64(0).u32(0),
        ChainInput::Bytes(xq, scales) => launch.array(xq).u32(stride).array(scales).u32(0),
        ChainInput::Groups(xq, steps) => launch.array(xq).u32(stride).array(steps).u32(groups),
    };
    let launch = launch.u32(tokens).u32(kind).f32(factor).array(out).u32(matrix.rows);
    // SAFETY: the kernel's parameters in order; `layout.rs` made weights, descriptors and steps for these tiles and output rows, the lengths of activations and output were compared above, and
    // shared memory holds the rings and `span` columns of the tokens of a block.
    unsafe { launch.run() }
}

/// The input of an int4 head: each group of 32 columns of each token of `x`, `[tokens, cols]`, quantised by its own largest magnitude (`onebit_kernels_cpu::int4_gemv::quantize_input`) to
/// bytes `xq`, `[tokens, 32 groups]`, 0 beyond the columns, and `steps`, `[tokens, groups]`, where `groups` is [`groups`]`(cols)`.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not agree.
pub fn quantize_groups(
    gpu: &Gpu,
    x: &DeviceArray<f32>,
    cols: usize,
    xq: &DeviceArray<i8>,
    steps: &DeviceArray<f32>,
) -> Result<()> {
    const OP: &str = "quantize_groups";
    let (tokens, groups) = (x.len().checked_div(cols).unwrap_or(0), groups(cols));
    need(OP, "x", tokens * cols, x.len())?;
    need(OP, "xq", tokens * groups * GROUP, xq.len())?;
    need(OP, "steps", tokens * groups, steps.len())?;
    let launch = Launch::chained(gpu, [&MODULE, &OVERLAPPED], OP, [tokens, 1], 32 * WARPS as u32)
        .array(x)
        .u32(cols)
        .u32(groups)
        .array(xq)
        .array(steps);
    // SAFETY: the kernel's parameters in order; lengths were compared above.
    unsafe { launch.run() }
}
