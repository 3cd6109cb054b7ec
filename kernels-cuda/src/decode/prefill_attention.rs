//! Attention of many tokens over the cache.

use super::attention::{Attention, tokens_of};
use super::cache::{CacheLayer, KvCache};
use crate::device::{CudaError, DeviceArray, Gpu, Launch, Module, Result, ptx};

pub(super) static MODULE: Module = ptx!("prefill_attention.ptx");

pub(super) const THREADS: usize = 256;
pub(super) const WARPS: usize = THREADS / 32;
/// Query heads of tokens, of one key head, that a block has.
pub(super) const ROWS: usize = 32;
const POSITIONS: usize = 128;
/// Most values of a head.
pub(super) const MOST_HEAD_DIM: usize = 128;

/// Bytes of shared memory.
pub(super) fn shared_bytes(dim: usize) -> usize {
    4 * (POSITIONS * dim + ROWS * (dim + 4) + ROWS * (POSITIONS + 4) + 2 * POSITIONS + 4 * ROWS)
}

/// As [`attend`](super::attend) for any number of tokens, of heads of up to 128 values. Queries and keys in `qkv` are overwritten.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not agree, or longer heads.
pub fn attend_many(
    gpu: &Gpu,
    attention: &Attention,
    cache: &KvCache,
    layer: usize,
    qkv: &DeviceArray<f32>,
    norms: Option<[&DeviceArray<f32>; 2]>,
    position: &DeviceArray<u32>,
    out: &DeviceArray<f32>,
) -> Result<()> {
    const OP: &str = "attend_many";
    let (heads, kv, dim, context) = (attention.heads, cache.kv_heads, cache.head_dim, cache.context);
    let tokens = tokens_of(OP, attention, cache, qkv, norms, position, out)?;
    let shared = shared_bytes(dim);
    if dim > MOST_HEAD_DIM
        || !heads.is_multiple_of(kv)
        || layer >= cache.layers()
        || attention.rotation.cos.len() < context * dim / 2
        || shared > gpu.properties().shared_memory as usize
    {
        return Err(CudaError::shape(
            OP,
            format!("a layer of the cache, and heads of up to {MOST_HEAD_DIM} values"),
            format!("{layer}, {dim}"),
        ));
    }
    let CacheLayer { keys, values, scales } = cache.layer(layer);
    let place = (cache.kind).of_three(["place_f32", "place_f16", "place_int8"]);
    let attend = (cache.kind).of_three(["attend_many_f32", "attend_many_f16", "attend_many_int8"]);
    let start = |name: &'static str, grid: [usize; 2]| {
        let [x, y] = grid.map(|n| n as u32);
        Launch::new(gpu, MODULE.kernel(name), [x, y, 1], THREADS as u32)
            .u32(heads)
            .u32(kv)
            .u32(dim)
            .u32(tokens)
            .u32(context)
    };
    let launch = start(place, [(tokens * (heads + 2 * kv)).div_ceil(WARPS), 1])
        .shared(4 * WARPS * dim)
        .f32(attention.eps)
        .array(qkv)
        .optional(norms.map(|norms| norms[0]))
        .optional(norms.map(|norms| norms[1]))
        .array(&attention.rotation.cos)
        .array(&attention.rotation.sin)
        .array(position)
        .array(&keys)
        .array(&values)
        .optional(scales.as_ref().map(|scales| &scales[0]))
        .optional(scales.as_ref().map(|scales| &scales[1]));
    // SAFETY: the kernel's parameters in order; lengths were compared above, shared memory has a head for each warp, and the kernel compares the position with the
    // context.
    unsafe { launch.run()? };
    let launch = start(attend, [(tokens * (heads / kv)).div_ceil(ROWS), kv])
        .shared(shared)
        .f32((1.0 / (dim as f64).sqrt()) as f32)
        .array(qkv)
        .array(position)
        .array(&keys)
        .array(&values)
        .optional(scales.as_ref().map(|scales| &scales[0]))
        .optional(scales.as_ref().map(|scales| &scales[1]))
        .array(out);
    // SAFETY: as above; shared memory is what the kernel lays out in it.
    unsafe { launch.run() }
}
