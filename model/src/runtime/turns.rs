//! What the sequences of a batch read in a step, and the checks that a batch on any device makes before it.

#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used
)]

use alloc::vec::Vec;

use super::RuntimeError;
use super::forward::Span;
use super::session::SessionOptions;
use super::sketch::Top;

/// Which logits of a turn are wanted: those after the last of its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// None.
    #[default]
    Nothing,
    /// All.
    All,
    /// Those that can be among the largest; the others may come as −∞.
    Top(Top<'a>),
}

/// Tokens that a sequence reads in a step.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// Its number.
    pub sequence: usize,
    /// The tokens, at least one.
    pub ids: &'a [u32],
    /// Which logits are wanted.
    pub logits: Wanted<'a>,
}

/// What a batch holds and has room for.
#[derive(Clone, Copy)]
pub(super) struct Held<'a> {
    /// Tokens of each sequence.
    pub positions: &'a [usize],
    pub options: &'a SessionOptions,
    pub vocab_size: usize,
}

impl Held<'_> {
    /// Checks the turns, of which as many want logits as there are `items`, and lays them out: whose tokens the chunk holds, and which.
    pub fn plan(
        &self,
        turns: &[Turn<'_>],
        items: usize,
        spans: &mut Vec<Span>,
        ids: &mut Vec<u32>,
    ) -> Result<(), RuntimeError> {
        spans.clear();
        ids.clear();
        let mut wanted = 0_usize;
        if turns.is_empty() {
            return Err(RuntimeError::EmptyInput);
        }
        let (vocab_size, limit) = (self.vocab_size, self.options.context);
        let mut before = None;
        for turn in turns {
            if before.is_some_and(|before| before >= turn.sequence) {
                return Err(RuntimeError::Turns {
                    sequence: turn.sequence,
                });
            }
            before = Some(turn.sequence);
            let first = self.position(turn.sequence)?;
            if turn.ids.is_empty() {
                return Err(RuntimeError::EmptyInput);
            }
            if turn.ids.len() > limit.saturating_sub(first) {
                return Err(RuntimeError::ContextFull {
                    position: first,
                    more: turn.ids.len(),
                    limit,
                });
            }
            if let Some((index, &id)) = (turn.ids.iter().enumerate()).find(|&(_, &id)| id as usize >= vocab_size) {
                return Err(RuntimeError::UnknownToken { id, index, vocab_size });
            }
            spans.push(Span {
                sequence: turn.sequence,
                at: ids.len(),
                first,
                tokens: turn.ids.len(),
            });
            ids.extend_from_slice(turn.ids);
            wanted = wanted.saturating_add(usize::from(turn.logits != Wanted::Nothing));
        }
        let limits = [
            ("chunk", ids.len(), self.options.chunk),
            ("logit_rows", wanted, self.options.logit_rows),
            ("items", items, wanted),
            ("items", wanted, items),
        ];
        match limits.into_iter().find(|&(_, found, limit)| found > limit) {
            Some((name, found, limit)) => Err(RuntimeError::Option { name, found, limit }),
            None => Ok(()),
        }
    }

    /// Whether sequence `to` can be given the first `positions` tokens of sequence `from`.
    pub fn check_copy(&self, from: usize, to: usize, positions: usize) -> Result<(), RuntimeError> {
        self.position(from.max(to))?;
        let found = self.position(from)?;
        if positions > found {
            return Err(RuntimeError::Snapshot {
                expected: positions,
                found,
            });
        }
        Ok(())
    }

    /// The tokens of a sequence that has to be there.
    fn position(&self, sequence: usize) -> Result<usize, RuntimeError> {
        self.positions.get(sequence).copied().ok_or(RuntimeError::Option {
            name: "sequence",
            found: sequence,
            limit: self.positions.len().saturating_sub(1),
        })
    }
}
