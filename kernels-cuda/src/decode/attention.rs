//! Attention of a few tokens over the cache.

use super::cache::{CacheLayer, KvCache, POSITIONS};
use crate::device::{CudaError, DeviceArray, Gpu, Launch, Module, Result, ptx};
use crate::ternary_gemv::{PART_MORE, Parts, need};

static MODULE: Module = ptx!("attention.ptx");
static OVERLAPPED: Module = ptx!("attention_overlapped.ptx");
static SINGLE: Module = ptx!("attention_single.ptx");
static SINGLE_OVERLAPPED: Module = ptx!("attention_single_overlapped.ptx");
static EACH: Module = ptx!("attention_each.ptx");
static EACH_OVERLAPPED: Module = ptx!("attention_each_overlapped.ptx");

const THREADS: u32 = 256;
/// Most query heads of a key head.
const MOST_GROUP: usize = 32;
/// Most query heads of a block, where there is one token.
const MOST_ROWS: usize = 8;

/// Cosines and sines, `[context, head_dim / 2]` each.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// Cosines.
    pub cos: DeviceArray<f32>,
    /// Sines.
    pub sin: DeviceArray<f32>,
}

/// What attention of every layer needs.
#[derive(Clone, Debug)]
pub struct Attention {
    pub(super) heads: usize,
    pub(super) eps: f32,
    pub(super) rotation: Rotation,
    pub(super) parts: DeviceArray<f32>,
    pub(super) counters: DeviceArray<u32>,
    /// Blocks of positions for which the grids have blocks of threads, which take turns at more.
    grid_blocks: usize,
}

impl Attention {
    /// For up to `tokens` tokens at a time of `heads` query heads over `cache`; `eps` is that of the norms of queries and keys.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for heads that the kernel has no form for or a table that is too short; [`CudaError::OutOfMemory`].
    pub fn new(gpu: &Gpu, heads: usize, eps: f32, tokens: usize, rotation: Rotation, cache: &KvCache) -> Result<Self> {
        const OP: &str = "Attention";
        let (kv, dim) = (cache.kv_heads, cache.head_dim);
        if kv == 0
            || !heads.is_multiple_of(kv)
            || heads / kv > MOST_GROUP
            || heads < kv
            || dim == 0
            || !dim.is_multiple_of(4)
        {
            let found = format!("{heads} over {kv} of {dim}");
            return Err(CudaError::shape(
                OP,
                "up to 32 query heads for each key head, of whole fours",
                found,
            ));
        }
        for table in [&rotation.cos, &rotation.sin] {
            if table.len() < cache.context * dim / 2 {
                return Err(CudaError::shape(
                    OP,
                    format!("a table of {} rows", cache.context),
                    table.len() / (dim / 2),
                ));
            }
        }
        let room = gpu.properties().shared_memory as usize - 4096;
        if shared_bytes(heads / kv, cache) > room {
            return Err(CudaError::shape(
                OP,
                format!("heads whose block fits in {room} bytes"),
                shared_bytes(heads / kv, cache),
            ));
        }
        Ok(Attention {
            heads,
            eps,
            rotation,
            parts: gpu.zeros(cache.context / POSITIONS * tokens * heads * (dim + PART_MORE))?,
            counters: gpu.zeros(tokens * heads)?,
            grid_blocks: cache.context / POSITIONS,
        })
    }

    /// Makes the grids as large as tokens below `positions` need; those beyond get the same bits later.
    pub(super) fn fit_grid(&mut self, positions: usize, cache: &KvCache) {
        self.grid_blocks = positions.div_ceil(POSITIONS).clamp(1, cache.context / POSITIONS);
    }

    /// Where the parts of one token's attention over `cache` are, up to the position at `position`.
    pub(super) fn parts<'a>(&'a self, cache: &KvCache, position: &'a DeviceArray<u32>) -> Parts<'a> {
        Parts {
            parts: &self.parts,
            head_dim: cache.head_dim,
            group: self.heads / cache.kv_heads,
            cache_blocks: cache.context / POSITIONS,
            position,
        }
    }
}

/// Shared memory of a block that has `rows` query heads of a key head.
fn shared_bytes(rows: usize, cache: &KvCache) -> usize {
    2 * POSITIONS * cache.head_dim * cache.kind.bytes() + 4 * ((rows + 2) * cache.head_dim + (rows + 2) * POSITIONS)
}

/// The kernels for one token of each of many sequences.
pub(super) const EACH_OF_MANY: [&Module; 2] = [&EACH, &EACH_OVERLAPPED];

/// How single tokens are shared out.
pub(super) struct SingleGrid {
    /// Query heads of a block.
    pub rows: usize,
    /// Blocks for each of these.
    pub shares: usize,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of its shared memory.
    pub shared: usize,
}

impl SingleGrid {
    /// For `heads` query heads of a token, and as many tokens, which see `blocks` blocks of positions.
    pub fn new(gpu: &Gpu, heads: usize, tokens: usize, cache: &KvCache, blocks: usize) -> Self {
        let (rows, shares) = single_grid(gpu, (heads, tokens), cache, blocks);
        let threads = if rows == 1 { POSITIONS } else { rows * POSITIONS / 2 };
        SingleGrid {
            rows,
            shares,
            threads: threads as u32,
            shared: shared_bytes(rows, cache),
        }
    }
}

/// Query heads of a block, and blocks of the grid for each of these, where tokens have a block of their own: as few heads as leave all blocks of `blocks` blocks of positions on the
/// multiprocessors at once.
fn single_grid(gpu: &Gpu, (heads, tokens): (usize, usize), cache: &KvCache, blocks: usize) -> (usize, usize) {
    let group = heads / cache.kv_heads;
    let heads = heads * tokens;
    let room = gpu.properties().shared_memory as usize;
    let at_once =
        |rows: usize| gpu.properties().multiprocessors as usize * (room / (shared_bytes(rows, cache) + 1024)).max(1);
    let mut divisors = (1..=group.min(MOST_ROWS)).filter(|rows| group.is_multiple_of(*rows));
    let rows = divisors.clone().find(|rows| heads / rows * blocks <= at_once(*rows));
    let rows = rows.or_else(|| divisors.next_back()).unwrap_or(1);
    (rows, (at_once(rows) / (heads / rows)).clamp(1, blocks))
}

/// The tokens that `out` has room for, after what attention of them reads and writes beside the cache was compared with their number.
pub(super) fn tokens_of(
    op: &'static str,
    attention: &Attention,
    cache: &KvCache,
    qkv: &DeviceArray<f32>,
    norms: Option<[&DeviceArray<f32>; 2]>,
    position: &DeviceArray<u32>,
    out: &DeviceArray<f32>,
) -> Result<usize> {
    let (heads, kv, dim) = (attention.heads, cache.kv_heads, cache.head_dim);
    let tokens = out.len() / (heads * dim);
    need(op, "out", tokens * heads * dim, out.len())?;
    need(op, "qkv", tokens * (heads + 2 * kv) * dim, qkv.len())?;
    need(op, "position", 1, position.len())?;
    for norm in norms.iter().flatten() {
        need(op, "norm", dim, norm.len())?;
    }
    Ok(tokens)
}

/// Attention of the tokens from `position`, `[1]`, on: `qkv`, `[tokens, (heads + 2 kv_heads) · head_dim]`, is normed (with `norms` of queries and of keys,
/// `[head_dim]` each), turned, and its keys and values stored in the cache of `layer`; `out` is `[tokens, heads · head_dim]`. Where a token
/// would lie outside the cache nothing is written.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not agree.
pub fn attend(
    gpu: &Gpu,
    attention: &Attention,
    cache: &KvCache,
    layer: usize,
    qkv: &DeviceArray<f32>,
    norms: Option<[&DeviceArray<f32>; 2]>,
    position: &DeviceArray<u32>,
    out: &DeviceArray<f32>,
) -> Result<()> {
    attend_to(gpu, attention, cache, layer, qkv, norms, position, out, 1)
}

/// The same, but where a token sees 2 to `left` blocks of positions their parts are left to [`Attention::parts`].
pub(super) fn attend_to(
    gpu: &Gpu,
    attention: &Attention,
    cache: &KvCache,
    layer: usize,
    qkv: &DeviceArray<f32>,
    norms: Option<[&DeviceArray<f32>; 2]>,
    position: &DeviceArray<u32>,
    out: &DeviceArray<f32>,
    left: usize,
) -> Result<()> {
    const OP: &str = "attend";
    let (heads, kv, dim, context) = (attention.heads, cache.kv_heads, cache.head_dim, cache.context);
    let tokens = tokens_of(OP, attention, cache, qkv, norms, position, out)?;
    if attention.counters.len() < heads {
        return Err(CudaError::shape(
            OP,
            format!("{heads} counters"),
            attention.counters.len(),
        ));
    }
    let parts = context / POSITIONS * tokens * heads * (dim + PART_MORE);
    if layer >= cache.layers() || attention.parts.len() < parts || attention.rotation.cos.len() < context * dim / 2 {
        return Err(CudaError::shape(
            OP,
            "a layer of the cache, and as many tokens as there is room for",
            format!("{layer}, {tokens}"),
        ));
    }
    let CacheLayer { keys, values, scales } = cache.layer(layer);
    let launch = if tokens == 1 {
        let grid = SingleGrid::new(gpu, heads, 1, cache, attention.grid_blocks);
        let name = cache.kind.of_three(match grid.rows {
            1 => ["attend_head_f32", "attend_head_f16", "attend_head_int8"],
            _ => ["attend_heads_f32", "attend_heads_f16", "attend_heads_int8"],
        });
        Launch::chained(
            gpu,
            [&SINGLE, &SINGLE_OVERLAPPED],
            name,
            [heads / grid.rows, grid.shares],
            grid.threads,
        )
        .shared(grid.shared)
    } else {
        let name = cache.kind.of_three(["attend_f32", "attend_f16", "attend_int8"]);
        let shares = (gpu.properties().multiprocessors as usize / kv).clamp(1, attention.grid_blocks);
        let group = shared_bytes(heads / kv, cache);
        Launch::chained(gpu, [&MODULE, &OVERLAPPED], name, [kv, shares], THREADS).shared(group)
    };
    let launch = launch.u32(heads).u32(kv);
    let launch = match tokens {
        1 => launch.u32(heads / kv).u32(dim),
        _ => launch.u32(dim).u32(tokens),
    };
    let launch = launch
        .u32(context)
        .f32(attention.eps)
        .f32((1.0 / (dim as f64).sqrt()) as f32);
    let launch = if tokens == 1 { launch.u32(left) } else { launch };
    let launch = launch
        .array(qkv)
        .optional(norms.map(|norms| norms[0]))
        .optional(norms.map(|norms| norms[1]))
        .array(&attention.rotation.cos)
        .array(&attention.rotation.sin)
        .array(position)
        .array(&keys)
        .array(&values)
        .optional(scales.as_ref().map(|scales| &scales[0]))
        .optional(scales.as_ref().map(|scales| &scales[1]))
        .array(&attention.parts)
        .array(&attention.counters)
        .array(out);
    // SAFETY: the kernel's parameters in order (that of several tokens has their number, that of one the heads of a key head and how many parts are left); lengths were compared above, `Attention::new` compared the shape with
    // shared memory, and the kernel compares the position with the context.
    unsafe { launch.run() }
}
