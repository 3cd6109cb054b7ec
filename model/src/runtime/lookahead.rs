//! Reading ahead: what was written before is often written again, so the tokens that followed last time are read together with the token
//! that is due, and their logits are there when they come.
//!
//! Prompt lookup (Saxena 2023) as the draft of speculative decoding (Leviathan et al. 2023): the last tokens are looked up in the text so
//! far, and what followed there is the draft. A pass over several tokens reads the weights once, and gives each token the logits that a
//! pass of its own would give, bit for bit. So whoever samples sees the same logits in the same order, and neither
//! the sampling nor the text depends on what was drafted. Drafts grow while they are right and stop for a while when they are not, so
//! that plain text pays next to nothing.

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

use super::sequence::Sequence;
use super::sketch::Top;

/// Tokens of the longest draft: with the token that is due they stay below what a pass reads at the price of one reading of the weights.
pub const LONGEST_DRAFT: usize = 8;
/// Tokens that must have occurred before, in the same order, for what followed to be a draft; longer matches are tried first.
const MATCHES: [usize; 2] = [3, 2];
/// Tokens without a draft after one that was all wrong.
const REST: usize = 16;

/// How often drafts were right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookaheadCounts {
    /// Tokens drafted.
    pub drafted: usize,
    /// Drafted tokens that came.
    pub accepted: usize,
}

/// A session with the tokens that it holds, and perhaps some that are to come.
pub struct Lookahead<S> {
    session: S,
    /// The tokens read so far, without drafts.
    held: Vec<u32>,
    /// The pass that was made last: its tokens, of which the first `used` have come, and their logits.
    pass: Vec<u32>,
    used: usize,
    /// Tokens that do not count among the largest logits of the pass.
    except: Vec<u32>,
    /// `[longest + 1, vocab_size]`
    logits: Vec<f32>,
    longest: usize,
    width: usize,
    rest: usize,
    counts: LookaheadCounts,
}

impl<S: Sequence> Lookahead<S> {
    /// Around a new session; drafts have at most `longest` tokens, 0 for none. A [`Session`](super::Session) should have been opened with
    /// `logit_rows` of `longest + 1`.
    pub fn new(session: S, longest: usize) -> Self {
        let longest = longest.min(LONGEST_DRAFT);
        let (context, vocab) = (session.context(), session.vocab_size());
        Self {
            held: Vec::with_capacity(context),
            pass: Vec::with_capacity(longest.saturating_add(1)),
            used: 0,
            except: Vec::new(),
            logits: vec![0.0; longest.saturating_add(1).saturating_mul(vocab)],
            longest,
            width: longest.min(2),
            rest: 0,
            counts: LookaheadCounts::default(),
            session,
        }
    }

    /// The session.
    pub fn session(&self) -> &S {
        &self.session
    }

    /// The tokens read so far.
    pub fn held(&self) -> &[u32] {
        &self.held
    }

    /// How often drafts were right.
    pub fn counts(&self) -> LookaheadCounts {
        self.counts
    }

    /// How many tokens of `ids` [`read`](Self::read) need not read, because they are held.
    pub fn known(&self, ids: &[u32]) -> usize {
        // The last token is read again in any case: its logits are needed.
        let common = self.held.iter().zip(ids).take_while(|(a, b)| a == b).count();
        common.min(ids.len().saturating_sub(1))
    }

    /// Makes `ids` what is held, reading only what is new, and returns the logits after the last, `[vocab_size]`; those that
    /// cannot be among the `top` may be −∞ ([`Sequence::prefill_top`]).
    ///
    /// # Errors
    /// As [`Sequence::prefill_top`]; what is held is then unspecified.
    pub fn read(&mut self, ids: &[u32], top: Option<Top<'_>>) -> Result<&mut [f32], S::Error> {
        let known = self.known(ids);
        self.held.truncate(known);
        self.session.truncate(known);
        self.pass.clear();
        self.used = 0;
        let new = ids.get(known..).unwrap_or_default();
        let logits = self.session.prefill_top(new, top)?;
        let row = self.logits.get_mut(..logits.len()).unwrap_or_default();
        row.iter_mut().zip(logits).for_each(|(to, from)| *to = *from);
        self.held.extend_from_slice(new);
        Ok(row)
    }

    /// Takes up the tokens `ids`, the first of a snapshot of `stored` tokens, as [`Sequence::restore`] does.
    ///
    /// # Errors
    /// As [`Sequence::restore`]; nothing is held afterwards.
    pub fn restore(&mut self, ids: &[u32], stored: usize, bytes: &[u8]) -> Result<(), S::Error> {
        self.held.clear();
        self.pass.clear();
        self.used = 0;
        self.session.truncate(0);
        self.session.restore(ids.len(), stored, bytes)?;
        self.held.extend_from_slice(ids);
        Ok(())
    }

    /// Takes `id` as the next token and returns the logits after it, `[vocab_size]`, as [`Sequence::prefill_top`] would. The same number must be wanted
    /// from call to call, and a token that was excepted must stay so: logits are read ahead.
    ///
    /// # Errors
    /// As [`Sequence::prefill_top`].
    pub fn next(&mut self, id: u32, top: Option<Top<'_>>) -> Result<&mut [f32], S::Error> {
        let vocab = self.session.vocab_size();
        if self.pass.get(self.used) == Some(&id) {
            self.used = self.used.saturating_add(1);
            self.counts.accepted = self.counts.accepted.saturating_add(1);
        } else {
            self.judge();
            self.session.truncate(self.held.len());
            self.draft(id);
            // What is drafted now may be excepted by the time it has come.
            let drafted = self.pass.len() > 1;
            if drafted {
                self.except.clear();
                self.except.extend_from_slice(top.map_or(&[], |top| top.except));
                self.except.extend_from_slice(&self.pass);
            }
            let top = top.map(|top| match drafted {
                true => Top {
                    except: &self.except,
                    ..top
                },
                false => top,
            });
            let logits = &mut self.logits;
            let read = self.session.prefill_all_top(&self.pass, top, |i, row| {
                let to = row_mut(logits, vocab, i);
                to.iter_mut().zip(row).for_each(|(to, from)| *to = *from);
            });
            if let Err(error) = read {
                self.pass.clear();
                return Err(error);
            }
            self.counts.drafted = self.counts.drafted.saturating_add(self.pass.len().saturating_sub(1));
            self.used = 1;
        }
        self.held.push(id);
        Ok(row_mut(&mut self.logits, vocab, self.used.saturating_sub(1)))
    }

    /// Learns from how far the last draft went.
    fn judge(&mut self) {
        let drafted = self.pass.len().saturating_sub(1);
        if drafted == 0 {
            return;
        }
        if self.used == self.pass.len() {
            self.width = self.width.saturating_mul(2).min(self.longest);
        } else if self.used == 1 {
            self.width = (self.width / 2).max(1);
            self.rest = REST;
        }
    }

    /// The tokens of the next pass: `id`, and what followed when the last tokens stood there before.
    fn draft(&mut self, id: u32) {
        self.pass.clear();
        self.pass.push(id);
        if self.rest > 0 {
            self.rest = self.rest.saturating_sub(1);
            return;
        }
        let room = self.session.context().saturating_sub(self.held.len().saturating_add(1));
        let wanted = self.width.min(self.longest).min(room);
        if wanted == 0 {
            return;
        }
        for length in MATCHES {
            if let Some(after) = follows(&self.held, id, length) {
                self.pass.extend(self.held.iter().skip(after).take(wanted));
                return;
            }
        }
    }
}

/// Row `i` of rows of `width` values.
fn row_mut(rows: &mut [f32], width: usize, i: usize) -> &mut [f32] {
    rows.chunks_exact_mut(width.max(1)).nth(i).unwrap_or_default()
}

/// Where in `held` the text goes on after the latest earlier place with the last `length` tokens, `id` being the last of them.
fn follows(held: &[u32], id: u32, length: usize) -> Option<usize> {
    let before = held.get(held.len().checked_sub(length.checked_sub(1)?)?..)?;
    // At least one token must follow there.
    (length..held.len()).rev().find(|&after| {
        let place = after.checked_sub(length).and_then(|start| held.get(start..after));
        place
            .and_then(<[u32]>::split_last)
            .is_some_and(|(last, body)| *last == id && body == before)
    })
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test"
)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_match_is_found() {
        let held = [1, 2, 3, 4, 1, 2, 3, 5, 1, 2];
        // "1 2" + 3 stood at 0 and 4; after the later one comes index 7.
        assert_eq!(follows(&held, 3, 3), Some(7));
        assert_eq!(follows(&held, 9, 2), None);
        assert_eq!(follows(&held, 3, 2), Some(7));
        assert_eq!(follows(&[7], 7, 2), None);
        assert_eq!(follows(&[], 7, 3), None);
        assert_eq!(follows(&[7, 7, 7], 7, 2), Some(2));
    }
}
