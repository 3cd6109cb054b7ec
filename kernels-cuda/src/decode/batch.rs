//! Many sequences side by side: the memory of all of them, and a pass over tokens of some.
//!
//! ```text
//! tokens of a pass   spans: 2 and more of one sequence  │ single tokens
//!   ids, places      [id], [sequence, position]         │
//!   linears          one chunk, as of a prompt: packed weights are read, and opened, once for all tokens
//!   attention        place_each, attend_spans           │ attend_each
//!   head             the rows whose logits are wanted, one behind the other
//! ```
//! Nothing but attention knows sequences. Its kernels are those of one sequence (`attention_single.cu`, compiled as `attention_each.cu`, and `prefill_attention.cu`) with other entries: a block looks up the sequence and the position of its
//! token, and moves its pointers there. So the bits are those of one sequence, and that one's kernels are as they were. The caches of sequences lie one behind the other, each as a single one lies.
//!
//! Tokens that are the only ones of their sequences, as in every step of text that is being written, take one kernel a layer: norm, rotation, cache and attention. Each has blocks of threads for its query heads
//! and, where tokens are few, for blocks of positions. Spans take two more.
//!
//! **Room for a step** is a chunk of tokens and so many rows of logits; nothing is allocated by a pass. Ids, places and the rest of what changes go to the GPU in one copy.

use super::batch_attention::{Places, TILE, attend_batch, tiles_of};
use super::prefill_attention::MOST_HEAD_DIM;
use super::state::{Activations, cache_bytes};
use super::{Attention, DecodeModel, DecodeShape, HeadOutput, KvCache, KvKind, Rotation, Vocabulary};
use crate::device::{CudaError, DeviceArray, Gpu, Launch, Module, Result, ptx};
use crate::ternary_gemv::{Extent, MOST_TOKENS, PART_MORE};

static MODULE: Module = ptx!("batch.ptx");

const OP: &str = "BatchState";

/// What a batch has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRoom {
    /// Positions of a sequence.
    pub context: usize,
    /// Sequences.
    pub sequences: usize,
    /// Tokens of a pass, of all sequences.
    pub chunk: usize,
    /// Rows of logits of a pass.
    pub rows: usize,
}

impl BatchRoom {
    /// Most tokens of a pass: a grid's second index.
    pub const MOST_CHUNK: usize = 65_535;
    /// Most values of a head.
    pub const MOST_HEAD_DIM: usize = MOST_HEAD_DIM;

    /// Tokens of a pass that opens packed weights, or none.
    fn opened(&self) -> usize {
        if self.chunk > MOST_TOKENS { self.chunk } else { 0 }
    }

    /// Most tiles of spans.
    fn tiles(&self, group: usize) -> usize {
        tiles_of(self.chunk, group) + self.sequences.min(self.chunk)
    }
}

/// Tokens of a sequence in a pass.
#[derive(Clone, Copy, Debug)]
pub struct BatchTurn<'a> {
    /// Its number.
    pub sequence: usize,
    /// The position of the first of them.
    pub first: usize,
    /// The tokens.
    pub ids: &'a [u32],
    /// Whether the logits after the last of them are wanted.
    pub logits: bool,
}

/// Sequences that are read and written side by side, all of them on the GPU.
#[derive(Clone, Debug)]
pub struct BatchState {
    /// `[rows, vocabulary]`: of the turns of a pass that want them, in their order.
    pub logits: DeviceArray<f32>,
    /// Keys and values.
    pub cache: KvCache,
    room: BatchRoom,
    attention: Attention,
    activations: Activations,
    output: HeadOutput,
    /// Rows of the residual stream whose logits are wanted.
    wanted: DeviceArray<f32>,
    /// Ids, places, tiles and wanted rows of a pass, as it needs them, one behind the other.
    table: DeviceArray<u32>,
}

/// How a pass lies in the table: ids, places, tiles, and rows of the residual stream whose logits are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layout {
    pub tokens: usize,
    pub spans: usize,
    pub tiles: usize,
    pub rows: usize,
    pub seen: usize,
}

impl Layout {
    /// Of `turns`, with `group` query heads for each key head, and the words of the table.
    pub fn of(turns: &[BatchTurn<'_>], group: usize) -> (Self, Vec<u32>) {
        let tokens = turns.iter().map(|turn| turn.ids.len()).sum();
        let mut layout = Layout {
            tokens,
            ..Layout::default()
        };
        let (mut ids, mut places, mut tiles) = (Vec::new(), Vec::with_capacity(2 * tokens), Vec::new());
        let mut last_of = vec![0; turns.len()];
        let (spans, singles): (Vec<usize>, Vec<usize>) = (0..turns.len()).partition(|&turn| turns[turn].ids.len() > 1);
        for turn in spans.into_iter().chain(singles) {
            let BatchTurn {
                sequence,
                first,
                ids: of,
                ..
            } = turns[turn];
            let (start, end) = (ids.len(), first + of.len());
            ids.extend_from_slice(of);
            places.extend((first..end).flat_map(|position| [sequence as u32, position as u32]));
            last_of[turn] = ids.len() - 1;
            if of.len() == 1 {
                layout.seen = layout.seen.max(end);
                continue;
            }
            layout.spans = ids.len();
            tiles.extend((0..tiles_of(of.len(), group)).map(|tile| {
                let row = tile * TILE;
                let last = (row + TILE - 1).min(of.len() * group - 1) / group;
                (first + last, [start, of.len(), row])
            }));
        }
        // Those that see most take longest, and begin.
        tiles.sort_by_key(|&(last, _)| std::cmp::Reverse(last));
        layout.tiles = tiles.len();
        let mut words = ids;
        words.append(&mut places);
        words.extend(tiles.iter().flat_map(|(_, tile)| tile.map(|word| word as u32)));
        let wanted = (turns.iter().zip(&last_of)).filter_map(|(turn, &last)| turn.logits.then_some(last as u32));
        layout.rows = wanted.clone().count();
        words.extend(wanted);
        (layout, words)
    }

    /// Its parts of a table.
    pub fn split(&self, table: &DeviceArray<u32>) -> (DeviceArray<u32>, Places, DeviceArray<u32>) {
        let mut at = 0;
        let [ids, places, tiles, wanted] = [self.tokens, 2 * self.tokens, 3 * self.tiles, self.rows].map(|words| {
            at += words;
            table.slice(at - words..at)
        });
        let places = Places {
            places,
            tiles,
            spans: self.spans,
            seen: self.seen,
        };
        (ids, places, wanted)
    }
}

impl BatchState {
    /// With what `room` says.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for heads that attention has no form for, a room of nothing, or a table that is too short; [`CudaError::OutOfMemory`].
    pub fn new(gpu: &Gpu, model: &DecodeModel, kind: KvKind, room: BatchRoom, rotation: Rotation) -> Result<Self> {
        let DecodeShape {
            hidden,
            heads,
            kv_heads,
            head_dim,
            eps,
            ..
        } = model.shape;
        let BatchRoom {
            context,
            sequences,
            chunk,
            rows,
        } = room;
        if context == 0
            || sequences == 0
            || rows == 0
            || chunk > BatchRoom::MOST_CHUNK
            || rows > chunk
            || head_dim > MOST_HEAD_DIM
        {
            return Err(CudaError::shape(
                OP,
                format!(
                    "positions, sequences, 1 to {} tokens, logits of some of them, and heads of up to {MOST_HEAD_DIM} values",
                    BatchRoom::MOST_CHUNK
                ),
                format!("{room:?}, {head_dim}"),
            ));
        }
        let cache = KvCache::many(gpu, kind, model.layers.len(), kv_heads, head_dim, context, sequences)?;
        let attention = Attention::new(gpu, heads, eps, sequences.min(chunk), rotation, &cache)?;
        let words = 3 * chunk + 3 * room.tiles(heads / kv_heads) + rows;
        Ok(BatchState {
            logits: gpu.zeros(rows * model.head().rows())?,
            attention,
            cache,
            activations: Activations::new(gpu, model, chunk, room.opened(), rows)?,
            output: HeadOutput::new(gpu, rows, 1)?,
            wanted: gpu.zeros(rows * hidden)?,
            table: gpu.zeros(words)?,
            room,
        })
    }

    /// What it has room for.
    pub fn room(&self) -> BatchRoom {
        self.room
    }

    /// Bytes that a state takes, as [`DecodeState::bytes_needed`](super::DecodeState::bytes_needed).
    pub fn bytes_needed(
        shape: &DecodeShape,
        (layers, vocabulary): (usize, usize),
        kind: KvKind,
        room: BatchRoom,
        extent: Extent,
    ) -> [u64; 2] {
        let DecodeShape { heads, head_dim, .. } = *shape;
        let context = room.context.next_multiple_of(128);
        let position = room.sequences * cache_bytes(shape, layers, kind) + 4 * head_dim;
        let parts = 4 * room.sequences.min(room.chunk) * heads * (head_dim + PART_MORE);
        let activations = Activations::bytes_needed(shape, room.chunk, room.opened(), extent);
        [
            position as u64 * context as u64 + parts as u64 * (context / 128) as u64,
            (activations + 4 * room.rows * (vocabulary + shape.hidden)) as u64,
        ]
    }

    /// Gives sequence `to` the first `positions` positions of sequence `from`, another one.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for sequences or positions that are not there.
    pub fn copy(&self, gpu: &Gpu, from: usize, to: usize, positions: usize) -> Result<()> {
        if from.max(to) >= self.room.sequences || positions > self.room.context {
            let expected = format!("{} sequences of {}", self.room.sequences, self.room.context);
            return Err(CudaError::shape(OP, expected, format!("{from}, {to}, {positions}")));
        }
        // Keys lie in whole panels of 64.
        self.cache.copy(gpu, from, to, positions.next_multiple_of(64))
    }

    /// Checks the turns and puts what the kernels need of them into the table.
    fn lay_out(&self, gpu: &Gpu, turns: &[BatchTurn<'_>]) -> Result<Layout> {
        let room = self.room;
        let ascending = turns.windows(2).all(|two| two[0].sequence < two[1].sequence);
        let inside = |turn: &BatchTurn<'_>| {
            turn.sequence < room.sequences
                && !turn.ids.is_empty()
                && turn.ids.len() <= room.context.saturating_sub(turn.first)
        };
        let tokens: usize = turns.iter().map(|turn| turn.ids.len()).sum();
        let rows = turns.iter().filter(|turn| turn.logits).count();
        if tokens == 0 || !ascending || !turns.iter().all(inside) || tokens > room.chunk || rows > room.rows {
            return Err(CudaError::shape(
                OP,
                format!("turns of ascending sequences within {room:?}"),
                format!("{} turns of {tokens} tokens", turns.len()),
            ));
        }
        let (layout, words) = Layout::of(turns, self.attention.heads / self.cache.kv_heads);
        gpu.write(&self.table.slice(..words.len()), &words)?;
        Ok(layout)
    }
}

impl DecodeModel {
    /// Launches a pass over the tokens of `turns`, of sequences that ascend: into the caches, and the logits of the turns that want them into `state.logits`. The bits are those that
    /// [`step`](Self::step) and [`prefill`](Self::prefill) give for each sequence.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for weights that do not fit each other, or turns that there is no room for; nothing is launched for those.
    pub fn step_batch(&self, gpu: &Gpu, state: &BatchState, turns: &[BatchTurn<'_>]) -> Result<()> {
        self.pass(gpu, state, state.lay_out(gpu, turns)?)
    }

    /// Compiles the kernels of passes of all sizes.
    ///
    /// # Errors
    /// As [`step_batch`](Self::step_batch).
    pub fn compile_batch(&self, gpu: &Gpu, state: &BatchState) -> Result<()> {
        let BatchRoom {
            context,
            sequences,
            chunk,
            rows,
        } = state.room;
        let singles = |tokens: usize, rows: usize| Layout {
            tokens,
            rows,
            seen: context,
            ..Layout::default()
        };
        let spans = |tokens: usize| Layout {
            tokens,
            spans: tokens,
            tiles: 1,
            ..Layout::default()
        };
        let most = sequences.min(chunk);
        let mut layouts = vec![singles(1, 1), singles(most, most.min(rows)), spans(chunk)];
        layouts.extend((most > 1).then(|| singles(2, rows.min(2))));
        layouts.extend((chunk > 1).then(|| spans(chunk.min(MOST_TOKENS))));
        layouts.push(Layout {
            seen: 1,
            ..singles(most, 0)
        });
        gpu.compile_for(|| layouts.iter().try_for_each(|layout| self.pass(gpu, state, *layout)))
    }

    fn pass(&self, gpu: &Gpu, state: &BatchState, layout: Layout) -> Result<()> {
        let Layout { tokens, rows, .. } = layout;
        let (ids, batch, wanted) = layout.split(&state.table);
        let (attention, cache, activations) = (&state.attention, &state.cache, &state.activations);
        let opened = activations.opened.as_ref().filter(|_| tokens > MOST_TOKENS);
        let ids = (&ids, &state.output.position);
        self.blocks(gpu, activations, tokens, opened, ids, |layer, norms, qkv, mixed| {
            attend_batch(gpu, attention, cache, layer, qkv, norms, &batch, mixed).map(|()| None)
        })?;
        if rows == 0 {
            return Ok(());
        }
        let (hidden, vocabulary) = (self.shape.hidden, self.head().rows());
        let launch = Launch::new(gpu, MODULE.kernel("gather_rows"), [rows as u32, 1, 1], 256)
            .array(&activations.x)
            .array(&wanted)
            .u32(hidden)
            .array(&state.wanted);
        // SAFETY: the kernel's parameters in order; `lay_out` wrote rows of this pass, of which `x` and `wanted` have room for as many as a pass has.
        unsafe { launch.run()? };
        // The product of packed weights takes a few tokens, the others as many as there are.
        let at_once = match self.head() {
            Vocabulary::Packed(_) => MOST_TOKENS,
            Vocabulary::Floats(_) | Vocabulary::Int4(_) => rows,
        };
        for first in (0..rows).step_by(at_once) {
            let some = first..rows.min(first + at_once);
            self.head().head(
                gpu,
                &state.wanted.slice(some.start * hidden..some.end * hidden),
                &self.norm,
                (self.shape.eps, self.shape.softcap),
                &state.logits.slice(some.start * vocabulary..some.end * vocabulary),
                &activations.inputs,
                &state.output,
                0,
            )?;
        }
        Ok(())
    }
}
