//! Many sequences over the same weights, read side by side: what a server does.
//!
//! ```text
//! step   sequence 0: 1 token    ─┐                                   ┌─ attention of each over its own cache ─┐
//!        sequence 3: 1 token     ├─ one chunk: weights read once ────┤                                        ├─ head: a row for each that asks
//!        sequence 7: 200 tokens ─┘                                   └────────────────────────────────────────┘
//! ```
//! A token costs what it computes; the weights are opened once for all of them, which is most of the cost of a token alone. The logits of a sequence are those that a [`Session`](super::Session) of
//! its own would give, bit for bit, whoever else is in the chunk (ARCHITECTURE.md §2.2).

#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used
)]

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Deref;

use onebit_kernels_cpu::Isa;

use super::RuntimeError;
use super::buffers::Buffers;
use super::executor::{Executor, Serial};
use super::forward::{Pass, Span};
use super::session::SessionOptions;
use super::shortlist::{Shortlist, ShortlistBuffers};
use super::snapshot;
use super::turns::{Held, Turn, Wanted};
use super::weights::PackedModel;

/// Sequences that share the model, the threads and the memory of a forward pass. `M` and `E` are as in [`Session`](super::Session).
///
/// The memory is taken by [`new`](Self::new) (and [`add_shortlist`](Self::add_shortlist)) but for a few words of each turn; that of a cache is touched as far as positions come.
pub struct Batch<M, E = Serial> {
    model: M,
    executor: E,
    isa: Isa,
    options: SessionOptions,
    buffers: Buffers,
    /// Tokens that each sequence holds.
    positions: Vec<usize>,
    /// Of the step: whose tokens, and which.
    spans: Vec<Span>,
    ids: Vec<u32>,
    /// For [`Wanted::Top`], where integer products pay.
    shortlist: Option<(Shortlist, ShortlistBuffers)>,
    bytes_per_token: usize,
}

impl<M: Deref<Target = PackedModel>, E: Executor> Batch<M, E> {
    /// Opens `sequences` empty sequences, at least one, each with a context of [`SessionOptions::context`]; a step takes [`SessionOptions::chunk`] tokens in all and gives
    /// [`SessionOptions::logit_rows`] rows of logits, at most.
    ///
    /// # Errors
    /// As [`Session::new`](super::Session::new).
    pub fn new(
        model: M,
        executor: E,
        isa: Isa,
        options: SessionOptions,
        sequences: usize,
    ) -> Result<Self, RuntimeError> {
        options.validate_batch(model.config(), sequences)?;
        let mut buffers = Buffers::new(model.config(), &options, executor.threads(), sequences)?;
        buffers.add_head_input(&model, options.logit_rows)?;
        let bytes_per_token = model.bytes_per_token();
        Ok(Self {
            model,
            executor,
            isa,
            options,
            buffers,
            positions: vec![0; sequences],
            spans: Vec::with_capacity(sequences),
            ids: Vec::with_capacity(options.chunk),
            shortlist: None,
            bytes_per_token,
        })
    }

    /// Prepares the head for [`Wanted::Top`]: integer products then find which rows can be among the largest. It takes twelve bytes for each row of the head, and one for each weight
    /// that is not a byte already. Nothing changes where the CPU has no fast integer products, or the head is ternary.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`].
    pub fn add_shortlist(&mut self) -> Result<(), RuntimeError> {
        if !Shortlist::pays(self.isa) {
            return Ok(());
        }
        if let Some(shortlist) = Shortlist::build(&self.executor, self.isa, self.model.head())? {
            let buffers = ShortlistBuffers::new(&shortlist, self.options.logit_rows, self.executor.threads())?;
            self.shortlist = Some((shortlist, buffers));
        }
        Ok(())
    }

    /// The model.
    pub fn model(&self) -> &PackedModel {
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

    /// Gives sequence `to` the first `positions` tokens of sequence `from`, in place of what it holds: two texts with one beginning.
    ///
    /// # Errors
    /// [`RuntimeError::Snapshot`] if `from` holds fewer; [`RuntimeError::Option`] for a sequence that is not there. Nothing changes then.
    pub fn copy(&mut self, from: usize, to: usize, positions: usize) -> Result<(), RuntimeError> {
        self.held().check_copy(from, to, positions)?;
        if from == to {
            self.truncate(to, positions);
            return Ok(());
        }
        let (kv, head_dim) = (self.options.kv, self.model.config().head_dim);
        let lengths = snapshot::part_bytes(kv, positions, head_dim);
        let (low, high) = self.buffers.caches.split_at_mut(from.max(to));
        if let (Some(low), Some(high)) = (low.get_mut(from.min(to)), high.first_mut())
            && positions > 0
        {
            let (source, target) = if from < to { (low, high) } else { (high, low) };
            for (source, target) in source.heads.iter().zip(&mut target.heads) {
                let parts = snapshot::parts(source.view())
                    .into_iter()
                    .zip(target.parts_mut(positions, head_dim));
                for ((source, target), length) in parts.zip(lengths) {
                    if let (Some(source), Some(target)) = (source.get(..length), target.get_mut(..length)) {
                        target.copy_from_slice(source);
                    }
                }
            }
        }
        if let Some(held) = self.positions.get_mut(to) {
            *held = positions;
        }
        Ok(())
    }

    /// Reads the tokens of some sequences, each after what it holds, and hands the logits `[vocab_size]` of each turn that wants some to `each`, with its item: `items` has one for each of these turns, in their
    /// order. Several threads may call at once.
    ///
    /// # Errors
    /// [`RuntimeError::Turns`] if the sequences do not ascend; [`RuntimeError::Option`] for a sequence that is not there, for more tokens than a chunk has, for more logits than there are rows, or for another number of
    /// items; [`RuntimeError::EmptyInput`], [`RuntimeError::ContextFull`] or [`RuntimeError::UnknownToken`]. Nothing changes then.
    pub fn step<T: Send>(
        &mut self,
        turns: &[Turn<'_>],
        items: &mut [T],
        each: impl Fn(&mut T, &mut [f32]) + Sync,
    ) -> Result<(), RuntimeError> {
        let (mut spans, mut ids) = (core::mem::take(&mut self.spans), core::mem::take(&mut self.ids));
        let planned = self.held().plan(turns, items.len(), &mut spans, &mut ids);
        (self.spans, self.ids) = (spans, ids);
        planned?;
        // Rows of the chunk with their items: first those of which all logits are wanted.
        let mut rows: Vec<(usize, &mut T)> = Vec::with_capacity(items.len());
        let mut tops = Vec::with_capacity(items.len());
        let mut later = Vec::with_capacity(items.len());
        let asked = turns
            .iter()
            .zip(&self.spans)
            .filter(|(turn, _)| turn.logits != Wanted::Nothing);
        for ((turn, span), item) in asked.zip(items) {
            let row = span.at.saturating_add(span.tokens).saturating_sub(1);
            match turn.logits {
                Wanted::Top(top) if self.shortlist.as_ref().is_some_and(|(list, _)| list.takes(top)) => {
                    tops.push(top);
                    later.push((row, item));
                }
                _ => rows.push((row, item)),
            }
        }
        let all = rows.len();
        rows.extend(later);

        let tokens = self.ids.len();
        let pass = Pass {
            model: &self.model,
            exec: &self.executor,
            isa: self.isa,
            spans: &self.spans,
            tokens,
        };
        let (buffers, ids, shortlist) = (&mut self.buffers, &self.ids, self.shortlist.as_mut());
        let (hidden, vocab) = (self.model.config().hidden_size, self.model.config().vocab_size.max(1));
        self.executor.enter(self.bytes_per_token.saturating_mul(tokens), || {
            pass.gather_turns(buffers);
            pass.blocks(ids, buffers);
            if rows.is_empty() {
                return;
            }
            let x = buffers.x.chunks_exact(hidden.max(1));
            for ((row, _), to) in rows.iter().zip(buffers.branch.chunks_exact_mut(hidden.max(1))) {
                if let Some(x) = x.clone().nth(*row) {
                    to.copy_from_slice(x);
                }
            }
            pass.logits_for(all, &tops, shortlist, buffers);
            let logits = buffers
                .logits
                .get_mut(..rows.len().saturating_mul(vocab))
                .unwrap_or_default();
            let chunk = rows.len().div_ceil(pass.exec.pieces(size_of_val(logits)).max(1));
            pass.exec.zip(
                logits,
                chunk.saturating_mul(vocab),
                &mut rows,
                chunk,
                |_, logits, rows| {
                    for ((_, item), logits) in rows.iter_mut().zip(logits.chunks_exact_mut(vocab)) {
                        each(item, logits);
                    }
                },
            );
        });
        for span in &self.spans {
            if let Some(position) = self.positions.get_mut(span.sequence) {
                *position = position.saturating_add(span.tokens);
            }
        }
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
