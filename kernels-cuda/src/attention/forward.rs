//! The forward's launch.

use half::bf16;

use super::{AttentionShape, need, takes_hopper_kernel};
use crate::device::{DeviceArray, Gpu, Kernel, Launch, Module, Result, ptx};
use crate::dropout::Dropout;

static MODULE: Module = ptx!("forward.ptx");
static HOPPER: Module = ptx!("wgmma.ptx");
const D32: Kernel = MODULE.kernel("attention_32");
const D64: Kernel = MODULE.kernel("attention_64");
const D128: Kernel = MODULE.kernel("attention_128");
const DROP_32: Kernel = MODULE.kernel("attention_drop_32");
const DROP_64: Kernel = MODULE.kernel("attention_drop_64");
const DROP_128: Kernel = MODULE.kernel("attention_drop_128");
const WGMMA_64: Kernel = HOPPER.kernel("attention_wgmma_64");
const WGMMA_128: Kernel = HOPPER.kernel("attention_wgmma_128");

/// Queries of a block.
const QUERIES: usize = 128;
/// Keys of a step.
const KEYS: usize = 64;

/// Attention of every head of every sequence.
///
/// `qkv` is `[batch·seq, (heads + 2·kv_heads)·head_dim]` (queries and keys already rotated), `o` `[batch·seq, heads·head_dim]`, and `lse`
/// `[batch, heads, seq]` receives the natural logarithm of the sum of the exponentials of each row of scaled scores, which the backward needs. With `dropout`
/// probabilities are dropped.
///
/// # Errors
/// [`CudaError::Shape`](crate::CudaError::Shape): lengths that do not follow from `shape`, a shape that no kernel has, or a probability of dropout outside `[0, 1)`.
pub fn attention(
    gpu: &Gpu,
    shape: AttentionShape,
    dropout: Option<&Dropout<'_>>,
    qkv: &DeviceArray<bf16>,
    o: &DeviceArray<bf16>,
    lse: &DeviceArray<f32>,
) -> Result<()> {
    attention_by(gpu, shape, dropout, qkv, o, lse, takes_hopper_kernel(gpu, &shape))
}

/// [`attention`] by Hopper's own kernel, if nothing is dropped, or by that of every GPU.
pub(super) fn attention_by(
    gpu: &Gpu,
    shape: AttentionShape,
    dropout: Option<&Dropout<'_>>,
    qkv: &DeviceArray<bf16>,
    o: &DeviceArray<bf16>,
    lse: &DeviceArray<f32>,
    hopper: bool,
) -> Result<()> {
    const OP: &str = "attention";
    shape.check(OP)?;
    need(OP, "qkv", qkv, shape.tokens() * shape.qkv_row())?;
    need(OP, "o", o, shape.tokens() * shape.o_row())?;
    need(OP, "lse", lse, shape.rows())?;
    if shape.is_empty() {
        return Ok(());
    }
    let d = shape.padded();
    let (kernel, threads) = match (d, dropout.is_some(), hopper) {
        (32, false, _) => (D32, 128),
        (64, false, false) => (D64, 128),
        (64, false, true) => (WGMMA_64, 256),
        (_, false, false) => (D128, 128),
        (_, false, true) => (WGMMA_128, 256),
        (32, true, _) => (DROP_32, 128),
        (64, true, _) => (DROP_64, 128),
        (_, true, _) => (DROP_128, 128),
    };
    let group = shape.heads / shape.kv_heads;
    let tiles = shape.seq.div_ceil(QUERIES);
    let blocks = tiles * shape.batch * shape.heads;
    // The queries, and two steps of keys and values.
    let shared = 2 * d * (QUERIES + 2 * 2 * KEYS);
    let launch = Launch::new(gpu, kernel, [blocks as u32, 1, 1], threads)
        .shared(shared)
        .array(qkv)
        .array(o)
        .array(lse)
        .u32(shape.batch)
        .u32(shape.seq)
        .u32(shape.heads)
        .u32(shape.kv_heads)
        .u32(shape.head_dim)
        .u32(shape.section(4 * shape.head_dim) * group)
        .f32(shape.scale());
    let launch = match dropout {
        Some(_) => Dropout::push(dropout, OP, launch)?,
        None => launch,
    };
    // SAFETY: the parameters are the kernel's, whichever it is; it reads and writes rows of tokens below `batch·seq`, and columns of a row as `shape` has them, and
    // the lengths were compared above. Shared memory is what its tiles take.
    unsafe { launch.run() }
}
