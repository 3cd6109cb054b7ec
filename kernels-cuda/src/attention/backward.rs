//! The backward's launches.

use half::bf16;

use super::backward_hopper::{self, Backward};
use super::{AttentionShape, need, takes_hopper_kernel};
use crate::device::{DeviceArray, Gpu, Kernel, Launch, Module, Result, ptx};
use crate::dropout::Dropout;
use crate::rope::{RopeTable, rope_backward};

static QUERIES: Module = ptx!("backward_queries.ptx");
static KEYS: Module = ptx!("backward_keys.ptx");
const QUERIES_32: Kernel = QUERIES.kernel("attention_queries_32");
const QUERIES_64: Kernel = QUERIES.kernel("attention_queries_64");
const QUERIES_128: Kernel = QUERIES.kernel("attention_queries_128");
const KEYS_32: Kernel = KEYS.kernel("attention_keys_32");
const KEYS_64: Kernel = KEYS.kernel("attention_keys_64");
const KEYS_128: Kernel = KEYS.kernel("attention_keys_128");
const DROP_QUERIES_32: Kernel = QUERIES.kernel("attention_drop_queries_32");
const DROP_QUERIES_64: Kernel = QUERIES.kernel("attention_drop_queries_64");
const DROP_QUERIES_128: Kernel = QUERIES.kernel("attention_drop_queries_128");
const DROP_KEYS_32: Kernel = KEYS.kernel("attention_drop_keys_32");
const DROP_KEYS_64: Kernel = KEYS.kernel("attention_drop_keys_64");
const DROP_KEYS_128: Kernel = KEYS.kernel("attention_drop_keys_128");

/// Queries of a block of the first kernel, keys of one of the second.
const TILE: usize = 128;
/// Queries of a step of the second kernel.
const STEP: usize = 64;

/// Gradients of [`attention`](super::attention) with the same `dropout`: writes all of `dqkv`.
///
/// `qkv`, `o` and `lse` are those of the forward, `d_o` (`[batch·seq, heads·head_dim]`) is the gradient of `o`, `dqkv` has the layout of `qkv`, and `delta`
/// (`[batch, heads, seq]`) is overwritten with `rowsum(d_o·o)`, which the two kernels share. `dk` and `dv` sum over the query heads of the group in order.
///
/// With `rotation` the gradients of queries and keys are turned back before they are stored, so that `dqkv` is the gradient of what
/// [`rope`](crate::rope::rope) (without a norm) was given.
///
/// # Errors
/// [`CudaError::Shape`](crate::CudaError::Shape): lengths that do not follow from `shape`, a table that is not for it, a shape that no kernel has, or a probability of
/// dropout outside `[0, 1)`.
pub fn attention_backward(
    gpu: &Gpu,
    shape: AttentionShape,
    dropout: Option<&Dropout<'_>>,
    qkv: &DeviceArray<bf16>,
    o: &DeviceArray<bf16>,
    lse: &DeviceArray<f32>,
    d_o: &DeviceArray<bf16>,
    rotation: Option<&RopeTable>,
    delta: &DeviceArray<f32>,
    dqkv: &DeviceArray<bf16>,
) -> Result<()> {
    let hopper = takes_hopper_kernel(gpu, &shape);
    attention_backward_by(gpu, shape, dropout, qkv, o, lse, d_o, rotation, delta, dqkv, hopper)
}

/// [`attention_backward`] by Hopper's own kernels, where the shape has them and nothing is dropped, or by those of every GPU.
pub(super) fn attention_backward_by(
    gpu: &Gpu,
    shape: AttentionShape,
    dropout: Option<&Dropout<'_>>,
    qkv: &DeviceArray<bf16>,
    o: &DeviceArray<bf16>,
    lse: &DeviceArray<f32>,
    d_o: &DeviceArray<bf16>,
    rotation: Option<&RopeTable>,
    delta: &DeviceArray<f32>,
    dqkv: &DeviceArray<bf16>,
    hopper: bool,
) -> Result<()> {
    const OP: &str = "attention_backward";
    shape.check(OP)?;
    need(OP, "qkv", qkv, shape.tokens() * shape.qkv_row())?;
    need(OP, "o", o, shape.tokens() * shape.o_row())?;
    need(OP, "lse", lse, shape.rows())?;
    need(OP, "d_o", d_o, shape.tokens() * shape.o_row())?;
    need(OP, "delta", delta, shape.rows())?;
    need(OP, "dqkv", dqkv, shape.tokens() * shape.qkv_row())?;
    if let Some(table) = rotation {
        table.check(OP, &shape)?;
    }
    if shape.is_empty() {
        return Ok(());
    }
    let d = shape.padded();
    // The halves of a head lie in the same thread if the head is not padded.
    let fused = rotation.filter(|_| d == shape.head_dim);
    if hopper && dropout.is_none() && d >= 64 && d == shape.head_dim {
        let backward = Backward {
            shape,
            qkv,
            o,
            lse,
            d_o,
            rotation,
            delta,
            dqkv,
        };
        backward.queries(gpu, backward_hopper::queries(d))?;
        return backward.keys(gpu, backward_hopper::keys(d));
    }
    let tiles = shape.seq.div_ceil(TILE);
    let group = shape.heads / shape.kv_heads;
    let [queries, keys] = match (d, dropout.is_some()) {
        (32, false) => [QUERIES_32, KEYS_32],
        (64, false) => [QUERIES_64, KEYS_64],
        (_, false) => [QUERIES_128, KEYS_128],
        (32, true) => [DROP_QUERIES_32, DROP_KEYS_32],
        (64, true) => [DROP_QUERIES_64, DROP_KEYS_64],
        (_, true) => [DROP_QUERIES_128, DROP_KEYS_128],
    };

    // Queries and the gradient of the output, and two steps of keys and values.
    let step = if d == 128 { 32 } else { 64 };
    let launch = Launch::new(gpu, queries, [(tiles * shape.batch * shape.heads) as u32, 1, 1], 128)
        .shared(2 * d * (2 * TILE + 2 * 2 * step))
        .array(qkv)
        .array(o)
        .array(lse)
        .array(d_o)
        .optional(fused.map(|table| &table.cos))
        .optional(fused.map(|table| &table.sin))
        .array(delta)
        .array(dqkv)
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
    // SAFETY: the parameters are the kernel's, whichever it is; it reads and writes rows of tokens below `batch·seq`, columns of a row as `shape` has them and rows of the
    // table below `seq`, and the lengths were compared above. Shared memory is what its tiles take.
    unsafe { launch.run()? };

    // Keys and values; two or, where two warps share a tile, three steps of queries and gradients, and the probabilities that pass between such warps.
    let (threads, shared) = if d == 128 {
        (
            256,
            2 * d * (2 * TILE + 3 * 2 * STEP) + 3 * 2 * STEP * 4 + 2 * 2 * TILE * STEP,
        )
    } else {
        (128, 2 * d * (2 * TILE + 2 * 2 * STEP) + 2 * 2 * STEP * 4)
    };
    let launch = Launch::new(
        gpu,
        keys,
        [(tiles * shape.batch * shape.kv_heads) as u32, 1, 1],
        threads,
    )
    .shared(shared)
    .array(qkv)
    .array(lse)
    .array(d_o)
    .array(delta)
    .optional(fused.map(|table| &table.cos))
    .optional(fused.map(|table| &table.sin))
    .array(dqkv)
    .u32(shape.batch)
    .u32(shape.seq)
    .u32(shape.heads)
    .u32(shape.kv_heads)
    .u32(shape.head_dim)
    .u32(shape.section(4 * shape.head_dim * group))
    .f32(shape.scale());
    let launch = match dropout {
        Some(_) => Dropout::push(dropout, OP, launch)?,
        None => launch,
    };
    // SAFETY: as above.
    unsafe { launch.run()? };

    match rotation {
        Some(table) if fused.is_none() => rope_backward(gpu, shape, table, dqkv),
        _ => Ok(()),
    }
}
