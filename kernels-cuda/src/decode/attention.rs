//! Attention of a few tokens over the cache.

use crate::device::{CudaError, DeviceArray, Gpu, Launch, Module, Result, ptx};
use crate::ternary_gemv::{PART_MORE, Parts, need};

static MODULE: Module = ptx!("attention.ptx");
static OVERLAPPED: Module = ptx!("attention_overlapped.ptx");
static SINGLE: Module = ptx!("attention_single.ptx");
static SINGLE_OVERLAPPED: Module = ptx!("attention_single_overlapped.ptx");
static EACH: Module = ptx!("attention_each.ptx");
static EACH_OVERLAPPED: Module = ptx!("attention_each_overlapped.ptx");

/// Positions of a block.
pub(super) const POSITIONS: usize = 128;
const THREADS: u32 = 256;
/// Most query heads of a key head.
const MOST_GROUP: usize = 32;
/// Most query heads of a block, where there is one token.
const MOST_ROWS: usize = 8;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvKind {
    /// As they are computed.
    F32,
    /// Half precision.
    F16,
    /// Bytes, with a scale for each position and head.
    Int8,
}

impl KvKind {
    /// Bytes of a value.
    pub const fn bytes(self) -> usize {
        match self {
            KvKind::F32 => 4,
            KvKind::F16 => 2,
            KvKind::Int8 => 1,
        }
    }

    /// Of the names of a kernel for f32, f16 and int8 the one for this.
    pub(super) fn of_three(self, [f32, f16, int8]: [&'static str; 3]) -> &'static str {
        match self {
            KvKind::F32 => f32,
            KvKind::F16 => f16,
            KvKind::Int8 => int8,
        }
    }
}

/// Keys and values of all layers of one sequence or of several, each `[sequences, layers, kv_heads, context, head_dim]`: of a key head panels of 64 transposed keys, as on the CPU, and rows of
/// values, here without padding.
#[derive(Clone, Debug)]
pub struct KvCache {
    pub(super) kind: KvKind,
    sequences: usize,
    layers: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) context: usize,
    keys: DeviceArray<u8>,
    values: DeviceArray<u8>,
    /// `[sequences, layers, kv_heads, context]` of keys, then of values; int8 alone.
    scales: Option<[DeviceArray<f32>; 2]>,
}

impl KvCache {
    /// With room for `context` positions, rounded up to 128.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    pub fn new(
        gpu: &Gpu,
        kind: KvKind,
        layers: usize,
        kv_heads: usize,
        head_dim: usize,
        context: usize,
    ) -> Result<Self> {
        Self::many(gpu, kind, layers, kv_heads, head_dim, context, 1)
    }

    /// The caches of so many sequences, one behind the other.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    pub fn many(
        gpu: &Gpu,
        kind: KvKind,
        layers: usize,
        kv_heads: usize,
        head_dim: usize,
        context: usize,
        sequences: usize,
    ) -> Result<Self> {
        let context = context.next_multiple_of(POSITIONS);
        let positions = sequences * layers * kv_heads * context;
        let scales = match kind {
            KvKind::Int8 => Some([gpu.zeros(positions)?, gpu.zeros(positions)?]),
            _ => None,
        };
        Ok(KvCache {
            kind,
            sequences,
            layers,
            kv_heads,
            head_dim,
            context,
            keys: gpu.zeros(positions * head_dim * kind.bytes())?,
            values: gpu.zeros(positions * head_dim * kind.bytes())?,
            scales,
        })
    }

    /// Sequences.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// Positions of a head that lie between a sequence's memory and the next one's.
    pub(super) fn apart(&self) -> usize {
        self.layers * self.kv_heads * self.context
    }

    /// The memory of each key head, by sequence and layer: keys, values, and the scales of both (empty but for int8). The first positions lie at its beginning, of keys in
    /// whole panels of 64.
    pub fn heads(&self) -> impl Iterator<Item = [DeviceArray<u8>; 4]> {
        (0..self.sequences * self.layers * self.kv_heads).map(|head| self.head(head))
    }

    /// The memory of one of them.
    fn head(&self, head: usize) -> [DeviceArray<u8>; 4] {
        let bytes = self.context * self.head_dim * self.kind.bytes();
        let part = |array: &DeviceArray<u8>, bytes: usize| array.slice(head * bytes..(head + 1) * bytes);
        let scales = |i: usize| match &self.scales {
            Some(scales) => part(&scales[i].cast(), 4 * self.context),
            None => self.keys.slice(..0),
        };
        [part(&self.keys, bytes), part(&self.values, bytes), scales(0), scales(1)]
    }

    /// The memory of layer `layer` of the first sequence, up to that of the last one; in between lies that of other layers ([`apart`](Self::apart)).
    pub(super) fn layer(&self, layer: usize) -> CacheLayer {
        let first = layer * self.kv_heads * self.context;
        let end = (self.sequences - 1) * self.apart() + first + self.kv_heads * self.context;
        let bytes = self.head_dim * self.kind.bytes();
        let part = |array: &DeviceArray<u8>| array.slice(first * bytes..end * bytes);
        CacheLayer {
            keys: part(&self.keys),
            values: part(&self.values),
            scales: (self.scales.as_ref()).map(|both| both.each_ref().map(|array| array.slice(first..end))),
        }
    }

    /// Copies the first `positions` positions of sequence `from`, a whole number of panels of 64 or the context, over those of sequence `to`.
    ///
    /// # Errors
    /// The driver's.
    pub(super) fn copy(&self, gpu: &Gpu, from: usize, to: usize, positions: usize) -> Result<()> {
        let heads = self.layers * self.kv_heads;
        let bytes = positions * self.head_dim * self.kind.bytes();
        for head in 0..heads {
            let [from, to] = [from, to].map(|sequence| self.head(sequence * heads + head));
            for ((from, to), bytes) in from.iter().zip(&to).zip([bytes, bytes, 4 * positions, 4 * positions]) {
                let bytes = bytes.min(from.len());
                gpu.copy(&from.slice(..bytes), &to.slice(..bytes))?;
            }
        }
        Ok(())
    }

    /// Layers.
    pub(super) fn layers(&self) -> usize {
        self.layers
    }

    /// Positions that there is room for.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        2 * self.keys.bytes() + self.scales.iter().flatten().map(DeviceArray::bytes).sum::<usize>()
    }
}

/// Keys and values of a layer.
pub(super) struct CacheLayer {
    pub keys: DeviceArray<u8>,
    pub values: DeviceArray<u8>,
    /// Of int8.
    pub scales: Option<[DeviceArray<f32>; 2]>,
}

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
    if layer >= cache.layers || attention.parts.len() < parts || attention.rotation.cos.len() < context * dim / 2 {
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
