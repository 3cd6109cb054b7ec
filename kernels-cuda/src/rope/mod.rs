//! Rotary position embedding (Su et al., "RoFormer", 2021) in the half-split arrangement of the LLaMA family, and the norm of queries and keys before it.
//!
//! ```text
//! head = [a | b], two halves of h = head_dim/2 values       y = x·r·w,  r = 1/sqrt(mean(x²) + eps)     with a norm, else y = x
//! a'[i] = a[i]·cos − b[i]·sin                               angle = position · theta^(−i/h),  position = token mod seq
//! b'[i] = b[i]·cos + a[i]·sin
//! ```
//! A rotation keeps lengths, so its inverse (the angle negated) is its backward. The backward of the norm needs what it was given, so then the forward
//! writes to another array; it computes `r` again:
//! ```text
//! g = turned-back gradient       x̂ = x·r       dx = r·(g·w − x̂·mean(g·w·x̂))       dw = Σ_rows g·x̂
//! ```
//! All maths is f32; what is stored is bf16. The sum of `dw` has a fixed order: a thread's heads and tokens, the block's threads, the blocks.

#[cfg(test)]
mod tests;

use half::bf16;

use crate::attention::{AttentionShape, need};
use crate::device::{CudaError, DeviceArray, Gpu, Kernel, Launch, Module, Result, ptx};

static MODULE: Module = ptx!("kernel.ptx");
const ROPE_4: Kernel = MODULE.kernel("rope_4");
const ROPE_8: Kernel = MODULE.kernel("rope_8");
const NORM_4: Kernel = MODULE.kernel("rope_norm_4");
const NORM_8: Kernel = MODULE.kernel("rope_norm_8");
const NORM_BACKWARD_4: Kernel = MODULE.kernel("rope_norm_backward_4");
const NORM_BACKWARD_8: Kernel = MODULE.kernel("rope_norm_backward_8");
const SUM_PARTIALS: Kernel = MODULE.kernel("rope_norm_sum_partials");

const THREADS: usize = 256;
/// Blocks of the norm's backward at most: four on each multiprocessor of an H100.
const BLOCKS: usize = 528;

/// Cosines and sines of positions `0..seq`, each `[seq, head_dim/2]`, made in f64.
#[derive(Clone, Debug)]
pub struct RopeTable {
    pub(crate) cos: DeviceArray<f32>,
    pub(crate) sin: DeviceArray<f32>,
    positions: usize,
    head_dim: usize,
}

impl RopeTable {
    /// The table of base `theta` for positions `0..seq` of heads of `head_dim` (even).
    ///
    /// # Errors
    /// An odd or no `head_dim`; no memory.
    pub fn new(gpu: &Gpu, theta: f64, head_dim: usize, seq: usize) -> Result<Self> {
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(CudaError::shape("rope", "an even head_dim", head_dim));
        }
        let half = head_dim / 2;
        let angles = (0..seq * half).map(|at| (at / half) as f64 * theta.powf(-((at % half) as f64) / half as f64));
        let (sin, cos): (Vec<f32>, Vec<f32>) = angles.map(|a| (a.sin() as f32, a.cos() as f32)).unzip();
        Ok(RopeTable {
            cos: gpu.upload(&cos)?,
            sin: gpu.upload(&sin)?,
            positions: seq,
            head_dim,
        })
    }

    /// Fails if it is not for heads of this shape, or for fewer positions.
    pub(crate) fn check(&self, op: &'static str, shape: &AttentionShape) -> Result<()> {
        if self.head_dim == shape.head_dim && self.positions >= shape.seq {
            return Ok(());
        }
        let expected = format!(
            "a table for heads of {}, at least {} positions",
            shape.head_dim, shape.seq
        );
        Err(CudaError::shape(op, expected, format!("{self:?}")))
    }
}

/// The norm of queries and keys before the rotation.
#[derive(Clone, Copy, Debug)]
pub struct QkNorm<'a> {
    /// Weights of the queries' norm, `[head_dim]`.
    pub q: &'a DeviceArray<f32>,
    /// Weights of the keys' norm, `[head_dim]`.
    pub k: &'a DeviceArray<f32>,
    /// Added to the mean of the squares.
    pub eps: f32,
}

/// Turns the queries and keys of `qkv` (`[batch·seq, (heads + 2·kv_heads)·head_dim]`) by their positions, after their norm if there is one, into `out`,
/// which has the same layout; values are copied. Without a norm `out` may be `qkv` itself.
///
/// # Errors
/// [`CudaError::Shape`]: lengths that do not follow from `shape`, a table that is not for it, or a norm in place.
pub fn rope(
    gpu: &Gpu,
    shape: AttentionShape,
    table: &RopeTable,
    norm: Option<QkNorm>,
    qkv: &DeviceArray<bf16>,
    out: &DeviceArray<bf16>,
) -> Result<()> {
    const OP: &str = "rope";
    shape.check(OP)?;
    table.check(OP, &shape)?;
    need(OP, "qkv", qkv, shape.tokens() * shape.qkv_row())?;
    need(OP, "out", out, shape.tokens() * shape.qkv_row())?;
    let Some(norm) = norm else {
        return rotate(gpu, shape, table, false, qkv, out);
    };
    need(OP, "the queries' weights", norm.q, shape.head_dim)?;
    need(OP, "the keys' weights", norm.k, shape.head_dim)?;
    if qkv.address() == out.address() {
        return Err(CudaError::shape(
            OP,
            "another array for the result of a norm",
            "the same",
        ));
    }
    let form = Form::new(OP, &shape, true)?;
    let launch = form
        .launch(gpu, [NORM_4, NORM_8], form.blocks)
        .array(qkv)
        .array(out)
        .array(&table.cos)
        .array(&table.sin)
        .array(norm.q)
        .array(norm.k)
        .f32(norm.eps);
    // SAFETY: the parameters are the kernel's; it reads and writes rows below `batch·seq` and columns of a row as `shape` has them, rows of the table below
    // `seq`, and `head_dim` weights, whose lengths were compared above.
    unsafe { form.shape(launch, &shape).run() }
}

/// Turns the gradient of rotated queries and keys, in `dqkv`, into that of what [`rope`] without a norm was given, in place; the values' stays.
///
/// # Errors
/// As [`rope`].
pub fn rope_backward(gpu: &Gpu, shape: AttentionShape, table: &RopeTable, dqkv: &DeviceArray<bf16>) -> Result<()> {
    const OP: &str = "rope_backward";
    shape.check(OP)?;
    table.check(OP, &shape)?;
    need(OP, "dqkv", dqkv, shape.tokens() * shape.qkv_row())?;
    rotate(gpu, shape, table, true, dqkv, dqkv)
}

/// Elements of the `partials` of [`rope_norm_backward`].
pub fn rope_norm_partials(shape: AttentionShape) -> usize {
    BLOCKS * 2 * shape.head_dim
}

/// The backward of [`rope`] with a norm: `dqkv` changes in place from the gradient of the result into that of `qkv`, and the gradients of the weights
/// are written to `dw_q` and `dw_k` (`[head_dim]`), or added with `accumulate`.
///
/// `qkv` is what [`rope`] was given; `partials` is scratch of [`rope_norm_partials`] elements.
///
/// # Errors
/// As [`rope`].
pub fn rope_norm_backward(
    gpu: &Gpu,
    shape: AttentionShape,
    table: &RopeTable,
    norm: QkNorm,
    qkv: &DeviceArray<bf16>,
    dqkv: &DeviceArray<bf16>,
    dw_q: &DeviceArray<f32>,
    dw_k: &DeviceArray<f32>,
    accumulate: bool,
    partials: &DeviceArray<f32>,
) -> Result<()> {
    const OP: &str = "rope_norm_backward";
    shape.check(OP)?;
    table.check(OP, &shape)?;
    need(OP, "qkv", qkv, shape.tokens() * shape.qkv_row())?;
    need(OP, "dqkv", dqkv, shape.tokens() * shape.qkv_row())?;
    need(OP, "the queries' weights", norm.q, shape.head_dim)?;
    need(OP, "the keys' weights", norm.k, shape.head_dim)?;
    need(OP, "dw_q", dw_q, shape.head_dim)?;
    need(OP, "dw_k", dw_k, shape.head_dim)?;
    need(OP, "partials", partials, rope_norm_partials(shape))?;
    let form = Form::new(OP, &shape, false)?;
    let blocks = form.blocks.min(BLOCKS);
    let launch = form
        .launch(gpu, [NORM_BACKWARD_4, NORM_BACKWARD_8], blocks)
        .array(qkv)
        .array(dqkv)
        .array(&table.cos)
        .array(&table.sin)
        .array(norm.q)
        .array(norm.k)
        .f32(norm.eps)
        .array(partials);
    // SAFETY: as in `rope`; each of at most `BLOCKS` blocks writes its own `2·head_dim` partial sums.
    unsafe { form.shape(launch, &shape).run()? };
    let launch = Launch::new(
        gpu,
        SUM_PARTIALS,
        [shape.head_dim.div_ceil(32) as u32, 2, 1],
        THREADS as u32,
    )
    .array(partials)
    .u32(blocks)
    .u32(shape.head_dim)
    .array(dw_q)
    .array(dw_k)
    .u32(usize::from(accumulate));
    // SAFETY: reads the partial sums of those blocks, and writes `head_dim` elements of each gradient.
    unsafe { launch.run() }
}

fn rotate(
    gpu: &Gpu,
    shape: AttentionShape,
    table: &RopeTable,
    inverse: bool,
    qkv: &DeviceArray<bf16>,
    out: &DeviceArray<bf16>,
) -> Result<()> {
    let form = Form::new("rope", &shape, qkv.address() != out.address())?;
    let launch = form
        .launch(gpu, [ROPE_4, ROPE_8], form.blocks)
        .array(qkv)
        .array(out)
        .array(&table.cos)
        .array(&table.sin)
        .f32(if inverse { -1.0 } else { 1.0 });
    // SAFETY: the parameters are the kernel's; it reads and writes rows below `batch·seq` and columns of a row as `shape` has them, and rows of the table
    // below `seq`. The callers compared the lengths.
    unsafe { form.shape(launch, &shape).run() }
}

/// How threads lie over heads: `2^log_lanes` adjacent threads a head, each with `width` elements of both halves; then, to copy values, threads of 8.
struct Form {
    width: usize,
    log_lanes: u32,
    /// Threads that copy values, for each token.
    copies: usize,
    blocks: usize,
}

impl Form {
    fn new(op: &'static str, shape: &AttentionShape, copy: bool) -> Result<Self> {
        let half = shape.head_dim / 2;
        let width = if half.is_multiple_of(8) { 8 } else { 4 };
        let lanes = half.div_ceil(width).next_power_of_two();
        let turned = (shape.heads + shape.kv_heads) * lanes;
        let copies = if copy { shape.kv_heads * shape.head_dim / 8 } else { 0 };
        let threads = shape.tokens() * (turned + copies);
        if threads + THREADS >= 1 << 31 {
            return Err(CudaError::shape(op, "less than 2^31 threads", threads));
        }
        Ok(Form {
            width,
            log_lanes: lanes.ilog2(),
            copies,
            blocks: threads.div_ceil(THREADS),
        })
    }

    fn launch<'a>(&self, gpu: &'a Gpu, kernels: [Kernel; 2], blocks: usize) -> Launch<'a> {
        let kernel = kernels[usize::from(self.width == 8)];
        Launch::new(gpu, kernel, [blocks as u32, 1, 1], THREADS as u32)
    }

    fn shape<'a>(&self, launch: Launch<'a>, shape: &AttentionShape) -> Launch<'a> {
        launch
            .u32(shape.tokens())
            .u32(shape.seq)
            .u32(shape.heads)
            .u32(shape.kv_heads)
            .u32(shape.head_dim)
            .u32(self.log_lanes as usize)
            .u32(self.copies)
    }
}
