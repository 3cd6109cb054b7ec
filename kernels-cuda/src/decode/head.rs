//! Embedding and head.

use std::ops::Range;

use crate::device::{CudaError, DeviceArray, Gpu, Launch, Module, Result, ptx};
use crate::ternary_gemv::need;

static MODULE: Module = ptx!("head.ptx");
static OVERLAPPED: Module = ptx!("head_overlapped.ptx");

const ROWS: usize = 32;
const LANES: usize = 16;
/// Most tokens of a kernel of the head: a few, and many.
const FEW: usize = 4;
const MANY: usize = 8;
/// Bytes of a warp's ring.
const RING: usize = 4096;

/// The type of a matrix of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatKind {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of a single.
    Bf16,
    /// Bytes times a step a row.
    Int8,
}

impl FloatKind {
    /// Bytes of a value.
    pub const fn bytes(self) -> usize {
        match self {
            FloatKind::F32 => 4,
            FloatKind::F16 | FloatKind::Bf16 => 2,
            FloatKind::Int8 => 1,
        }
    }
}

/// A matrix `[vocabulary, hidden]`, embedding or head or both, in the order that the kernels read: tiles of 32 rows, `[cols / 16][16-byte part][32 rows][16
/// bytes]`, rows and columns filled up with zeros.
#[derive(Clone, Debug)]
pub struct VocabularyMatrix {
    kind: FloatKind,
    rows: usize,
    cols: usize,
    weights: DeviceArray<u8>,
    /// Of int8, `[rows]`.
    steps: Option<DeviceArray<f32>>,
}

impl VocabularyMatrix {
    /// From `values`, `[rows, cols]` little-endian values of `kind`, and for int8 the `steps`, `[rows]`.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for an empty matrix, or lengths that are not those of `[rows, cols]`.
    pub fn upload(
        gpu: &Gpu,
        kind: FloatKind,
        [rows, cols]: [usize; 2],
        values: &[u8],
        steps: Option<&[f32]>,
    ) -> Result<Self> {
        const OP: &str = "VocabularyMatrix";
        if rows == 0 || cols == 0 {
            return Err(CudaError::shape(OP, "a matrix", format!("{rows} x {cols}")));
        }
        need(OP, "bytes", rows * cols * kind.bytes(), values.len())?;
        need(
            OP,
            "steps",
            if kind == FloatKind::Int8 { rows } else { 0 },
            steps.map_or(0, <[f32]>::len),
        )?;
        let (row_bytes, parts) = (cols * kind.bytes(), cols.div_ceil(LANES) * kind.bytes());
        let mut weights = vec![0u8; rows.div_ceil(ROWS) * ROWS * parts * 16];
        for (row, values) in values.chunks_exact(row_bytes).enumerate() {
            let tile = row / ROWS * ROWS * parts + row % ROWS;
            for (part, values) in values.chunks(16).enumerate() {
                weights[(tile + part * ROWS) * 16..][..values.len()].copy_from_slice(values);
            }
        }
        Ok(VocabularyMatrix {
            kind,
            rows,
            cols,
            weights: gpu.upload(&weights)?,
            steps: steps.map(|steps| gpu.upload(steps)).transpose()?,
        })
    }

    /// For benches: a matrix of one byte throughout, which is a small number in all types.
    #[cfg(test)]
    pub(crate) fn synthetic(gpu: &Gpu, kind: FloatKind, [rows, cols]: [usize; 2]) -> Result<Self> {
        let weights = gpu.uninitialized(rows.div_ceil(ROWS) * ROWS * cols.div_ceil(LANES) * LANES * kind.bytes())?;
        gpu.fill_bytes(&weights, 0x2d)?;
        let steps = (kind == FloatKind::Int8).then(|| gpu.upload(&vec![0.01f32; rows]));
        Ok(VocabularyMatrix {
            kind,
            rows,
            cols,
            weights,
            steps: steps.transpose()?,
        })
    }

    /// The type of its values.
    pub fn kind(&self) -> FloatKind {
        self.kind
    }

    /// Its tiles.
    pub(super) fn weights(&self) -> &DeviceArray<u8> {
        &self.weights
    }

    /// Words of the vocabulary.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a word.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes that a matrix of `[rows, cols]` takes.
    pub const fn bytes_needed(kind: FloatKind, [rows, cols]: [usize; 2]) -> usize {
        let steps = match kind {
            FloatKind::Int8 => 4 * rows,
            _ => 0,
        };
        rows.div_ceil(ROWS) * ROWS * cols.div_ceil(LANES) * kind.bytes() * 16 + steps
    }

    /// Bytes on the GPU.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + self.steps.as_ref().map_or(0, DeviceArray::bytes)
    }
}

/// `x[t]`, `[tokens, cols]`, is the row of `matrix` for `ids[position + t]`.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not agree. An id outside the vocabulary or a position outside `ids` gives row 0.
pub fn embed(
    gpu: &Gpu,
    matrix: &VocabularyMatrix,
    ids: &DeviceArray<u32>,
    position: &DeviceArray<u32>,
    x: &DeviceArray<f32>,
) -> Result<()> {
    const OP: &str = "embed";
    let tokens = x.len() / matrix.cols;
    need(OP, "x", tokens * matrix.cols, x.len())?;
    need(OP, "position", 1, position.len())?;
    let name = match matrix.kind {
        FloatKind::F32 => "embed_f32",
        FloatKind::F16 => "embed_f16",
        FloatKind::Bf16 => "embed_bf16",
        FloatKind::Int8 => "embed_int8",
    };
    let launch = Launch::chained(gpu, [&MODULE, &OVERLAPPED], name, [tokens, 1], 192)
        .array(&matrix.weights)
        .optional(matrix.steps.as_ref())
        .u32(matrix.rows)
        .u32(matrix.cols)
        .array(ids)
        .array(position)
        .u32(ids.len())
        .array(x);
    // SAFETY: the kernel's parameters in order; it compares position and id with `ids.len()` and the rows, and writes `x` as compared above.
    unsafe { launch.run() }
}

/// What [`head`] writes beside the logits.
#[derive(Clone, Debug)]
pub struct HeadOutput {
    /// `[tokens]`: the id of each token's largest logit, of equals the lowest.
    pub best: DeviceArray<u32>,
    /// The ids of the context, `[context]`.
    pub ids: DeviceArray<u32>,
    /// `[1]`: tokens read.
    pub position: DeviceArray<u32>,
    bests: DeviceArray<f32>,
    counter: DeviceArray<u32>,
}

impl HeadOutput {
    /// For up to `tokens` tokens at a time of a context of `context`.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    pub fn new(gpu: &Gpu, tokens: usize, context: usize) -> Result<Self> {
        Ok(HeadOutput {
            best: gpu.zeros(tokens)?,
            ids: gpu.zeros(context)?,
            position: gpu.zeros(1)?,
            bests: gpu.zeros(2 * MANY * gpu.properties().multiprocessors as usize)?,
            counter: gpu.zeros(1)?,
        })
    }

    /// The last arguments of a kernel that chooses the largest logits of `tokens`, and moves on by `advance`.
    pub(super) fn receive<'a>(&self, launch: Launch<'a>, tokens: Range<usize>, advance: usize) -> Launch<'a> {
        launch
            .array(&self.bests)
            .array(&self.counter)
            .array(&self.best.slice(tokens))
            .array(&self.ids)
            .array(&self.position)
            .u32(self.ids.len())
            .u32(advance)
    }
}

/// RMSNorm of `x`, `[tokens, cols]`, with weights `norm`, then the logits `[tokens, rows]` of `matrix` (written where `logits` is given), with a cap
/// `cap · tanh(logits / cap)`, then the largest of
/// each token into `out.best`. Unless `advance` is 0 the last token's
/// becomes `out.ids[position + advance]` and the position moves on by so many, within the context.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not agree or rows too long for shared memory.
pub fn head(
    gpu: &Gpu,
    matrix: &VocabularyMatrix,
    x: &DeviceArray<f32>,
    norm: &DeviceArray<f32>,
    (eps, cap): (f32, Option<f32>),
    logits: Option<&DeviceArray<f32>>,
    out: &HeadOutput,
    advance: usize,
) -> Result<()> {
    const OP: &str = "head";
    let tokens = x.len() / matrix.cols;
    need(OP, "x", tokens * matrix.cols, x.len())?;
    need(OP, "norm", matrix.cols, norm.len())?;
    if let Some(logits) = logits {
        need(OP, "logits", tokens * matrix.rows, logits.len())?;
    }
    if tokens == 0 || tokens > out.best.len() {
        return Err(CudaError::shape(OP, format!("1 to {} tokens", out.best.len()), tokens));
    }
    let room = gpu.properties().shared_memory as usize - 4096;
    let padded = matrix.cols.next_multiple_of(LANES);
    let bytes = |threads: u32, tokens: usize| threads as usize / 32 * RING + 4 * tokens * padded;
    if bytes(512, 1) > room {
        return Err(CudaError::shape(
            OP,
            format!("rows of at most {} values", (room - bytes(512, 0)) / 4),
            matrix.cols,
        ));
    }
    let at_once = if tokens > FEW && bytes(256, MANY) <= room {
        MANY
    } else if bytes(384, FEW) <= room {
        FEW
    } else {
        1
    };
    let blocks = matrix
        .rows
        .div_ceil(ROWS)
        .min(gpu.properties().multiprocessors as usize);
    for first in (0..tokens).step_by(at_once) {
        let some = at_once.min(tokens - first);
        let (name, threads, rows_of) = match (matrix.kind, some) {
            (FloatKind::F32, 1) => ("head_f32_1", 384, 1),
            (FloatKind::F16, 1) => ("head_f16_1", 512, 1),
            (FloatKind::Bf16, 1) => ("head_bf16_1", 512, 1),
            (FloatKind::Int8, 1) => ("head_int8_1", 512, 1),
            (FloatKind::F32, 2..=FEW) => ("head_f32_4", 384, FEW),
            (FloatKind::F16, 2..=FEW) => ("head_f16_4", 384, FEW),
            (FloatKind::Bf16, 2..=FEW) => ("head_bf16_4", 384, FEW),
            (FloatKind::Int8, 2..=FEW) => ("head_int8_4", 384, FEW),
            (FloatKind::F32, _) => ("head_f32_8", 256, MANY),
            (FloatKind::F16, _) => ("head_f16_8", 256, MANY),
            (FloatKind::Bf16, _) => ("head_bf16_8", 256, MANY),
            (FloatKind::Int8, _) => ("head_int8_8", 256, MANY),
        };
        let rows = |width: usize| first * width..(first + some) * width;
        let logits = logits.map(|logits| logits.slice(rows(matrix.rows)));
        let launch = Launch::chained(gpu, [&MODULE, &OVERLAPPED], name, [blocks, 1], threads)
            .shared(bytes(threads, rows_of))
            .array(&matrix.weights)
            .optional(matrix.steps.as_ref())
            .u32(matrix.rows)
            .u32(matrix.cols)
            .array(&x.slice(rows(matrix.cols)))
            .array(norm)
            .f32(eps)
            .f32(cap.unwrap_or(0.0))
            .u32(some)
            .optional(logits.as_ref());
        let launch = out.receive(launch, rows(1), if first + some == tokens { advance } else { 0 });
        // SAFETY: the kernel's parameters in order; lengths were compared above, `bests` has room for every multiprocessor, and the kernel compares
        // the position with `ids.len()`.
        unsafe { launch.run()? };
    }
    Ok(())
}
