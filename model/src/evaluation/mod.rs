//! Scoring text with the packed runtime.

#[cfg(all(test, feature = "train"))]
mod tests;
mod text;

use std::sync::atomic::{AtomicU64, Ordering};

use onebit_kernels_cpu::Isa;
use rayon::prelude::*;

pub use text::{Text, count_words, surprise};

#[cfg(feature = "cuda")]
use crate::runtime::cuda::{CudaModel, CudaRuntimeError, CudaSession};
use crate::runtime::{KvType, PackedModel, RuntimeError, Serial, Session, SessionOptions};

/// Result of an evaluation.
pub type Result<T, E = EvaluationError> = std::result::Result<T, E>;

/// Why a text could not be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// A window that the model cannot read.
    #[error("{what}: expected {expected}, found {found}")]
    Window {
        /// `context` or `stride`.
        what: &'static str,
        /// What there should be.
        expected: String,
        /// What was asked for.
        found: usize,
    },
    /// A text of fewer than two tokens.
    #[error("a text of fewer than two tokens cannot be scored: the first is context; give a longer one")]
    TooShort,
    /// A token that the model does not have.
    #[error("token {id} is outside the model's vocabulary of {vocab_size}; tokenize with the model's own tokenizer")]
    UnknownId {
        /// The token.
        id: u32,
        /// Tokens of the model.
        vocab_size: usize,
    },
    /// Inference.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Inference on the GPU.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] CudaRuntimeError),
}

/// Sum of the negative log-likelihoods of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Total in nats, summed in f64.
    pub nats: f64,
    /// Tokens scored.
    pub tokens: u64,
}

impl Score {
    /// Nats a token.
    pub fn loss(&self) -> f64 {
        self.nats / self.tokens as f64
    }
}

/// Scores every token of `ids` but the first, which is context only: put an end-of-text or begin token there.
///
/// The model reads windows of `context` tokens that advance by `stride`; each window scores the tokens that no earlier one did, so every
/// token but those of the first window sees at least `context − stride` tokens before it. `progress` gets the number of
/// tokens done. `kv` is how keys and values are kept. The result does not depend on the number of threads.
///
/// # Errors
/// Fewer than two tokens, a stride of 0 or above the context, an id outside the vocabulary.
pub fn score(
    model: &PackedModel,
    isa: Isa,
    ids: &[u32],
    (context, stride): (usize, usize),
    kv: KvType,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Score> {
    let text = Text::new(model.config(), ids, (context, stride))?;
    let sums = each_window(model, isa, &text, kv, progress, |session, window| {
        let mut nats = 0.0;
        let scored = text.window(session, window, |logits, target| nats += surprise(logits, target));
        Ok::<_, EvaluationError>((nats, scored?))
    })?;
    Ok(text.score(&sums))
}

/// What `read` makes of each window of `text`, in their order and on all threads of the pool; it returns the number of tokens that it scored besides, of
/// which `progress` is told the sum so far. Each thread has a session of its own.
///
/// # Errors
/// Those of `read`; too little memory for a session.
pub fn each_window<T: Send, E: From<EvaluationError> + Send>(
    model: &PackedModel,
    isa: Isa,
    text: &Text<'_>,
    kv: KvType,
    progress: &(dyn Fn(u64) + Sync),
    read: impl Fn(&mut Session<&PackedModel, Serial>, usize) -> Result<(T, u64), E> + Sync,
) -> Result<Vec<T>, E> {
    let options = SessionOptions {
        context: text.context(),
        chunk: text.context().min(64),
        logit_rows: text.context().min(16),
        kv,
    };
    let done = AtomicU64::new(0);
    (0..text.windows())
        .into_par_iter()
        .map_init(
            || Session::new(model, Serial, isa, options),
            |session, window| {
                let session = session.as_mut().map_err(|e| EvaluationError::Runtime(e.clone()))?;
                let (told, scored) = read(session, window)?;
                progress(done.fetch_add(scored, Ordering::Relaxed) + scored);
                Ok(told)
            },
        )
        .collect()
}

/// As [`score`] with a model on a GPU, one window after the other, of which all threads sum up logits while the next ones are made. The logits are those of the CPU, and so is the
/// result.
///
/// # Errors
/// As [`score`]; the GPU's.
#[cfg(feature = "cuda")]
pub fn score_on_gpu(
    model: &CudaModel,
    ids: &[u32],
    (context, stride): (usize, usize),
    kv: KvType,
    progress: &dyn Fn(u64),
) -> Result<Score> {
    let text = Text::new(model.config(), ids, (context, stride))?;
    let mut session = CudaSession::new(model, context, kv)?;
    let mut done = 0;
    let mut sums = Vec::with_capacity(text.windows());
    for window in 0..text.windows() {
        let surprises = surprises(&text, &mut session, window)?;
        sums.push(surprises.iter().sum());
        done += surprises.len() as u64;
        progress(done);
    }
    Ok(text.score(&sums))
}

/// How surprising each token is that window `window` scores.
#[cfg(feature = "cuda")]
fn surprises<S: crate::runtime::Sequence>(
    text: &Text<'_>,
    session: &mut S,
    window: usize,
) -> Result<Vec<f64>, S::Error> {
    let mut found = vec![0.0; text.context()];
    let scored = rayon::in_place_scope(|scope| {
        let mut slots = found.iter_mut();
        text.window(session, window, |logits, target| {
            if let Some(slot) = slots.next() {
                let logits = logits.to_vec();
                scope.spawn(move |_| *slot = surprise(&logits, target));
            }
        })
    })?;
    found.truncate(scored as usize);
    Ok(found)
}
