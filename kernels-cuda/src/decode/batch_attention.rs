//! Attention of tokens of many sequences, each over its own cache.

use super::attention::{Attention, EACH_OF_MANY, SingleGrid};
use super::cache::{CacheLayer, KvCache, POSITIONS};
use super::prefill_attention::{MODULE, MOST_HEAD_DIM, ROWS, THREADS, WARPS, shared_bytes};
use crate::device::{CudaError, DeviceArray, Gpu, Launch, Result};
use crate::ternary_gemv::{PART_MORE, need};

/// Whose the tokens of a launch are, and where: those of spans first, span by span, then those that are the only ones of their sequences.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// The sequence and the position of each token, `[tokens, 2]`.
    pub places: DeviceArray<u32>,
    /// The first token of a span, its tokens, and the first of up to 32 rows of it, a row being a query head of a token over one key head; `[tiles, 3]`.
    pub tiles: DeviceArray<u32>,
    /// Tokens of spans.
    pub spans: usize,
    /// Positions that the single token furthest on sees.
    pub seen: usize,
}

/// Tiles of a span of so many tokens.
pub(super) fn tiles_of(tokens: usize, group: usize) -> usize {
    (tokens * group).div_ceil(ROWS)
}

/// Rows of a tile.
pub(super) const TILE: usize = ROWS;

/// Attention of tokens where `batch` says: `qkv`, `[tokens, (heads + 2 kv_heads) · head_dim]`, is normed, turned and stored as by [`attend`](super::attend), in the cache of each token's sequence, and `out` is
/// `[tokens, heads · head_dim]`. Queries and keys of spans are overwritten. Three kernels at most, whoever the tokens belong to.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not agree, more single tokens than there is room for, or heads of more than 128 values.
pub(super) fn attend_batch(
    gpu: &Gpu,
    attention: &Attention,
    cache: &KvCache,
    layer: usize,
    qkv: &DeviceArray<f32>,
    norms: Option<[&DeviceArray<f32>; 2]>,
    batch: &Places,
    out: &DeviceArray<f32>,
) -> Result<()> {
    const OP: &str = "attend_batch";
    let (heads, kv, dim, context) = (attention.heads, cache.kv_heads, cache.head_dim, cache.context);
    let (tokens, width) = (out.len() / (heads * dim), (heads + 2 * kv) * dim);
    need(OP, "out", tokens * heads * dim, out.len())?;
    need(OP, "qkv", tokens * width, qkv.len())?;
    need(OP, "places", 2 * tokens, batch.places.len())?;
    for norm in norms.iter().flatten() {
        need(OP, "norm", dim, norm.len())?;
    }
    let spans = batch.spans;
    let singles = tokens.saturating_sub(spans);
    let parts = singles * heads * (context / POSITIONS) * (dim + PART_MORE);
    let shared = shared_bytes(dim);
    if layer >= cache.layers()
        || spans > tokens
        || dim > MOST_HEAD_DIM
        || shared > gpu.properties().shared_memory as usize
        || attention.parts.len() < parts
        || attention.counters.len() < singles * heads
    {
        return Err(CudaError::shape(
            OP,
            format!(
                "a layer of the cache, heads of up to {MOST_HEAD_DIM} values, and as many tokens as there is room for"
            ),
            format!("{layer}, {dim}, {singles} and {spans}"),
        ));
    }
    let CacheLayer { keys, values, scales } = cache.layer(layer);
    let factor = (1.0 / (dim as f64).sqrt()) as f32;
    let [q_norm, k_norm] = [0, 1].map(|i| norms.map(|norms| norms[i]));
    let [key_scales, value_scales] = [0, 1].map(|i| scales.as_ref().map(|scales| &scales[i]));
    if spans > 0 {
        let start = |names, grid: [usize; 2]| {
            let [x, y] = grid.map(|n| n as u32);
            let kernel = MODULE.kernel(cache.kind.of_three(names));
            Launch::new(gpu, kernel, [x, y, 1], THREADS as u32)
                .u32(heads)
                .u32(kv)
                .u32(dim)
        };
        let grid = [(spans * (heads + 2 * kv)).div_ceil(WARPS), 1];
        let launch = start(["place_each_f32", "place_each_f16", "place_each_int8"], grid)
            .shared(4 * WARPS * dim)
            .u32(spans)
            .u32(context)
            .f32(attention.eps)
            .array(qkv)
            .optional(q_norm)
            .optional(k_norm)
            .array(&attention.rotation.cos)
            .array(&attention.rotation.sin)
            .array(&batch.places)
            .u32(cache.apart())
            .array(&keys)
            .array(&values)
            .optional(key_scales)
            .optional(value_scales);
        // SAFETY: the kernel's parameters in order; lengths were compared above, shared memory has a head for each warp, the kernel compares positions with the context, and whoever made `batch`
        // its sequences with those of the cache.
        unsafe { launch.run()? };
        let names = ["attend_spans_f32", "attend_spans_f16", "attend_spans_int8"];
        let launch = start(names, [batch.tiles.len() / 3, kv])
            .shared(shared)
            .u32(context)
            .f32(factor)
            .array(qkv)
            .array(&batch.places)
            .array(&batch.tiles)
            .u32(cache.apart())
            .array(&keys)
            .array(&values)
            .optional(key_scales)
            .optional(value_scales)
            .array(out);
        // SAFETY: as above; shared memory is what the kernel lays out in it, and whoever made `batch` has compared its tiles with its tokens.
        unsafe { launch.run()? };
    }
    if singles == 0 {
        return Ok(());
    }
    let blocks = batch.seen.div_ceil(POSITIONS).clamp(1, context / POSITIONS);
    let grid = SingleGrid::new(gpu, heads, singles, cache, blocks);
    let name = cache.kind.of_three(match grid.rows {
        1 => ["attend_each_head_f32", "attend_each_head_f16", "attend_each_head_int8"],
        _ => [
            "attend_each_heads_f32",
            "attend_each_heads_f16",
            "attend_each_heads_int8",
        ],
    });
    let launch = Launch::chained(gpu, EACH_OF_MANY, name, [heads / grid.rows, grid.shares], grid.threads)
        .times(singles)
        .shared(grid.shared)
        .u32(heads)
        .u32(kv)
        .u32(heads / kv)
        .u32(dim)
        .u32(context)
        .f32(attention.eps)
        .f32(factor)
        .array(&qkv.slice(spans * width..))
        .optional(q_norm)
        .optional(k_norm)
        .array(&attention.rotation.cos)
        .array(&attention.rotation.sin)
        .array(&batch.places.slice(2 * spans..))
        .u32(cache.apart())
        .array(&keys)
        .array(&values)
        .optional(key_scales)
        .optional(value_scales)
        .array(&attention.parts)
        .array(&attention.counters)
        .array(&out.slice(spans * heads * dim..));
    // SAFETY: as above; there is room for the parts and counters of every single token, and `Attention::new` compared the shape with shared memory.
    unsafe { launch.run() }
}
