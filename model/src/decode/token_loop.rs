//! The loop: what was read, the next logits, the next token.

use alloc::vec::Vec;

use crate::runtime::{Lookahead, Sequence, Top};
use crate::sampling::{Sampler, SamplingError};

/// A token of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// The token.
    pub id: u32,
    /// Whether it ends the text.
    pub ends: bool,
    /// Tokens, of prompt and answer, that were let go before it because the context was full.
    pub shifted: usize,
}

/// A sequence and the answer that is being drawn from it. What a prompt has in common with what was read before is not read again.
pub struct TokenLoop<S> {
    reader: Lookahead<S>,
    /// Never drawn.
    unused: Vec<u32>,
    ends: Vec<u32>,
    slides: bool,
    /// Prompt and answer; what the window let go is still there.
    history: Vec<u32>,
    /// Drawn and not yet read.
    pending: Option<u32>,
    /// Tokens whose logits are lowered after they were found to be among the largest: `unused`, and `excepted` tokens of `history`.
    except: Vec<u32>,
    excepted: usize,
    recent: Vec<u32>,
}

impl<S: Sequence> TokenLoop<S> {
    /// Around a new session, with drafts of at most `longest_draft` tokens ([`Lookahead::new`]). The tokens `unused` are never drawn, and `ends` end a text.
    pub fn new(session: S, longest_draft: usize, unused: Vec<u32>, ends: Vec<u32>) -> Self {
        Self {
            reader: Lookahead::new(session, longest_draft),
            unused,
            ends,
            slides: true,
            history: Vec::new(),
            pending: None,
            except: Vec::new(),
            excepted: 0,
            recent: Vec::new(),
        }
    }

    /// Ends an answer where the context ends, instead of reading its most recent half again from position 0.
    pub fn stop_at_context_end(&mut self) {
        self.slides = false;
    }

    /// Never draws these tokens.
    pub fn suppress(&mut self, ids: &[u32]) {
        self.unused.extend_from_slice(ids);
        self.unused.sort_unstable();
        self.unused.dedup();
    }

    /// What reads.
    pub fn reader(&self) -> &Lookahead<S> {
        &self.reader
    }

    /// The same, to be changed; an answer that was begun is then begun anew.
    pub fn reader_mut(&mut self) -> &mut Lookahead<S> {
        self.pending = None;
        &mut self.reader
    }

    /// Tokens of the window.
    pub fn context(&self) -> usize {
        self.reader.session().context()
    }

    /// The part of a prompt that is read: all of it, or the most recent tokens of one that is longer than the context, with room for
    /// `max_tokens` up to half of the context.
    pub fn fitting<'a>(&self, prompt: &'a [u32], max_tokens: usize) -> &'a [u32] {
        let context = self.context();
        if prompt.len() <= context {
            return prompt;
        }
        let kept = context.saturating_sub(max_tokens.min(context / 2));
        let dropped = prompt.len().saturating_sub(kept);
        prompt.get(dropped..).unwrap_or_default()
    }

    /// Begins an answer of about `max_tokens` tokens to a `prompt`, of which what [fits](Self::fitting) is read with the first token.
    pub fn begin(&mut self, prompt: &[u32], max_tokens: usize) {
        let prompt = self.fitting(prompt, max_tokens);
        self.history.clear();
        self.history.reserve(
            prompt
                .len()
                .saturating_add(max_tokens.min(self.reader.session().context())),
        );
        self.history.extend_from_slice(prompt);
        self.pending = None;
        self.except.clear();
        self.except.extend_from_slice(&self.unused);
        self.excepted = 0;
    }

    /// The next token; `None` where the context is full and the window does not slide. `look` sees all logits before the sampler changes them, those of tokens that
    /// are never drawn at −∞; without `all_logits` those that cannot be drawn may be −∞ too.
    ///
    /// # Errors
    /// Those of the session and of the sampler: an empty prompt, a token outside the vocabulary, logits that are no numbers.
    pub fn next<E>(
        &mut self,
        sampler: &mut Sampler,
        all_logits: bool,
        look: impl FnOnce(&[f32]),
    ) -> Result<Option<Drawn>, E>
    where
        E: From<S::Error> + From<SamplingError>,
    {
        let needed = sampler.needed().filter(|_| !all_logits);
        if needed.is_some() && sampler.params().repetition_penalty != 1.0 {
            self.except.extend(self.history.iter().skip(self.excepted));
            self.excepted = self.history.len();
        }
        let except = self.except.as_slice();
        let top = needed.map(|count| Top { count, except });
        let context = self.reader.session().context();
        let held = self.reader.held().len();
        let (logits, shifted) = match self.pending.take() {
            None => (self.reader.read(&self.history, top)?, 0),
            Some(id) if held < context => (self.reader.next(id, top)?, 0),
            Some(_) if !self.slides => return Ok(None),
            Some(id) => {
                let kept = (context / 2).max(1);
                let shifted = held.saturating_add(1).saturating_sub(kept);
                self.recent.clear();
                self.recent.extend(self.reader.held().iter().skip(shifted));
                self.recent.push(id);
                (self.reader.read(&self.recent, top)?, shifted)
            }
        };
        for &id in &self.unused {
            if let Some(logit) = usize::try_from(id).ok().and_then(|id| logits.get_mut(id)) {
                *logit = f32::NEG_INFINITY;
            }
        }
        look(logits);
        let id = sampler.sample(logits, &self.history)?;
        self.history.push(id);
        self.pending = Some(id);
        let ends = self.ends.contains(&id);
        Ok(Some(Drawn { id, ends, shifted }))
    }
}
