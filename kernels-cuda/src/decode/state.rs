//! A sequence's memory.

use super::prefill_attention::MOST_HEAD_DIM;
use super::{Attention, DecodeModel, DecodeShape, HeadOutput, KvCache, KvKind, Rotation, SketchBuffers};
use crate::device::{CudaError, DeviceArray, Gpu, Launch, Module, Result, ptx};
use crate::mixed_linear::Inputs;
use crate::ternary_gemm::Opened;
use crate::ternary_gemv::{Extent, MOST_TOKENS, PART_MORE};

static POSITION: Module = ptx!("position.ptx");

/// Most tokens of a chunk.
const MOST_CHUNK: usize = 512;
/// Bytes that what belongs to the tokens of a chunk may take; for networks that are wide enough a chunk is shorter.
const CHUNK_BYTES: usize = 256 << 20;

/// How many tokens a state has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Positions.
    pub context: usize,
    /// Tokens of a [`step`](DecodeModel::step), at most 16.
    pub tokens: usize,
    /// Tokens of a [`prefill`](DecodeModel::prefill); 0: none is wanted.
    pub chunk: usize,
}

impl Room {
    /// For prompts as long as the context, of a network of `shape`.
    pub fn new(shape: &DecodeShape, context: usize) -> Self {
        let sums = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
        let sums = sums.max(2 * shape.inner).max(shape.hidden);
        let token = 4 * (values(shape) + sums);
        let mut chunk = MOST_CHUNK.min(context);
        while chunk * token > CHUNK_BYTES {
            chunk /= 2;
        }
        let none = chunk <= MOST_TOKENS || shape.head_dim > MOST_HEAD_DIM;
        Room {
            context,
            tokens: MOST_TOKENS.min(context),
            chunk: if none { 0 } else { chunk },
        }
    }

    /// Tokens for which there are activations.
    fn rows(&self) -> usize {
        self.tokens.max(self.chunk)
    }
}

/// Activations of a token, all of which live at the same time.
fn values(shape: &DecodeShape) -> usize {
    let DecodeShape {
        hidden,
        heads,
        kv_heads,
        head_dim,
        inner,
        ..
    } = *shape;
    hidden + (2 * heads + 2 * kv_heads) * head_dim + inner
}

/// What belongs to the tokens that are read at once.
#[derive(Clone, Debug)]
pub(super) struct Activations {
    pub x: DeviceArray<f32>,
    pub qkv: DeviceArray<f32>,
    pub mixed: DeviceArray<f32>,
    pub active: DeviceArray<f32>,
    pub inputs: Inputs,
    /// Of chunks.
    pub opened: Option<Opened>,
}

impl Activations {
    /// For `rows` tokens, of which a chunk of `chunk` opens packed weights, and `heads` tokens of which there are logits at once.
    pub fn new(gpu: &Gpu, model: &DecodeModel, rows: usize, chunk: usize, heads: usize) -> Result<Self> {
        let DecodeShape {
            hidden,
            heads: query_heads,
            kv_heads,
            head_dim,
            inner,
            ..
        } = model.shape;
        let extent = model.matrices().fold(model.head().extent(), |extent: Extent, stack| {
            extent.max(stack.extent())
        });
        let opened = match chunk {
            0 => None,
            chunk => Some(Opened {
                weights: gpu.zeros(extent.opened)?,
                sums: gpu.zeros(chunk * extent.sums)?,
            }),
        };
        Ok(Activations {
            x: gpu.zeros(rows * hidden)?,
            qkv: gpu.zeros(rows * (query_heads + 2 * kv_heads) * head_dim)?,
            mixed: gpu.zeros(rows * query_heads * head_dim)?,
            active: gpu.zeros(rows * inner)?,
            inputs: Inputs {
                floats: gpu.zeros(rows * extent.floats)?,
                bytes: gpu.zeros(rows * extent.cols)?,
                scales: gpu.zeros(rows.max(heads * model.head().scales()))?,
            },
            opened,
        })
    }

    /// Bytes that these take.
    pub fn bytes_needed(shape: &DecodeShape, rows: usize, chunk: usize, extent: Extent) -> usize {
        let opened = match chunk {
            0 => 0,
            chunk => extent.opened + 4 * chunk * extent.sums,
        };
        rows * (4 * (values(shape) + extent.floats) + extent.cols) + opened
    }
}

/// Bytes of the keys and values of a position of a network of so many layers.
pub(super) fn cache_bytes(shape: &DecodeShape, layers: usize, kind: KvKind) -> usize {
    let scales = if kind == KvKind::Int8 { 4 } else { 0 };
    2 * layers * shape.kv_heads * (shape.head_dim * kind.bytes() + scales)
}

/// A sequence that is being read and written, all of it on the GPU.
#[derive(Clone, Debug)]
pub struct DecodeState {
    /// Ids, position and the largest logits.
    pub output: HeadOutput,
    /// `[tokens, vocabulary]`
    pub logits: DeviceArray<f32>,
    /// Keys and values.
    pub cache: KvCache,
    pub(super) room: Room,
    pub(super) attention: Attention,
    pub(super) activations: Activations,
    /// Of a head with a sketch.
    pub(super) search: Option<SketchBuffers>,
}

impl DecodeState {
    /// With what `room` says.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for heads that attention has no form for, more than 16 tokens of a step, or a table that is too short; [`CudaError::OutOfMemory`].
    pub fn new(gpu: &Gpu, model: &DecodeModel, kind: KvKind, room: Room, rotation: Rotation) -> Result<Self> {
        if room.tokens == 0 || room.tokens > MOST_TOKENS {
            return Err(CudaError::shape(
                "DecodeState",
                format!("1 to {MOST_TOKENS} tokens"),
                room.tokens,
            ));
        }
        let DecodeShape {
            hidden,
            heads,
            kv_heads,
            head_dim,
            eps,
            ..
        } = model.shape;
        let cache = KvCache::new(gpu, kind, model.layers.len(), kv_heads, head_dim, room.context)?;
        let tokens = room.tokens;
        Ok(DecodeState {
            output: HeadOutput::new(gpu, tokens, cache.context())?,
            logits: gpu.zeros(tokens * model.head().rows())?,
            attention: Attention::new(gpu, heads, eps, tokens, rotation, &cache)?,
            cache,
            activations: Activations::new(gpu, model, room.rows(), room.chunk, tokens)?,
            room,
            search: model
                .sketch
                .as_ref()
                .map(|_| SketchBuffers::new(gpu, [model.head().rows(), hidden]))
                .transpose()?,
        })
    }

    /// The same sequence, for launches of tokens at positions below `positions`: attention has no blocks of threads for positions that cannot be seen yet, which cost time though they
    /// end at once. Tokens beyond have the same bits, more slowly.
    pub fn expecting(&self, positions: usize) -> Self {
        let mut state = self.clone();
        state.attention.fit_grid(positions, &state.cache);
        state
    }

    /// Tokens that it has room for.
    pub fn room(&self) -> Room {
        self.room
    }

    /// Bytes that a state takes, for a network of so many `layers`, words of `vocabulary`, and matrices, the head among them, of `extent`: what grows with the context, and what does
    /// not. About: arrays of a few values are left out.
    pub fn bytes_needed(
        shape: &DecodeShape,
        (layers, vocabulary): (usize, usize),
        kind: KvKind,
        room: Room,
        extent: Extent,
    ) -> [u64; 2] {
        let DecodeShape { heads, head_dim, .. } = *shape;
        // With the rotation and the ids.
        let position = cache_bytes(shape, layers, kind) + 4 * head_dim + 4;
        let parts = 4 * room.tokens * heads * (head_dim + PART_MORE);
        let context = room.context.next_multiple_of(128);
        let activations = Activations::bytes_needed(shape, room.rows(), room.chunk, extent);
        [
            position as u64 * context as u64 + parts as u64 * (context / 128) as u64,
            (activations + 4 * (room.tokens + 1) * vocabulary) as u64,
        ]
    }

    /// Writes `ids` from position `first` on, and says that what comes next is the token at `position`. The host waits only where there are several.
    ///
    /// # Errors
    /// [`CudaError::Shape`] where they do not fit in the context.
    pub fn place(&self, gpu: &Gpu, first: usize, ids: &[u32], position: usize) -> Result<()> {
        let HeadOutput {
            ids: all, position: to, ..
        } = &self.output;
        let context = all.len();
        if first + ids.len() > context || position > context {
            return Err(CudaError::shape(
                "DecodeState",
                format!("positions up to {context}"),
                first + ids.len(),
            ));
        }
        let (at, id) = match *ids {
            [id] => (first, id),
            _ => {
                gpu.write(&all.slice(first..first + ids.len()), ids)?;
                (context, 0)
            }
        };
        let launch = Launch::new(gpu, POSITION.kernel("set_position"), [1, 1, 1], 32)
            .array(all)
            .u32(at)
            .u32(id as usize)
            .u32(context)
            .array(to)
            .u32(position);
        // SAFETY: the kernel's parameters in order; it writes `ids[at]` for an `at` below `context`, compared above, and the position.
        unsafe { launch.run() }
    }
}
