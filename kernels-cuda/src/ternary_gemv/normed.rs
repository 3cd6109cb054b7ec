//! Products of floats, which RMSNorm and the quantiser make bytes of first: in the kernel of the product for few tokens, in one of their own for many.

use super::{Epilogue, MODULE, OVERLAPPED};
use super::{Form, RESERVED, Shares, TILE, TernaryCode, TernaryMatrix, need, product, token_stride};
use crate::device::{CudaError, DeviceArray, Gpu, Launch, Module, Result, ptx};

static SINGLE: Module = ptx!("single.ptx");
static SINGLE_OVERLAPPED: Module = ptx!("single_overlapped.ptx");

/// Most tokens of [`normed_ternary_gemv`].
pub const MOST_NORMED: usize = 4;
/// Parts of attention that the product behind it puts together (`single.cu`).
pub(crate) const MOST_PARTS: usize = 8;
/// Floats of a part beside its `head_dim`.
pub(crate) const PART_MORE: usize = 4;
/// Columns of a single token that its 256 threads hold in registers, three fours or seven each.
const MOST_NARROW: usize = 3 * 4 * 256;
const MOST_WIDE: usize = 7 * 4 * 256;
/// The same behind attention.
const MOST_ATTENDED: usize = 4 * 4 * 256;

/// The form of a product of floats, `single` for one token that a block's threads can hold in registers; behind attention if `attended`.
fn form_of(code: TernaryCode, single: bool, cols: usize, attended: bool) -> Form {
    let name = match (code, single) {
        (TernaryCode::B1, true) if attended => "attended_single_b1",
        (TernaryCode::T2, true) if attended => "attended_single_t2",
        (TernaryCode::T5, true) if attended => "attended_single_t3",
        (TernaryCode::Int8, true) if attended => "attended_single_i8",
        (TernaryCode::B1, true) if cols <= MOST_NARROW => "normed_single_b1",
        (TernaryCode::T2, true) if cols <= MOST_NARROW => "normed_single_t2",
        (TernaryCode::T5, true) if cols <= MOST_NARROW => "normed_single_t3",
        (TernaryCode::Int8, true) if cols <= MOST_NARROW => "normed_single_i8",
        (TernaryCode::B1, true) => "normed_single_b1_wide",
        (TernaryCode::T2, true) => "normed_single_t2_wide",
        (TernaryCode::T5, true) => "normed_single_t3_wide",
        (TernaryCode::Int8, true) => "normed_single_i8_wide",
        (TernaryCode::B1, false) => "normed_gemv_b1",
        (TernaryCode::T2, false) => "normed_gemv_t2",
        (TernaryCode::T5, false) => "normed_gemv_t3",
        (TernaryCode::Int8, false) => "normed_gemv_i8",
    };
    Form {
        name,
        warps: 8,
        // Of one token so many that the longest run of 2B-4T's gate and up on 132 multiprocessors is fetched whole.
        slots: if single { 9 } else { 8 },
    }
}

/// Whether one token of `cols` values stays in the registers of a block.
fn single(cols: usize, tokens: usize) -> bool {
    tokens == 1 && cols.is_multiple_of(4) && cols <= MOST_WIDE
}

/// Bytes of shared memory for `tokens` tokens of `cols` values and a block's share of `most` tiles. A single token's bytes take the place of its floats.
pub(super) fn normed_bytes(code: TernaryCode, cols: usize, most: usize, tokens: usize) -> usize {
    let padded = cols.next_multiple_of(code.block());
    let single = single(cols, tokens);
    let values = match single {
        true => padded.max(4 * cols),
        false => tokens * (4 * cols.next_multiple_of(4) + token_stride(padded)),
    };
    form_of(code, single, cols, false).rings() + values + most * (code.tile_info() + 4 * TILE * tokens)
}

/// Whether [`normed_ternary_gemv`] has a form for so many tokens: at most [`MOST_NORMED`], all of which fit in shared memory. What does not is for [`norm_quantize`] and
/// [`ternary_gemv`](super::ternary_gemv).
pub fn norms_itself(gpu: &Gpu, matrix: &TernaryMatrix, tokens: usize) -> bool {
    let most = Shares::of(gpu, matrix).most();
    let room = gpu.properties().shared_memory as usize - RESERVED;
    tokens <= MOST_NORMED && normed_bytes(matrix.code, matrix.cols, most, tokens) <= room
}

/// The product of `matrix` with `x`, `[tokens, matrix.cols()]`, 1 to [`MOST_NORMED`] tokens: RMSNorm with weights `norm`, `[matrix.cols()]`, unless
/// there are none, then the quantiser, then the product.
///
/// # Errors
/// As [`ternary_gemv`](super::ternary_gemv); tokens that do not fit ([`norms_itself`]).
pub fn normed_ternary_gemv(
    gpu: &Gpu,
    matrix: &TernaryMatrix,
    x: &DeviceArray<f32>,
    norm: Option<&DeviceArray<f32>>,
    eps: f32,
    epilogue: Epilogue<'_>,
) -> Result<()> {
    normed(gpu, matrix, x, norm, eps, epilogue, None)
}

/// Where attention of one token leaves what belongs to its blocks of positions, for [`attended_ternary_gemv`].
pub(crate) struct Parts<'a> {
    /// `[kv_heads, cache_blocks, group, head_dim + 4]`
    pub parts: &'a DeviceArray<f32>,
    pub head_dim: usize,
    pub group: usize,
    pub cache_blocks: usize,
    /// `[1]`
    pub position: &'a DeviceArray<u32>,
}

/// Whether [`attended_ternary_gemv`] can be: a single token that fits, of heads whose factors fit in the place of their values.
pub(crate) fn takes_parts(gpu: &Gpu, matrix: &TernaryMatrix, head_dim: usize) -> bool {
    const FACTOR: usize = 16;
    let fits = head_dim.is_multiple_of(4) && 4 * head_dim >= FACTOR * MOST_PARTS;
    fits && single(matrix.cols, 1) && matrix.cols <= MOST_ATTENDED && norms_itself(gpu, matrix, 1)
}

/// [`normed_ternary_gemv`] of the token that attention was for, which left up to [`MOST_PARTS`] parts of it at `parts`, or all of it in `x`.
pub(crate) fn attended_ternary_gemv(
    gpu: &Gpu,
    matrix: &TernaryMatrix,
    x: &DeviceArray<f32>,
    norm: Option<&DeviceArray<f32>>,
    eps: f32,
    epilogue: Epilogue<'_>,
    parts: Parts<'_>,
) -> Result<()> {
    const OP: &str = "attended_ternary_gemv";
    need(OP, "x", matrix.cols, x.len())?;
    if !takes_parts(gpu, matrix, parts.head_dim) || !matrix.cols.is_multiple_of(parts.head_dim * parts.group) {
        return Err(CudaError::shape(OP, "one token of whole heads that fits", matrix.cols));
    }
    let size = matrix.cols / parts.head_dim * parts.cache_blocks * (parts.head_dim + PART_MORE);
    if parts.parts.len() < size || parts.position.len() != 1 {
        return Err(CudaError::shape(
            OP,
            format!("{size} floats of parts"),
            parts.parts.len(),
        ));
    }
    normed(gpu, matrix, x, norm, eps, epilogue, Some(parts))
}

fn normed(
    gpu: &Gpu,
    matrix: &TernaryMatrix,
    x: &DeviceArray<f32>,
    norm: Option<&DeviceArray<f32>>,
    eps: f32,
    epilogue: Epilogue<'_>,
    parts: Option<Parts<'_>>,
) -> Result<()> {
    const OP: &str = "normed_ternary_gemv";
    let cols = matrix.cols;
    let tokens = x.len() / cols.max(1);
    matrix.check(OP, tokens, MOST_NORMED, &epilogue)?;
    need(OP, "x", tokens * cols, x.len())?;
    if let Some(norm) = norm {
        need(OP, "norm", cols, norm.len())?;
    }
    let shares = Shares::of(gpu, matrix);
    let most = shares.most();
    let single = single(cols, tokens);
    let form = form_of(matrix.code, single, cols, parts.is_some());
    let bytes = normed_bytes(matrix.code, cols, most, tokens);
    let room = gpu.properties().shared_memory as usize - RESERVED;
    if bytes > room {
        return Err(CudaError::shape(
            OP,
            format!("tokens that fit in {room} bytes of shared memory"),
            bytes,
        ));
    }
    let (kind, out, factor) = epilogue.parts();
    let modules = match single {
        true => [&SINGLE, &SINGLE_OVERLAPPED],
        false => [&MODULE, &OVERLAPPED],
    };
    let launch = product(gpu, modules, &form, matrix, &shares, bytes)
        .array(x)
        .u32(cols)
        .optional(norm)
        .f32(eps);
    let launch = if single { launch } else { launch.u32(tokens) };
    let launch = launch.u32(kind).f32(factor).array(out);
    let launch = match parts {
        _ if !single => launch.u32(matrix.rows),
        None => launch,
        Some(parts) => launch
            .array(parts.parts)
            .u32(parts.head_dim)
            .u32(parts.group)
            .u32(parts.cache_blocks)
            .array(parts.position),
    };
    // SAFETY: the kernel's parameters in order (that of a single token has neither their number nor the length of an output row, and behind attention there is where its parts are);
    // lengths were compared above, and shared memory holds floats, bytes and sums of the largest share.
    unsafe { launch.run() }
}

/// RMSNorm (unless `norm` is none) and the quantiser of each row of `x`, `[tokens, cols]`, for any number of tokens: bytes `[tokens, stride]`, zero beyond
/// `cols`, and scales `s`, `[tokens]`.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not agree, a `stride` that is no multiple of 4, or rows too long for shared memory.
pub fn norm_quantize(
    gpu: &Gpu,
    x: &DeviceArray<f32>,
    cols: usize,
    norm: Option<&DeviceArray<f32>>,
    eps: f32,
    xq: &DeviceArray<i8>,
    scales: &DeviceArray<f32>,
) -> Result<()> {
    norm_rows(gpu, x, cols, norm, eps, Some((xq, scales)), None)
}

/// [`norm_quantize`], of which the normed rows themselves, `[tokens, cols]`, go to `floats`; bytes and scales are made where there is room for them.
///
/// # Errors
/// As [`norm_quantize`].
pub(crate) fn norm_rows(
    gpu: &Gpu,
    x: &DeviceArray<f32>,
    cols: usize,
    norm: Option<&DeviceArray<f32>>,
    eps: f32,
    quantized: Option<(&DeviceArray<i8>, &DeviceArray<f32>)>,
    floats: Option<&DeviceArray<f32>>,
) -> Result<()> {
    const OP: &str = "norm_quantize";
    let tokens = x.len().checked_div(cols).unwrap_or(0);
    need(OP, "x", tokens * cols, x.len())?;
    if let Some(norm) = norm {
        need(OP, "norm", cols, norm.len())?;
    }
    if let Some(floats) = floats {
        need(OP, "normed rows", x.len(), floats.len())?;
    }
    if let Some((_, scales)) = quantized {
        need(OP, "scales", tokens, scales.len())?;
    }
    let bytes = quantized.map_or(tokens * cols.next_multiple_of(4), |(xq, _)| xq.len());
    let stride = bytes.checked_div(tokens).unwrap_or(0);
    let room = gpu.properties().shared_memory as usize - RESERVED;
    if tokens * stride != bytes || stride < cols || !stride.is_multiple_of(4) || 4 * cols > room {
        return Err(CudaError::shape(
            OP,
            format!("rows of xq for {cols} columns, at most {}", room / 4),
            stride,
        ));
    }
    let launch = Launch::chained(gpu, [&MODULE, &OVERLAPPED], "norm_quantize", [tokens, 1], 320)
        .shared(4 * cols)
        .array(x)
        .u32(cols)
        .optional(norm)
        .f32(eps)
        .optional(quantized.map(|(xq, _)| xq))
        .u32(stride)
        .optional(quantized.map(|(_, scales)| scales))
        .optional(floats);
    // SAFETY: the kernel's parameters in order; lengths were compared above, it writes neither bytes nor scales where there are no bytes, and shared memory holds a row.
    unsafe { launch.run() }
}
