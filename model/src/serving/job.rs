//! What is asked of the scheduler, and what it tells.

use std::time::Instant;

use crate::generation::{Finish, Logprobs};
use crate::sampling::{SamplingParams, StopStrings};

/// A text to be continued.
pub struct Job {
    /// Its tokens: at least one, and fewer than the context has.
    pub prompt: Vec<u32>,
    /// Tokens of the answer at most.
    pub max_tokens: usize,
    /// How tokens are drawn.
    pub sampling: SamplingParams,
    /// Texts that end the answer.
    pub stops: StopStrings,
    /// Tells how likely each token was, with so many alternatives.
    pub logprobs: Option<usize>,
    /// When the answer ends at the latest.
    pub deadline: Option<Instant>,
    /// Who is told.
    pub sink: Box<dyn Sink>,
}

/// Who is told of an answer.
pub trait Sink: Send {
    /// Takes an event, without waiting; false if nobody listens any more, and the answer may end.
    fn tell(&mut self, event: Event) -> bool;
}

impl<F: FnMut(Event) -> bool + Send> Sink for F {
    fn tell(&mut self, event: Event) -> bool {
        self(event)
    }
}

/// What is told of an answer: pieces, and then an end or a failure.
#[derive(Clone, Debug)]
pub enum Event {
    /// Some of it.
    Piece(Piece),
    /// All of it was told.
    End(End),
    /// There will be no more of it.
    Failed(Failure),
}

/// Some of an answer: at least a text or a token.
#[derive(Clone, Debug, Default)]
pub struct Piece {
    /// Text that is certain; empty while a character or a stop string may be under way.
    pub text: String,
    /// Tokens since the last piece, the end token included.
    pub ids: Vec<u32>,
    /// How likely each of them was, if that was asked for.
    pub logprobs: Vec<Logprobs>,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Those among them that had been read before.
    pub reused: usize,
    /// Tokens of the answer, the end token included.
    pub tokens: usize,
}

/// Why an answer is not given.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The prompt leaves no room for an answer.
    #[error("the prompt has {tokens} tokens and the context {context}; shorten it to {} at most", context.saturating_sub(1))]
    TooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// What was asked for makes no sense, or the model has gone wrong.
    #[error("{0}")]
    Other(String),
}
