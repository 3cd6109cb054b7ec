//! `y[b, r] = (Σ_k xq[b, k] · w[r, k]) · γ / s[b]`: packed binary and ternary matrices, and those of bytes with a γ for each row, times a few tokens of bytes, the sums exact integers.
//!
//! [`ternary_gemv`] takes bytes; [`normed_ternary_gemv`] takes floats, of which every block makes the bytes for itself: RMSNorm and the absmax
//! quantiser with the very roundings of the CPU runtime (64 chains of fused multiply-adds, folded 32-16-8-4-2-1), so that integers and results are
//! the same bits as there. For more than [`MOST_NORMED`] tokens [`norm_quantize`] makes them once.
//!
//! [`TernaryMatrix`] keeps what the runtime keeps, `b1`, `t2`, `t5` or bytes, at the same bits a weight, in the order that the kernels read (`layout.rs`).
//!
//! With compute capability 9.0 each kernel begins while the one ahead of it runs, and fetches its first weights meanwhile.

mod layout;
mod normed;
#[cfg(test)]
mod testing;
#[cfg(test)]
pub(crate) mod tests;

pub use layout::{Extent, TernaryCode, TernaryMatrix, TernaryPart};
pub use normed::{MOST_NORMED, norm_quantize, normed_ternary_gemv, norms_itself};
pub(crate) use normed::{MOST_PARTS, PART_MORE, Parts, attended_ternary_gemv, norm_rows, takes_parts};

use crate::device::{CudaError, DeviceArray, Gpu, Launch, Module, Result, ptx};

static MODULE: Module = ptx!("kernel.ptx");
static OVERLAPPED: Module = ptx!("overlapped.ptx");

/// Most tokens of [`ternary_gemv`].
pub const MOST_TOKENS: usize = 16;

const TILE: usize = 8;
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
    /// That of a product.
    fn of(code: TernaryCode, tokens: usize) -> Self {
        let (name, warps, slots) = match (code, tokens) {
            (TernaryCode::B1, ..=4) => ("ternary_gemv_b1_4", 8, 8),
            (TernaryCode::B1, ..=8) => ("ternary_gemv_b1_8", 10, 4),
            (TernaryCode::B1, _) => ("ternary_gemv_b1_16", 8, 5),
            (TernaryCode::T2, ..=4) => ("ternary_gemv_t2_4", 8, 8),
            (TernaryCode::T2, ..=8) => ("ternary_gemv_t2_8", 10, 4),
            (TernaryCode::T2, _) => ("ternary_gemv_t2_16", 8, 5),
            (TernaryCode::T5, ..=4) => ("ternary_gemv_t3_4", 8, 8),
            (TernaryCode::T5, ..=8) => ("ternary_gemv_t3_8", 10, 4),
            (TernaryCode::T5, _) => ("ternary_gemv_t3_16", 8, 5),
            (TernaryCode::Int8, ..=4) => ("ternary_gemv_i8_4", 8, 8),
            (TernaryCode::Int8, ..=8) => ("ternary_gemv_i8_8", 10, 4),
            (TernaryCode::Int8, _) => ("ternary_gemv_i8_16", 8, 5),
        };
        Form { name, warps, slots }
    }

    /// That of a long product of few tokens, of blocks whose share is more than [`LONG`]. With few bytes a block's start and end count, and fewer warps have less of both; with
    /// many, what is under way does, and for `t5` the instructions, which want more warps to hide each other's delays.
    fn long(code: TernaryCode, tokens: usize) -> Option<Self> {
        let (name, warps, slots) = match code {
            TernaryCode::B1 => ("ternary_gemv_b1_4_long", 12, 8),
            TernaryCode::T2 => ("ternary_gemv_t2_4_long", 12, 8),
            TernaryCode::T5 => ("ternary_gemv_t3_4_long", 16, 4),
            TernaryCode::Int8 => ("ternary_gemv_i8_4_long", 12, 8),
        };
        (tokens <= 4).then_some(Form { name, warps, slots })
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
    /// `out = max(out, 0)² · y`: up's, of a gate that lies in its place.
    ByGateRelu2(&'a DeviceArray<f32>),
    /// `out = out · σ(out) · y`, likewise.
    ByGateSilu(&'a DeviceArray<f32>),
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
            Epilogue::ByGateRelu2(out) => (5, out, 0.0),
            Epilogue::ByGateSilu(out) => (6, out, 0.0),
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

    /// Bytes from a token of `xq` to the next.
    pub(crate) fn stride(&self, op: &'static str, tokens: usize, xq: &DeviceArray<i8>) -> Result<usize> {
        let stride = xq.len() / tokens;
        if stride < self.padded_cols() || stride * tokens != xq.len() || !stride.is_multiple_of(16) {
            let expected = format!("tokens of at least {} bytes, a multiple of 16", self.padded_cols());
            return Err(CudaError::shape(op, expected, format!("{} for {tokens}", xq.len())));
        }
        Ok(stride)
    }
}

/// The beginning of a launch, which is the same for every form: `bytes` of shared memory, the weights, and who has which.
fn product<'a>(
    gpu: &'a Gpu,
    modules: [&'static Module; 2],
    form: &Form,
    matrix: &TernaryMatrix,
    shares: &Shares,
    bytes: usize,
) -> Launch<'a> {
    Launch::chained(gpu, modules, form.name, [shares.blocks, 1], form.threads())
        .shared(bytes)
        .array(&matrix.weights)
        .array(&matrix.descriptors)
        .u32(matrix.k_blocks())
        .u32(shares.unit)
        .u32(shares.each)
        .u32(shares.more)
}

/// The product of `matrix` with the bytes `xq`, `[tokens, stride]`, 1 to [`MOST_TOKENS`] tokens with their scales `s`, `[tokens]`; `stride` is a multiple of 16 and at least
/// `matrix.padded_cols()`. What the epilogue writes is `[tokens, matrix.rows()]`. Values of `xq` beyond the matrix's columns are 0 (for [`TernaryCode::B1`]; of other codes they do not count).
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
    let tokens = scales.len();
    matrix.check(OP, tokens, MOST_TOKENS, &epilogue)?;
    let stride = matrix.stride(OP, tokens, xq)?;
    let shares = Shares::of(gpu, matrix);
    let most = shares.most();
    let block = matrix.code.block();
    let bytes = |form: &Form, span: usize| {
        form.rings() + tokens * token_stride(span * block) + most * (matrix.code.tile_info() + 4 * TILE * tokens)
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
    let modules = [&MODULE, &OVERLAPPED];
    let launch = product(gpu, modules, &form, matrix, &shares, bytes(&form, span))
        .array(xq)
        .u32(stride)
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
