//! A conversation with a model: its key-value cache and the memory of its forward passes.

#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used
)]

use core::ops::Deref;

use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::attention::cached::KvType;

use super::RuntimeError;
use super::buffers::Buffers;
use super::cache::Head;
use super::executor::{Executor, Serial};
use super::forward::{Pass, Span};
use super::sketch::{SearchBuffers, SketchCounts, Top};
use super::weights::PackedModel;
use crate::config::ModelConfig;

/// Tokens that share an opening of packed weights in a session for generation. Their buffers are touched as far as a chunk is full.
const CHUNK: usize = 512;

/// Sizes of a session; they settle its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Tokens that the session holds, prompt and answer; at most the model's `max_position_embeddings`.
    pub context: usize,
    /// Tokens that prefill takes at once. More of them share each reading of the weights; 1 needs the least memory.
    pub chunk: usize,
    /// Tokens whose logits are computed at once by [`Session::prefill_all`], at most `chunk`.
    pub logit_rows: usize,
    /// How keys and values are kept: what a long context costs in memory and time, against a little accuracy.
    pub kv: KvType,
}

impl SessionOptions {
    /// A session of `context` tokens for generation: chunks of 512 tokens, logits of one, keys and values in f32.
    pub const fn new(context: usize) -> Self {
        Self {
            context,
            chunk: if context < CHUNK { context } else { CHUNK },
            logit_rows: 1,
            kv: KvType::F32,
        }
    }

    /// Bytes that a session takes beside the weights: the cache with room for the whole context, and the buffers, without those for the sketch
    /// or the rounded input of a head, which depend on the weights.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn memory_bytes<E: Executor>(&self, config: &ModelConfig, executor: &E) -> Result<usize, RuntimeError> {
        self.validate(config, 1)?;
        Buffers::bytes_needed(config, self, executor.threads())
    }

    /// Checks that there are sequences, and that the sizes make sense for so many.
    pub(super) fn validate_batch(&self, config: &ModelConfig, sequences: usize) -> Result<(), RuntimeError> {
        if sequences == 0 {
            return Err(RuntimeError::Option {
                name: "sequences",
                found: 0,
                limit: usize::MAX,
            });
        }
        self.validate(config, sequences)
    }

    /// Checks that the sizes make sense for so many sequences.
    pub(super) fn validate(&self, config: &ModelConfig, sequences: usize) -> Result<(), RuntimeError> {
        let limits = [
            ("context", self.context, config.max_position_embeddings),
            ("chunk", self.chunk, self.context.saturating_mul(sequences)),
            ("logit_rows", self.logit_rows, self.chunk),
        ];
        match limits
            .into_iter()
            .find(|&(_, found, limit)| found == 0 || found > limit)
        {
            Some((name, found, limit)) => Err(RuntimeError::Option { name, found, limit }),
            None => Ok(()),
        }
    }
}

/// A sequence being read and written. `M` gives the model (`&PackedModel`, `Arc<PackedModel>`), `E` the threads.
///
/// All memory is taken by [`new`](Self::new); no other call allocates. The logits do not depend on the executor, the
/// instruction set, the chunk or on how the tokens were split over calls (ARCHITECTURE.md §2.2).
pub struct Session<M, E = Serial> {
    model: M,
    executor: E,
    isa: Isa,
    options: SessionOptions,
    buffers: Buffers,
    position: usize,
    bytes_per_token: usize,
}

impl<M: Deref<Target = PackedModel>, E: Executor> Session<M, E> {
    /// Opens an empty session.
    ///
    /// # Errors
    /// [`RuntimeError::Option`] for an option outside its range, [`RuntimeError::OutOfMemory`].
    pub fn new(model: M, executor: E, isa: Isa, options: SessionOptions) -> Result<Self, RuntimeError> {
        options.validate(model.config(), 1)?;
        let mut buffers = Buffers::new(model.config(), &options, executor.threads(), 1)?;
        buffers.add_head_input(&model, options.logit_rows)?;
        buffers.search = model.sketch().map(SearchBuffers::new).transpose()?;
        let bytes_per_token = model.bytes_per_token();
        Ok(Self {
            model,
            executor,
            isa,
            options,
            buffers,
            position: 0,
            bytes_per_token,
        })
    }

    /// The model.
    pub fn model(&self) -> &PackedModel {
        &self.model
    }

    /// The session's sizes.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// Tokens held.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The cache, a head for each layer and key head.
    pub(super) fn heads(&self) -> &[Head] {
        self.buffers.caches.first().map_or(&[], |cache| &cache.heads)
    }

    /// The same, to be changed.
    pub(super) fn heads_mut(&mut self) -> &mut [Head] {
        self.buffers
            .caches
            .first_mut()
            .map_or(&mut [], |cache| &mut cache.heads)
    }

    /// Says that `positions` tokens are held now.
    pub(super) fn held(&mut self, positions: usize) {
        self.position = positions;
    }

    /// Forgets all but the first `position` tokens; no change if fewer are held.
    pub fn truncate(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.truncate(0);
    }

    /// Reads `ids` after what is held and returns the logits after the last of them, `[vocab_size]`.
    ///
    /// # Errors
    /// [`RuntimeError::EmptyInput`], [`RuntimeError::ContextFull`] or [`RuntimeError::UnknownToken`]; the session is then
    /// unchanged.
    pub fn prefill(&mut self, ids: &[u32]) -> Result<&[f32], RuntimeError> {
        self.prefill_top(ids, None)
    }

    /// As [`prefill`](Self::prefill); logits that cannot be among the `top` may come as −∞, which costs a fraction of the whole head where the
    /// model has a [sketch](super::HeadSketch) of it. The others are the same, bit for bit.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill).
    pub fn prefill_top(&mut self, ids: &[u32], top: Option<Top<'_>>) -> Result<&[f32], RuntimeError> {
        self.check(ids)?;
        let mut chunks = ids.chunks(self.options.chunk.max(1)).peekable();
        while let Some(ids) = chunks.next() {
            let last = chunks.peek().is_none();
            self.pass(ids, |pass, buffers| {
                pass.blocks(ids, buffers);
                if last {
                    pass.logits(ids.len().saturating_sub(1), 1, top, buffers);
                }
            });
        }
        let vocab_size = self.model.config().vocab_size;
        Ok(self.buffers.logits.get(..vocab_size).unwrap_or_default())
    }

    /// Reads `ids` and calls `each(i, logits)` for every one of them in order, with the logits `[vocab_size]` after
    /// `ids[i]`.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill).
    pub fn prefill_all(&mut self, ids: &[u32], each: impl FnMut(usize, &[f32])) -> Result<(), RuntimeError> {
        self.prefill_all_top(ids, None, each)
    }

    /// As [`prefill_all`](Self::prefill_all), with what the head multiplies as a third argument: the last norm's output, `[hidden_size]`.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill).
    pub fn prefill_all_inputs(
        &mut self,
        ids: &[u32],
        each: impl FnMut(usize, &[f32], &[f32]),
    ) -> Result<(), RuntimeError> {
        self.prefill_each(ids, None, each)
    }

    /// As [`prefill_all`](Self::prefill_all); logits that cannot be among the `top` may be −∞, as in [`prefill_top`](Self::prefill_top).
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill).
    pub fn prefill_all_top(
        &mut self,
        ids: &[u32],
        top: Option<Top<'_>>,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError> {
        self.prefill_each(ids, top, |i, logits, _| each(i, logits))
    }

    fn prefill_each(
        &mut self,
        ids: &[u32],
        top: Option<Top<'_>>,
        mut each: impl FnMut(usize, &[f32], &[f32]),
    ) -> Result<(), RuntimeError> {
        self.check(ids)?;
        let mut first = 0_usize;
        for ids in ids.chunks(self.options.chunk.max(1)) {
            self.pass(ids, |pass, buffers| pass.blocks(ids, buffers));
            self.each_row(ids.len(), top, |i, logits, input| {
                each(first.saturating_add(i), logits, input)
            });
            first = first.saturating_add(ids.len());
        }
        Ok(())
    }

    /// Calls `each(i, logits, input of the head)` for the `tokens` tokens of the chunk that was read last, in order.
    pub(super) fn each_row(
        &mut self,
        tokens: usize,
        top: Option<Top<'_>>,
        mut each: impl FnMut(usize, &[f32], &[f32]),
    ) {
        let (rows, vocab) = (self.options.logit_rows.max(1), self.model.config().vocab_size);
        let hidden = self.model.config().hidden_size;
        let mut indices = 0..;
        for from in (0..tokens).step_by(rows) {
            let count = rows.min(tokens.saturating_sub(from));
            // The chunk is in the cache already; only its residual stream is read.
            self.enter(tokens, |pass, buffers| pass.logits(from, count, top, buffers));
            let inputs = self.buffers.normed.chunks_exact(hidden.max(1));
            let logits = self.buffers.logits.chunks_exact(vocab.max(1)).take(count);
            for ((logits, input), index) in logits.zip(inputs).zip(&mut indices) {
                each(index, logits, input);
            }
        }
    }

    /// Bytes of weights that single tokens did not read so far, because what they are multiplied by is 0.
    pub fn bytes_saved(&self) -> usize {
        self.buffers.scratch.iter().map(|scratch| scratch.saved).sum()
    }

    /// What the shortcut to the largest logits did so far.
    pub fn sketch_counts(&self) -> SketchCounts {
        self.buffers.searched
    }

    /// Reads one token and returns the logits after it, `[vocab_size]`.
    ///
    /// # Errors
    /// [`RuntimeError::ContextFull`] or [`RuntimeError::UnknownToken`]; the session is then unchanged.
    pub fn decode(&mut self, id: u32) -> Result<&[f32], RuntimeError> {
        self.prefill(&[id])
    }

    pub(super) fn check(&self, ids: &[u32]) -> Result<(), RuntimeError> {
        let vocab_size = self.model.config().vocab_size;
        if ids.is_empty() {
            return Err(RuntimeError::EmptyInput);
        }
        let limit = self.options.context;
        if ids.len() > limit.saturating_sub(self.position) {
            return Err(RuntimeError::ContextFull {
                position: self.position,
                more: ids.len(),
                limit,
            });
        }
        match ids.iter().enumerate().find(|&(_, &id)| id as usize >= vocab_size) {
            Some((index, &id)) => Err(RuntimeError::UnknownToken { id, index, vocab_size }),
            None => Ok(()),
        }
    }

    /// Runs `f` over the tokens `ids`, which then count as held.
    pub(super) fn pass(&mut self, ids: &[u32], f: impl FnOnce(&Pass<'_, E>, &mut Buffers) + Send) {
        self.enter(ids.len(), f);
        self.position = self.position.saturating_add(ids.len());
    }

    fn enter(&mut self, tokens: usize, f: impl FnOnce(&Pass<'_, E>, &mut Buffers) + Send) {
        let span = [Span {
            sequence: 0,
            at: 0,
            first: self.position,
            tokens,
        }];
        let pass = Pass {
            model: &self.model,
            exec: &self.executor,
            isa: self.isa,
            spans: &span,
            tokens,
        };
        let buffers = &mut self.buffers;
        self.executor
            .enter(self.bytes_per_token.saturating_mul(tokens), || f(&pass, buffers));
    }
}
