//! The largest logit of a head of floats, found with a sketch of it.

use super::{FloatKind, HeadOutput, VocabularyMatrix};
use crate::device::{CudaError, DeviceArray, Gpu, Launch, Module, Result, ptx};
use crate::ternary_gemv::need;

static MODULE: Module = ptx!("sketch.ptx");
static OVERLAPPED: Module = ptx!("sketch_overlapped.ptx");

const ROWS: usize = 32;
const LANES: usize = 16;
const ESTIMATE_THREADS: u32 = 512;
const SETTLE_THREADS: u32 = 256;
/// Bytes of a warp's ring of the estimate.
const RING: usize = 4096;
/// Bytes of a warp that settles.
const PIECE: usize = 8192;

/// A head of floats as bytes, a step and a radius for each row: how far, for an input of length 1, a logit can lie from that of the bytes.
///
/// [`largest`] reads the sketch, and of the head only the rows whose logits can be the largest (of some random 128,256 about 40): half the bytes
/// of a head of 16 bits, and the same answer for every input.
#[derive(Clone, Debug)]
pub struct HeadSketch {
    rows: usize,
    cols: usize,
    bytes: DeviceArray<u8>,
    /// `[rows]`
    pub(super) steps: DeviceArray<f32>,
    /// `[rows]`
    pub(super) radii: DeviceArray<f32>,
    /// Counts the rows of the head that were read, `[1]`, for whoever wants to know.
    #[cfg(test)]
    pub(super) read: Option<DeviceArray<u32>>,
}

impl HeadSketch {
    /// Of `head`; `None` of one that is bytes itself.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    pub fn new(gpu: &Gpu, head: &VocabularyMatrix) -> Result<Option<Self>> {
        let name = match head.kind() {
            FloatKind::F32 => "sketch_f32",
            FloatKind::F16 => "sketch_f16",
            FloatKind::Bf16 => "sketch_bf16",
            FloatKind::Int8 => return Ok(None),
        };
        let (rows, cols) = (head.rows(), head.cols());
        let tiles = rows.div_ceil(ROWS);
        let sketch = HeadSketch {
            rows,
            cols,
            bytes: gpu.uninitialized(tiles * ROWS * cols.div_ceil(LANES) * LANES)?,
            steps: gpu.uninitialized(rows)?,
            radii: gpu.uninitialized(rows)?,
            #[cfg(test)]
            read: None,
        };
        let launch = Launch::new(gpu, MODULE.kernel(name), [tiles.div_ceil(8) as u32, 1, 1], 256)
            .array(head.weights())
            .u32(rows)
            .u32(cols)
            .array(&sketch.bytes)
            .array(&sketch.steps)
            .array(&sketch.radii);
        // SAFETY: the kernel's parameters in order; it reads the tiles of the head and writes as many of bytes, and `rows` steps and radii.
        unsafe { launch.run()? };
        Ok(Some(sketch))
    }

    /// Bytes that the sketch of a head of `[rows, cols]` takes.
    pub const fn bytes_needed([rows, cols]: [usize; 2]) -> usize {
        rows.div_ceil(ROWS) * ROWS * cols.div_ceil(LANES) * LANES + 8 * rows
    }

    /// Bytes on the GPU.
    pub fn bytes(&self) -> usize {
        self.bytes.bytes() + self.steps.bytes() + self.radii.bytes()
    }
}

/// What lies between estimating and settling.
#[derive(Clone, Debug)]
pub struct SketchBuffers {
    /// `[rows]`
    pub(super) estimates: DeviceArray<f32>,
    /// One for each multiprocessor.
    floors: DeviceArray<f32>,
    /// The input behind its norm, and its length.
    pub(super) normed: DeviceArray<f32>,
}

impl SketchBuffers {
    /// For searches with a sketch of a head of `[rows, cols]`.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    pub fn new(gpu: &Gpu, [rows, cols]: [usize; 2]) -> Result<Self> {
        Ok(SketchBuffers {
            estimates: gpu.zeros(rows)?,
            floors: gpu.zeros(gpu.properties().multiprocessors as usize)?,
            normed: gpu.zeros(cols.next_multiple_of(LANES) + 1)?,
        })
    }
}

/// As [`head`](super::head) for one token, `x` of `[cols]`, without the logits: the id of the largest, of the capped ones if there is a cap, into `out.best`, and onwards as there.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not agree, a sketch of another shape, or rows too long for shared memory.
pub fn largest(
    gpu: &Gpu,
    (matrix, sketch): (&VocabularyMatrix, &HeadSketch),
    x: &DeviceArray<f32>,
    norm: &DeviceArray<f32>,
    (eps, cap): (f32, Option<f32>),
    buffers: &SketchBuffers,
    out: &HeadOutput,
    advance: usize,
) -> Result<()> {
    const OP: &str = "largest";
    let (rows, cols) = (matrix.rows(), matrix.cols());
    need(OP, "rows of the sketch", rows, sketch.rows)?;
    need(OP, "columns of the sketch", cols, sketch.cols)?;
    need(OP, "x", cols, x.len())?;
    need(OP, "norm", cols, norm.len())?;
    need(OP, "estimates", rows, buffers.estimates.len())?;
    need(OP, "normed", cols.next_multiple_of(LANES) + 1, buffers.normed.len())?;
    let name = match matrix.kind() {
        FloatKind::F32 => "sketch_settle_f32",
        FloatKind::F16 => "sketch_settle_f16",
        FloatKind::Bf16 => "sketch_settle_bf16",
        FloatKind::Int8 => return Err(CudaError::shape(OP, "a head of floats", "one of bytes")),
    };
    let floats = 4 * cols.next_multiple_of(LANES);
    let [estimate, settle] = [
        ESTIMATE_THREADS as usize / 32 * RING + floats,
        SETTLE_THREADS as usize / 32 * PIECE + floats,
    ];
    let room = gpu.properties().shared_memory as usize - 12 * 1024;
    if estimate.max(settle) > room {
        let most = (room - PIECE * (SETTLE_THREADS as usize / 32)) / 4;
        return Err(CudaError::shape(OP, format!("rows of at most {most} values"), cols));
    }
    let blocks = buffers.floors.len();
    let modules = [&MODULE, &OVERLAPPED];
    let launch = Launch::chained(gpu, modules, "sketch_estimate", [blocks, 1], ESTIMATE_THREADS)
        .shared(estimate)
        .array(&sketch.bytes)
        .array(&sketch.steps)
        .array(&sketch.radii)
        .u32(rows)
        .u32(cols)
        .array(x)
        .array(norm)
        .f32(eps)
        .array(&buffers.estimates)
        .array(&buffers.floors)
        .array(&buffers.normed);
    // SAFETY: the kernel's parameters in order; lengths were compared above, and there are as many floors as blocks.
    unsafe { launch.run()? };
    #[cfg(test)]
    let read = sketch.read.as_ref();
    #[cfg(not(test))]
    let read: Option<&DeviceArray<u32>> = None;
    let launch = Launch::chained(gpu, modules, name, [blocks, 1], SETTLE_THREADS)
        .shared(settle)
        .array(matrix.weights())
        .array(&sketch.radii)
        .u32(rows)
        .u32(cols)
        .array(&buffers.estimates)
        .array(&buffers.floors)
        .array(&buffers.normed)
        .f32(cap.unwrap_or(0.0))
        .optional(read);
    // SAFETY: the kernel's parameters in order; lengths were compared above, `out` has room for as many blocks as there are multiprocessors, and the kernel
    // compares the position with the context.
    unsafe { out.receive(launch, 0..1, advance).run() }
}
