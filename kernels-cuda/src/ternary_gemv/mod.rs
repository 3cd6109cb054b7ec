//! `y[b, r] = (Σ_k xq[b, k] · w[r, k]) · γ / s[b]`: packed ternary matrices times a few tokens of bytes, the sums exact integers.
//!
//! [`ternary_gemv`] takes bytes; [`normed_ternary_gemv`] takes floats, of which every block makes the bytes for itself: RMSNorm and the absmax
//! quantiser with the very roundings of the CPU runtime (16 chains of fused multiply-adds, folded 8-4-2-1), so that integers and results are
//! the same bits as there. For more than [`MOST_NORMED`] tokens [`norm_quantize`] makes them once.
//!
//! [`TernaryMatrix`] keeps what the runtime keeps, `t2` or `t5`, at the same two or 1.6 bits a weight, in the order that the kernels read (`layout.rs`).
//!
//! With compute capability 9.0 each kernel begins while the one ahead of it runs, and fetches its first weights meanwhile.

mod layout;
#[cfg(test)]
pub(crate) mod tests;

pub use layout::{Extent, TernaryCode, TernaryMatrix, TernaryPart};

use crate::device::{CudaError, DeviceArray, Gpu, Kernel, Launch, Module, Result, ptx};

static MODULE: Module = ptx!("kernel.ptx");
static OVERLAPPED: Module = ptx!("overlapped.ptx");

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

/// A kernel's name, the warps of its blocks, and the slots of each warp's ring.
struct Form {
    name: &'static str,
    warps: usize,
    slots: usize,
}

impl Form {
    /// That of a product. With few bytes a block's start and end count, and fewer warps have less of both; with many, what is under way does, and for `t5` the
    /// instructions, which want more warps to hide each other's delays.
    fn of(code: TernaryCode, tokens: usize, share: usize) -> Self {
        let (name, warps, slots) = match (code, tokens) {
            (TernaryCode::T2, ..=4) if share > LONG => ("ternary_gemv_t2_4_long", 12, 8),
            (TernaryCode::T2, ..=4) => ("ternary_gemv_t2_4", 8, 8),
            (TernaryCode::T2, ..=8) => ("ternary_gemv_t2_8", 10, 4),
            (TernaryCode::T2, _) => ("ternary_gemv_t2_16", 8, 5),
            (TernaryCode::T5, ..=4) if share > LONG => ("ternary_gemv_t3_4_long", 16, 4),
            (TernaryCode::T5, ..=4) => ("ternary_gemv_t3_4", 8, 8),
            (TernaryCode::T5, ..=8) => ("ternary_gemv_t3_8", 10, 4),
            (TernaryCode::T5, _) => ("ternary_gemv_t3_16", 8, 5),
        };
        Form { name, warps, slots }
    }

    /// That of a product of floats.
    fn normed(code: TernaryCode) -> Self {
        let name = match code {
            TernaryCode::T2 => "normed_gemv_t2",
            TernaryCode::T5 => "normed_gemv_t3",
        };
        Form {
            name,
            warps: 8,
            slots: 8,
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

/// A kernel in the form for `gpu`, and whether it may begin early.
fn choose(gpu: &Gpu, name: &'static str) -> (Kernel, bool) {
    let overlaps = gpu.properties().capability.0 >= 9;
    let module = if overlaps { &OVERLAPPED } else { &MODULE };
    (Kernel { module, name }, overlaps)
}

fn start<'a>(gpu: &'a Gpu, name: &'static str, blocks: usize, threads: u32) -> Launch<'a> {
    let (kernel, overlaps) = choose(gpu, name);
    let launch = Launch::new(gpu, kernel, [blocks as u32, 1, 1], threads);
    if overlaps { launch.programmatic() } else { launch }
}

/// Bytes between tokens in shared memory, as the kernel has them.
fn token_stride(weights: usize) -> usize {
    if weights % 128 == 64 { weights } else { weights + 64 }
}

/// Blocks of a launch, and tiles of the one that has most.
fn shares(gpu: &Gpu, matrix: &TernaryMatrix, unit: usize) -> (usize, usize) {
    let units = matrix.tiles.div_ceil(unit);
    let blocks = units.min(gpu.properties().multiprocessors as usize);
    (blocks, units.div_ceil(blocks.max(1)) * unit)
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
    let (blocks, most) = shares(gpu, matrix, if matrix.paired { 2 } else { 1 });
    let block = matrix.code.block();
    let form = Form::of(matrix.code, tokens, most * matrix.k_blocks() * TILE * 64);
    let bytes =
        |span: usize| form.rings() + tokens * token_stride(span * block) + most * (TILE_INFO + 4 * TILE * tokens);
    // Of tokens that do not fit in shared memory as many blocks at a time as do.
    let room = gpu.properties().shared_memory as usize - RESERVED;
    let k_blocks = matrix.k_blocks().max(1);
    let chunks = (1..=k_blocks).find(|&chunks| bytes(k_blocks.div_ceil(chunks)) <= room);
    let Some(chunks) = chunks else {
        return Err(CudaError::shape(
            OP,
            format!("results that fit in {room} bytes of shared memory"),
            bytes(1),
        ));
    };
    let span = k_blocks.div_ceil(chunks);
    let (kind, out, factor) = epilogue.parts();
    let launch = start(gpu, form.name, blocks, form.threads())
        .shared(bytes(span))
        .array(&matrix.weights)
        .array(&matrix.descriptors)
        .u32(matrix.k_blocks())
        .u32(matrix.tiles)
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

/// Bytes of shared memory for `tokens` tokens of `cols` values and a block's share of `most` tiles. Of a single token the kernel may let bytes take the floats' place, and
/// needs less.
fn normed_bytes(code: TernaryCode, cols: usize, most: usize, tokens: usize) -> usize {
    let padded = cols.next_multiple_of(code.block());
    Form::normed(code).rings()
        + tokens * (4 * cols.next_multiple_of(4) + token_stride(padded))
        + most * (TILE_INFO + 4 * TILE * tokens)
}

/// Whether [`normed_ternary_gemv`] has a form for so many tokens: at most [`MOST_NORMED`], all of which fit in shared memory. What does not is for [`norm_quantize`] and
/// [`ternary_gemv`].
pub fn norms_itself(gpu: &Gpu, matrix: &TernaryMatrix, tokens: usize) -> bool {
    let (_, most) = shares(gpu, matrix, if matrix.paired { 2 } else { 1 });
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
    const OP: &str = "normed_ternary_gemv";
    let cols = matrix.cols;
    let tokens = x.len() / cols.max(1);
    matrix.check(OP, tokens, MOST_NORMED, &epilogue)?;
    need(OP, "x", tokens * cols, x.len())?;
    if let Some(norm) = norm {
        need(OP, "norm", cols, norm.len())?;
    }
    let (blocks, most) = shares(gpu, matrix, if matrix.paired { 2 } else { 1 });
    let form = Form::normed(matrix.code);
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
    let launch = start(gpu, form.name, blocks, form.threads())
        .shared(bytes)
        .array(&matrix.weights)
        .array(&matrix.descriptors)
        .u32(matrix.k_blocks())
        .u32(matrix.tiles)
        .array(x)
        .u32(cols)
        .optional(norm)
        .f32(eps)
        .u32(tokens)
        .u32(kind)
        .f32(factor)
        .array(out)
        .u32(matrix.rows);
    // SAFETY: the kernel's parameters in order; lengths were compared above, and shared memory holds floats, bytes and sums of the largest share.
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
    let launch = start(gpu, "norm_quantize", tokens, 320)
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
