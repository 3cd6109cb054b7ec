//! One answer on its way.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::job::{End, Event, Failure, Job, Piece};
use super::scheduler::Load;
use crate::generation::{Finish, Logprobs, TokenLogprob, likeliest};
use crate::sampling::Sampler;
use crate::tokenizer::{TextStream, Tokenizer};

/// An answer: what was asked, what was drawn, and what of it was told.
pub(super) struct Answer<'t> {
    job: Job,
    sampler: Sampler,
    decoder: Option<TextStream<'t>>,
    /// Prompt and answer.
    history: Vec<u32>,
    prompt: usize,
    reused: usize,
    /// Drawn and not told.
    piece: Piece,
    /// Orders answers by when they came.
    pub number: u64,
}

/// Whether an answer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    More,
    Done,
}

impl<'t> Answer<'t> {
    /// Begins, `reused` tokens of the prompt having been read.
    pub fn new(job: Job, sampler: Sampler, tokenizer: &'t Tokenizer, reused: usize, number: u64) -> Self {
        Self {
            decoder: Some(tokenizer.stream_behind(&job.prompt)),
            history: job.prompt.clone(),
            prompt: job.prompt.len(),
            reused,
            sampler,
            job,
            piece: Piece::default(),
            number,
        }
    }

    /// Prompt and answer so far.
    pub fn history(&self) -> &[u32] {
        &self.history
    }

    fn drawn(&self) -> usize {
        self.history.len() - self.prompt
    }

    /// Draws the next token from `logits`, in which tokens that are never drawn are −∞, and tells what is certain.
    pub fn draw(&mut self, logits: &mut [f32], ends: &[u32], context: usize) -> Next {
        let asked = self
            .job
            .logprobs
            .map(|count| (likeliest(logits, count), logits.to_vec()));
        let id = match self.sampler.sample(logits, &self.history) {
            Ok(id) => id,
            Err(error) => return self.fail(error.to_string()),
        };
        if let Some(((top, total), logits)) = asked {
            let logit = logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
            let logprob = f64::from(logit) - total;
            let chosen = TokenLogprob { id, logprob };
            self.piece.logprobs.push(Logprobs { chosen, top });
        }
        self.history.push(id);
        self.piece.ids.push(id);
        if ends.contains(&id) {
            return self.end(Finish::EndToken);
        }
        let text = match self.decoder.as_mut().map(|decoder| decoder.push(id)) {
            Some(Ok(text)) => text,
            Some(Err(error)) => return self.fail(error.to_string()),
            None => String::new(),
        };
        let streamed = self.job.stops.push(&text);
        self.piece.text.push_str(streamed.text);
        if streamed.stopped {
            return self.end(Finish::StopString);
        }
        if self.drawn() >= self.job.max_tokens || self.history.len() >= context {
            return self.end(Finish::Length);
        }
        if self.piece.text.is_empty() && self.job.logprobs.is_none() {
            return Next::More;
        }
        let piece = Event::Piece(std::mem::take(&mut self.piece));
        match self.job.sink.tell(piece) {
            true => Next::More,
            false => Next::Done,
        }
    }

    /// How many of the largest logits settle the next token, those that are [penalised](Self::penalised) aside; `None` if all are needed.
    pub fn needed(&self) -> Option<usize> {
        self.sampler.needed().filter(|_| self.job.logprobs.is_none())
    }

    /// The tokens whose logits will be lowered, if any are.
    pub fn penalised(&self) -> Option<&[u32]> {
        (self.sampler.params().repetition_penalty != 1.0).then_some(&*self.history)
    }

    /// Whether its time is over.
    pub fn is_late(&self, now: Instant) -> bool {
        self.job.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Ends it: what was held back goes out, then why.
    pub fn end(&mut self, mut finish: Finish) -> Next {
        if finish != Finish::StopString {
            let text = match self.decoder.take().map(TextStream::finish) {
                Some(Ok(text)) => text,
                Some(Err(error)) => return self.fail(error.to_string()),
                None => String::new(),
            };
            let streamed = self.job.stops.push(&text);
            let stopped = streamed.stopped;
            self.piece.text.push_str(streamed.text);
            match stopped {
                true => finish = Finish::StopString,
                false => self.piece.text.push_str(self.job.stops.finish()),
            }
        }
        let piece = std::mem::take(&mut self.piece);
        let end = End {
            finish,
            prompt: self.prompt,
            reused: self.reused,
            tokens: self.drawn(),
        };
        let heard = piece.text.is_empty() && piece.ids.is_empty() || self.job.sink.tell(Event::Piece(piece));
        if heard {
            self.job.sink.tell(Event::End(end));
        }
        Next::Done
    }

    fn fail(&mut self, why: String) -> Next {
        self.job.sink.tell(Event::Failed(Failure::Other(why)));
        Next::Done
    }

    /// Counts what it took.
    pub fn count(&self, load: &Load) {
        load.generated.fetch_add(self.drawn() as u64, Ordering::Relaxed);
    }
}
