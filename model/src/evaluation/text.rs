//! A text in overlapping windows, and how surprising its tokens are.

use std::ops::Range;

use super::{EvaluationError, Result, Score};
use crate::config::ModelConfig;
use crate::runtime::Sequence;

/// A text to be scored in windows of `context` tokens that advance by `stride`; the first token is context only.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    ids: &'a [u32],
    context: usize,
    stride: usize,
}

impl<'a> Text<'a> {
    /// `ids`, if a model of `config` can score them.
    ///
    /// # Errors
    /// A context above the model's, a stride of 0 or above the context, fewer than two tokens, an id outside the vocabulary.
    pub fn new(config: &ModelConfig, ids: &'a [u32], (context, stride): (usize, usize)) -> Result<Self> {
        let between = |what, found: usize, limit: usize| match (1..=limit).contains(&found) {
            true => Ok(()),
            false => Err(EvaluationError::Window {
                what,
                expected: format!("1 to {limit}"),
                found,
            }),
        };
        between("context", context, config.max_position_embeddings)?;
        between("stride", stride, context)?;
        if ids.len() < 2 {
            return Err(EvaluationError::TooShort);
        }
        let vocab_size = config.vocab_size;
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(EvaluationError::UnknownId { id, vocab_size });
        }
        Ok(Text { ids, context, stride })
    }

    /// Its tokens.
    pub fn ids(&self) -> &'a [u32] {
        self.ids
    }

    /// Tokens of a window.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Tokens that are scored.
    pub fn targets(&self) -> usize {
        self.ids.len() - 1
    }

    /// Number of windows.
    pub fn windows(&self) -> usize {
        1 + self.targets().saturating_sub(self.context).div_ceil(self.stride)
    }

    /// The tokens that window `window` reads, and how many targets were scored before it.
    pub fn span(&self, window: usize) -> (Range<usize>, usize) {
        let first = window * self.stride;
        let last = (first + self.context).min(self.targets());
        let scored_before = if window == 0 {
            0
        } else {
            first - self.stride + self.context
        };
        (first..last, scored_before)
    }

    /// Reads window `window` from its beginning and calls `each(logits, target)` for the tokens that it scores, in order; returns their number.
    pub(super) fn window<S: Sequence>(
        &self,
        session: &mut S,
        window: usize,
        mut each: impl FnMut(&[f32], u32),
    ) -> Result<u64, S::Error> {
        let (Range { start, end }, scored_before) = self.span(window);
        let first = scored_before.max(start);
        session.truncate(0);
        if first > start {
            // Of what is only context no logits are wanted but, as the interface has it, the last.
            session.prefill_top(&self.ids[start..first], None)?;
        }
        session.prefill_all_top(&self.ids[first..end], None, |i, logits| {
            each(logits, self.ids[first + i + 1])
        })?;
        Ok((end - first) as u64)
    }

    /// The sum of the `windows`, or of whatever else the text was cut into.
    pub fn score(&self, windows: &[f64]) -> Score {
        Score {
            nats: windows.iter().sum(),
            tokens: self.targets() as u64,
        }
    }
}

/// `−ln softmax(logits)[target]` in f64; an id outside the vocabulary is infinitely surprising.
pub fn surprise(logits: &[f32], target: u32) -> f64 {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    logits
        .get(target as usize)
        .map_or(f64::INFINITY, |&x| sum.ln() - f64::from(x - max))
}

/// Words of `text` as perplexity per word counts them: what lies between white space, and one for each line's end. The
/// last line counts with or without a newline.
pub fn count_words(text: &str) -> u64 {
    let words = text.split_whitespace().count() + text.bytes().filter(|&b| b == b'\n').count();
    words as u64 + u64::from(!text.is_empty() && !text.ends_with('\n'))
}
