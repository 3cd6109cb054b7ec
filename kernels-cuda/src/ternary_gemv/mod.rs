//! `y[b, r] = (Σ_k xq[b, k] · w[r, k]) · γ / s[b]`: packed ternary matrices times a few tokens of bytes, the sums exact integers.
//!
//! [`ternary_gemv`] takes bytes; [`normed_ternary_gemv`] takes floats, of which every block makes the bytes for itself: RMSNorm and the absmax
//! quantiser with the very roundings of the CPU runtime (64 chains of fused multiply-adds, folded 32-16-8-4-2-1), so that integers and results are
//! the same bits as there. For more than [`MOST_NORMED`] tokens [`norm_quantize`] makes them once.
//!
//! [`TernaryMatrix`] keeps what the runtime keeps, `t2` or `t5`, at the same two or 1.6 bits a weight, in the order that the kernels read (`layout.rs`).
//!
//! With compute capability 9.0 each kernel begins while the one ahead of it runs, and fetches its first weights meanwhile.

mod layout;
#[cfg(test)]
pub(crate) mod tests;

pub use layout::{Extent, TernaryCode, TernaryMatrix, TernaryPart};

use crate::device::{CudaError, DeviceArray, Gpu, Launch, Module, Result, ptx};

static MODULE: Module = ptx!("kernel.ptx");
static OVERLAPPED: Module = ptx!("overlapped.ptx");
static SINGLE: Module = ptx!("single.ptx");
static SINGLE_OVERLAPPED: Module = ptx!("single_overlapped.ptx");

/// Most tokens of [`ternary_gemv`].
pub const MOST_TOKENS: usize = 16;
/// Most tokens of [`normed_ternary_gemv`].
pub const MOST_NORMED: usize = 4;

const TILE: usize = 8;
/// Bytes of a tile's descriptor.
const TILE_INFO: usize = 16;
/// Static shared memory and what the driver keeps for itself.
const RESERVED: usize = 4096;
/// Bytes of a slot of a ring through which weights stream.
const SLOT: usize = 1024;
/// Bytes of a block's share of the weights from which on more of them have to be under way than what suits a short product best.
const LONG: usize = 128 << 10;
/// Parts of attention that the product behind it puts together (`single.cu`).
pub(crate) const MOST_PARTS: usize = 8;
/// Floats of a part beside its `head_dim`.
pub(crate) const PART_MORE: usize = 4;
/// Columns of a single token that its 256 threads hold in registers, three fours or seven each.
const MOST_NARROW: usize = 3 * 4 * 256;
const MOST_WIDE: usize = 7 * 4 * 256;
/// The same behind attention.
const MOST_ATTENDED: usize = 4 * 4 * 256;

/// A kernel's name, the warps of its blocks, and the slots of each warp's ring.
struct Form {
    name: &'static str,
    warps: usize,
    slots: usize,
}

impl Form {
    /// That of a product.
    fn of(code: TernaryCode, tokens: usize) -> Self {
        let (name, warps, slots) = match (code, tokens) {
            (TernaryCode::T2, ..=4) => ("ternary_gemv_t2_4", 8, 8),
            (TernaryCode::T2, ..=8) => ("ternary_gemv_t2_8", 10, 4),
            (TernaryCode::T2, _) => ("ternary_gemv_t2_16", 8, 5),
            (TernaryCode::T5, ..=4) => ("ternary_gemv_t3_4", 8, 8),
            (TernaryCode::T5, ..=8) => ("ternary_gemv_t3_8", 10, 4),
            (TernaryCode::T5, _) => ("ternary_gemv_t3_16", 8, 5),
        };
        Form { name, warps, slots }
    }

    /// That of a long product of few tokens, of blocks whose share is more than [`LONG`]. With few bytes a block's start and end count, and fewer warps have less of both; with
    /// many, what is under way does, and for `t5` the instructions, which want more warps to hide each other's delays.
    fn long(code: TernaryCode, tokens: usize) -> Option<Self> {
        let (name, warps, slots) = match code {
            TernaryCode::T2 => ("ternary_gemv_t2_4_long", 12, 8),
            TernaryCode::T5 => ("ternary_gemv_t3_4_long", 16, 4),
        };
        (tokens <= 4).then_some(Form { name, warps, slots })
    }

    /// That of a product of floats, `single` for one token that a block's threads can hold in registers; behind attention if `attended`.
    fn normed(code: TernaryCode, single: bool, cols: usize, attended: bool) -> Self {
        let name = match (code, single) {
            (TernaryCode::T2, true) if attended => "attended_single_t2",
            (TernaryCode::T5, true) if attended => "attended_single_t3",
            (TernaryCode::T2, true) if cols <= MOST_NARROW => "normed_single_t2",
            (TernaryCode::T5, true) if cols <= MOST_NARROW => "normed_single_t3",
            (TernaryCode::T2, true) => "normed_single_t2_wide",
            (TernaryCode::T5, true) => "normed_single_t3_wide",
            (TernaryCode::T2, false) => "normed_gemv_t2",
            (TernaryCode::T5, false) => "normed_gemv_t3",
        };
        Form {
            name,
            warps: 8,
            // Of one token so many that the longest run of 2B-4T's gate and up on 132 multiprocessors is fetched whole.
            slots: if single { 9 } else { 8 },
        }
    }

    fn threads(&self) -> u32 {
        32 * self.warps as u32
    }

    fn rings(&self) -> usize {
        self.warps * self.slots * SLOT
    }
}

/// What the results of a product become.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue<'a> {
    /// `out = y`
    Store(&'a DeviceArray<f32>),
    /// `out = factor · y + out`, fused.
    Add(&'a DeviceArray<f32>, f32),
    /// `out = max(y, 0)²`
    Relu2(&'a DeviceArray<f32>),
    /// `out = max(gate, 0)² · up`, of a matrix that was made [`paired`](TernaryMatrix::paired).
    GatedRelu2(&'a DeviceArray<f32>),
    /// `out = gate · σ(gate) · up`, likewise.
    GatedSilu(&'a DeviceArray<f32>),
}

impl Epilogue<'_> {
    /// Its number, the output, the factor.
    pub(crate) fn parts(&self) -> (usize, &DeviceArray<f32>, f32) {
        match *self {
            Epilogue::Store(out) => (0, out, 0.0),
            Epilogue::Add(out, factor) => (1, out, factor),
            Epilogue::Relu2(out) => (2, out, 0.0),
            Epilogue::GatedRelu2(out) => (3, out, 0.0),
            Epilogue::GatedSilu(out) => (4, out, 0.0),
        }
    }
}

/// `op` needs `expected` elements of `what` and was given `found`.
pub(crate) fn need(op: &'static str, what: &str, expected: usize, found: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(CudaError::shape(op, format!("{what} of {expected} elements"), found))
}

/// Bytes between tokens in shared memory, as the kernel has them.
fn token_stride(weights: usize) -> usize {
    if weights % 128 == 64 { weights } else { weights + 64 }
}

/// How tiles are shared out among the blocks of a launch.
struct Shares {
    /// Blocks.
    blocks: usize,
    /// Tiles that stay together.
    unit: usize,
    /// Units of a block, and how many blocks, the first, have one more.
    each: usize,
    more: usize,
}

impl Shares {
    fn of(gpu: &Gpu, matrix: &TernaryMatrix) -> Self {
        let unit = if matrix.paired { 2 } else { 1 };
        let units = matrix.tiles / unit;
        let blocks = units.clamp(1, gpu.properties().multiprocessors as usize);
        Shares {
            blocks,
            unit,
            each: units / blocks,
            more: units % blocks,
        }
    }

    /// Tiles of the block that has most.
    fn most(&self) -> usize {
        (self.each + usize::from(self.more > 0)) * self.unit
    }
}

impl TernaryMatrix {
    /// 1 to `most` tokens, an output that fits, and gated epilogues with pairs.
    pub(crate) fn check(&self, op: &'static str, tokens: usize, most: usize, epilogue: &Epilogue<'_>) -> Result<()> {
        if tokens == 0 || tokens > most {
            return Err(CudaError::shape(op, format!("1 to {most} tokens"), tokens));
        }
        let gated = matches!(epilogue, Epilogue::GatedRelu2(_) | Epilogue::GatedSilu(_));
        if gated != self.paired {
            let word = |paired| if paired { "a paired matrix" } else { "a stacked matrix" };
            return Err(CudaError::shape(op, word(gated), word(self.paired)));
        }
        need(op, "output", tokens * self.rows, epilogue.parts().1.len())
    }
}

/// The product of `matrix` with the bytes `xq`, `[tokens, matrix.padded_cols()]`, 1 to [`MOST_TOKENS`] tokens with their scales `s`, `[tokens]`.
/// What the epilogue writes is `[tokens, matrix.rows()]`. Values of `xq` beyond the matrix's columns do not count.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not agree, an epilogue that does not fit the matrix, or too many rows for shared memory.
pub fn ternary_gemv(
    gpu: &Gpu,
    matrix: &TernaryMatrix,
    xq: &DeviceArray<i8>,
    scales: &DeviceArray<f32>,
    epilogue: Epilogue<'_>,
) -> Result<()> {
    const OP: &str = "ternary_gemv";
    let (tokens, padded) = (scales.len(), matrix.padded_cols());
    matrix.check(OP, tokens, MOST_TOKENS, &epilogue)?;
    need(OP, "xq", tokens * padded, xq.len())?;
    let shares = Shares::of(gpu, matrix);
    let most = shares.most();
    let block = matrix.code.block();
    let bytes = |form: &Form, span: usize| {
        form.rings() + tokens * token_stride(span * block) + most * (TILE_INFO + 4 * TILE * tokens)
    };
    let room = gpu.properties().shared_memory as usize - RESERVED;
    let k_blocks = matrix.k_blocks().max(1);
    // A long share wants a form of its own, which has all tokens at once; of tokens that do not fit in shared memory the others take as many blocks at a time as do.
    let long = (most * matrix.k_blocks() * TILE * 64 > LONG)
        .then(|| Form::long(matrix.code, tokens))
        .flatten()
        .filter(|form| bytes(form, k_blocks) <= room);
    let form = long.unwrap_or_else(|| Form::of(matrix.code, tokens));
    let chunks = (1..=k_blocks).find(|&chunks| bytes(&form, k_blocks.div_ceil(chunks)) <= room);
    let Some(chunks) = chunks else {
        return Err(CudaError::shape(
            OP,
            format!("results that fit in {room} bytes of shared memory"),
            bytes(&form, 1),
        ));
    };
    let span = k_blocks.div_ceil(chunks);
    let (kind, out, factor) = epilogue.parts();
    let launch = Launch::chained(
        gpu,
        [&MODULE, &OVERLAPPED],
        form.name,
        [shares.blocks, 1],
        form.threads(),
    )
    .shared(bytes(&form, span))
    .array(&matrix.weights)
    .array(&matrix.descriptors)
    .u32(matrix.k_blocks())
    .u32(shares.unit)
    .u32(shares.each)
    .u32(shares.more)
    .array(xq)
    .u32(span)
    .array(scales)
    .u32(tokens)
    .u32(kind)
    .f32(factor)
    .array(out)
    .u32(matrix.rows);
    // SAFETY: the kernel's parameters in order; `layout.rs` made weights and descriptors for these tiles, the lengths of xq, scales and out
    // were compared above, and shared memory holds the rings, `span` blocks of each token, and sums of the largest share.
    unsafe { launch.run() }
}

/// Whether one token of `cols` values stays in the registers of a block.
fn single(cols: usize, tokens: usize) -> bool {
    tokens == 1 && cols.is_multiple_of(4) && cols <= MOST_WIDE
}

/// Bytes of shared memory for `tokens` tokens of `cols` values and a block's share of `most` tiles. A single token's bytes take the place of its floats.
fn normed_bytes(code: TernaryCode, cols: usize, most: usize, tokens: usize) -> usize {
    let padded = cols.next_multiple_of(code.block());
    let single = single(cols, tokens);
    let values = match single {
        true => padded.max(4 * cols),
        false => tokens * (4 * cols.next_multiple_of(4) + token_stride(padded)),
    };
    Form::normed(code, single, cols, false).rings() + values + most * (TILE_INFO + 4 * TILE * tokens)
}

/// Whether [`normed_ternary_gemv`] has a form for so many tokens: at most [`MOST_NORMED`], all of which fit in shared memory. What does not is for [`norm_quantize`] and
/// [`ternary_gemv`].
pub fn norms_itself(gpu: &Gpu, matrix: &TernaryMatrix, tokens: usize) -> bool {
    let most = Shares::of(gpu, matrix).most();
    let room = gpu.properties().shared_memory as usize - RESERVED;
    tokens <= MOST_NORMED && normed_bytes(matrix.code, matrix.cols, most, tokens) <= room
}

/// The product of `matrix` with `x`, `[tokens, matrix.cols()]`, 1 to [`MOST_NORMED`] tokens: RMSNorm with weights `norm`, `[matrix.cols()]`, unless
/// there are none, then the quantiser, then the product.
///
/// # Errors
/// As [`ternary_gemv`]; tokens that do not fit ([`norms_itself`]).
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
    let form = Form::normed(matrix.code, single, cols, parts.is_some());
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
    let launch = Launch::chained(gpu, modules, form.name, [shares.blocks, 1], form.threads())
        .shared(bytes)
        .array(&matrix.weights)
        .array(&matrix.descriptors)
        .u32(matrix.k_blocks())
        .u32(shares.unit)
        .u32(shares.each)
        .u32(shares.more)
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
    const OP: &str = "norm_quantize";
    let tokens = scales.len();
    need(OP, "x", tokens * cols, x.len())?;
    if let Some(norm) = norm {
        need(OP, "norm", cols, norm.len())?;
    }
    let stride = xq.len().checked_div(tokens).unwrap_or(0);
    let room = gpu.properties().shared_memory as usize - RESERVED;
    if tokens * stride != xq.len() || stride < cols || !stride.is_multiple_of(4) || 4 * cols > room {
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
        .array(xq)
        .u32(stride)
        .array(scales);
    // SAFETY: the kernel's parameters in order; lengths were compared above, and shared memory holds a row.
    unsafe { launch.run() }
}
