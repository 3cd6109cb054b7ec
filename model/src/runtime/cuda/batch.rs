//! Many sequences over one model on a GPU: [`Batch`](crate::runtime::Batch) with the same calls.
//!
//! ```text
//! step   turns ─ checks ─ one copy: ids, places ─┬─ linears: one chunk, weights read once ──┬─ head: a row for each that asks ─ host ─ each(item, logits), on all threads
//!                                                └─ attention: by sequence and position     ─┘
//! ```
//! **What holds.** The logits of a turn have the bits that a [`CudaSession`](super::CudaSession) of its own gives after the same tokens, and those of the CPU's batch and session (ARCHITECTURE.md §2.2): whoever
//! else is in the step, however the tokens were cut into turns, and whatever was copied or cut off before. Each kernel computes a token by the same operations in the same order; which of them run
//! depends on how many tokens a step has (`onebit_kernels_cuda::decode`), and their results do not.
//!
//! **Memory.** One cache for all sequences, one behind the other, and a table of the sequence and the position of each token, which attention looks up: a step is the same few launches a layer for one sequence
//! and for a hundred. All of it is taken by [`CudaBatch::new`], on the GPU and of the host; [`CudaModel::batch_memory`] says how much before anything is.
//!
//! **Logits** go to the host row by row, all of them whatever was asked for: the whole head costs less here than a search in it.

use onebit_kernels_cuda::Pinned;
use onebit_kernels_cuda::decode::{BatchRoom, BatchState, BatchTurn};
use rayon::prelude::*;

use super::memory::check_batch;
use super::session::{kv_kind, rotation};
use super::{CudaModel, CudaRuntimeError};
use crate::runtime::forward::Span;
use crate::runtime::turns::Held;
use crate::runtime::{SessionOptions, Turn, Wanted};

/// Sequences on a GPU that share the model and the memory of a pass.
pub struct CudaBatch {
    model: CudaModel,
    state: BatchState,
    options: SessionOptions,
    /// Tokens that each sequence holds.
    positions: Vec<usize>,
    /// Of the step: whose tokens, and which.
    spans: Vec<Span>,
    ids: Vec<u32>,
    /// Rows of logits, `[vocab_size]` each.
    logits: Vec<Pinned<f32>>,
}

/// What a batch has room for.
pub(super) fn batch_room(options: &SessionOptions, sequences: usize) -> BatchRoom {
    BatchRoom {
        context: options.context,
        sequences,
        chunk: options.chunk,
        rows: options.logit_rows,
    }
}

impl CudaBatch {
    /// Opens `sequences` empty sequences, at least one, each with a context of [`SessionOptions::context`]; a step takes [`SessionOptions::chunk`] tokens in all and gives
    /// [`SessionOptions::logit_rows`] rows of logits, at most.
    ///
    /// # Errors
    /// As [`Batch::new`](crate::runtime::Batch::new); heads that attention has no kernel for; not enough memory.
    pub fn new(model: &CudaModel, options: SessionOptions, sequences: usize) -> Result<Self, CudaRuntimeError> {
        let (gpu, config) = (&model.gpu, model.config());
        check_batch(config, &options, sequences)?;
        let rotation = rotation(gpu, config, options.context)?;
        let room = batch_room(&options, sequences);
        let state = BatchState::new(gpu, &model.model, kv_kind(options.kv), room, rotation)?;
        model.model.compile_batch(gpu, &state)?;
        let rows = (0..options.logit_rows).map(|_| gpu.pinned(config.vocab_size));
        Ok(CudaBatch {
            logits: rows.collect::<Result<_, _>>()?,
            model: model.clone(),
            state,
            options,
            positions: vec![0; sequences],
            spans: Vec::with_capacity(sequences),
            ids: Vec::with_capacity(options.chunk),
        })
    }

    /// The model.
    pub fn model(&self) -> &CudaModel {
        &self.model
    }

    /// The sizes.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// How many sequences there are.
    pub fn sequences(&self) -> usize {
        self.positions.len()
    }

    /// Tokens that a sequence holds; 0 for one that is not there.
    pub fn position(&self, sequence: usize) -> usize {
        self.positions.get(sequence).copied().unwrap_or(0)
    }

    /// Forgets all but the first `position` tokens of a sequence; no change if fewer are held.
    pub fn truncate(&mut self, sequence: usize, position: usize) {
        if let Some(held) = self.positions.get_mut(sequence) {
            *held = position.min(*held);
        }
    }

    /// Gives sequence `to` the first `positions` tokens of sequence `from`, in place of what it holds. The host does not wait.
    ///
    /// # Errors
    /// As [`Batch::copy`](crate::runtime::Batch::copy); the GPU's.
    pub fn copy(&mut self, from: usize, to: usize, positions: usize) -> Result<(), CudaRuntimeError> {
        self.held().check_copy(from, to, positions)?;
        if from != to {
            // Until it is whole there is nothing.
            self.positions[to] = 0;
            self.state.copy(&self.model.gpu, from, to, positions)?;
        }
        self.positions[to] = positions;
        Ok(())
    }

    /// Reads the tokens of some sequences, each after what it holds, and hands the logits `[vocab_size]` of each turn that wants some to `each`, with its item: `items` has one for each of these turns, in their
    /// order. Several threads may call at once. [`Wanted::Top`] gives all.
    ///
    /// # Errors
    /// As [`Batch::step`](crate::runtime::Batch::step), and nothing changes then; the GPU's.
    pub fn step<T: Send>(
        &mut self,
        turns: &[Turn<'_>],
        items: &mut [T],
        each: impl Fn(&mut T, &mut [f32]) + Sync,
    ) -> Result<(), CudaRuntimeError> {
        let (mut spans, mut ids) = (std::mem::take(&mut self.spans), std::mem::take(&mut self.ids));
        let planned = self.held().plan(turns, items.len(), &mut spans, &mut ids);
        (self.spans, self.ids) = (spans, ids);
        planned?;
        let turns: Vec<BatchTurn<'_>> = (turns.iter().zip(&self.spans))
            .map(|(turn, span)| BatchTurn {
                sequence: span.sequence,
                first: span.first,
                ids: turn.ids,
                logits: turn.logits != Wanted::Nothing,
            })
            .collect();
        let (gpu, vocab) = (&self.model.gpu, self.model.config().vocab_size);
        self.model.model.step_batch(gpu, &self.state, &turns)?;
        let rows = &mut self.logits[..items.len()];
        for (row, logits) in rows.iter_mut().enumerate() {
            gpu.read_pinned(&self.state.logits.slice(row * vocab..(row + 1) * vocab), logits)?;
        }
        gpu.synchronize()?;
        for span in &self.spans {
            self.positions[span.sequence] = span.first + span.tokens;
        }
        (items.par_iter_mut().zip(rows)).for_each(|(item, logits)| each(item, logits.as_mut_slice()));
        Ok(())
    }

    /// What the checks of a step compare.
    fn held(&self) -> Held<'_> {
        Held {
            positions: &self.positions,
            options: &self.options,
            vocab_size: self.model.config().vocab_size,
        }
    }
}
