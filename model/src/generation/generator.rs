//! The generator: a model, a tokenizer, and the tokens that were read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onebit_kernels_cpu::Isa;
use serde::Serialize;

use super::GenerationError;
use super::logprobs::{Logprobs, TokenLogprob, likeliest};
use super::session::AnySession;
use crate::decode::TokenLoop;
#[cfg(feature = "cuda")]
use crate::runtime::cuda::{CudaModel, CudaRuntimeError, CudaSession};
use crate::runtime::{
    Executor, KvType, LONGEST_DRAFT, PackedModel, Pool, RuntimeError, Sequence, Session, SessionOptions, Top,
};
use crate::sampling::{Sampler, StopStrings};
use crate::tokenizer::Tokenizer;

/// Bytes from which on a head is worth the seconds that its sketch takes to make.
const SKETCHED_HEAD: usize = 16 << 20;
/// Tokens that a GPU reads ahead: with the token that is due as many as its fastest kernels take.
#[cfg(feature = "cuda")]
const GPU_DRAFT: usize = onebit_kernels_cuda::ternary_gemv::MOST_NORMED - 1;

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Finish {
    /// As many tokens as were asked for.
    Length,
    /// The model's end token.
    EndToken,
    /// A stop string.
    StopString,
    /// The caller's flag, as for Ctrl-C.
    Interrupted,
}

/// What was generated.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The text, without stop string and control tokens.
    pub text: String,
    /// The tokens, the end token included if there was one.
    pub ids: Vec<u32>,
    /// How likely each of them was, if that was asked for.
    pub logprobs: Vec<Logprobs>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt that were left out because it was too long.
    pub dropped: usize,
    /// Tokens, of prompt and answer, that were let go on the way because the context was full.
    pub shifted: usize,
    /// Tokens of the prompt that had been read before.
    pub reused: usize,
    /// Tokens that were read ahead of their turn.
    pub drafted: usize,
    /// Those among them that came.
    pub accepted: usize,
    /// From the call to the first token.
    pub first: Duration,
    /// From the first token to the last.
    pub rest: Duration,
}

impl Generated {
    /// Tokens a second after the first; 0 if there was only one.
    pub fn tokens_per_second(&self) -> f64 {
        match self.ids.len().saturating_sub(1) {
            0 => 0.0,
            steps => steps as f64 / self.rest.as_secs_f64().max(1e-9),
        }
    }

    /// Milliseconds from the call to the first token.
    pub fn first_ms(&self) -> f64 {
        1e3 * self.first.as_secs_f64()
    }
}

/// How the answers are computed. Nothing but `kv` changes them.
#[derive(Clone, Copy, Debug)]
pub struct GeneratorOptions {
    /// The CPU path.
    pub isa: Isa,
    /// Threads of the CPU.
    pub threads: usize,
    /// Tokens of the window, prompt and answer; at most the model's `max_position_embeddings`.
    pub context: usize,
    /// Tokens read ahead at most; where not given, as many as pay.
    pub lookahead: Option<usize>,
    /// Computes every logit, also those that cannot be drawn; a GPU always does.
    pub exact_head: bool,
    /// How keys and values are kept.
    pub kv: KvType,
}

/// One text to be continued.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its tokens, at least one.
    pub prompt: &'a [u32],
    /// Tokens of the answer at most.
    pub max_tokens: usize,
    /// Tells how likely each token was, with so many alternatives. All logits are then computed.
    pub logprobs: Option<usize>,
}

/// A model with the tokens that it has read.
pub struct Generator {
    pub(super) tokens: TokenLoop<AnySession>,
    tokenizer: Tokenizer,
    exact_head: bool,
}

impl Generator {
    /// A generator for texts drawn by samplers like `sampler`; `ends` are the tokens that end a text.
    ///
    /// # Errors
    /// [`RuntimeError`] for options outside their range and where memory or threads are missing.
    pub fn new(
        mut model: PackedModel,
        tokenizer: Tokenizer,
        ends: Vec<u32>,
        sampler: &Sampler,
        options: GeneratorOptions,
    ) -> Result<Self, RuntimeError> {
        let pool = Pool::new(options.threads)?;
        let sketched = sampler.needed().is_some() && !options.exact_head;
        if sketched && model.head().values.bytes() > SKETCHED_HEAD {
            add_sketch(&mut model, &pool, options.isa);
        }
        // Several tokens at once pay where weights come from memory; in the caches each costs as much as alone.
        let usual = if model.comes_from_memory() { LONGEST_DRAFT } else { 0 };
        let longest_draft = options.lookahead.unwrap_or(usual);
        let mut session = SessionOptions::new(options.context);
        session.logit_rows = (longest_draft + 1).min(session.chunk);
        session.kv = options.kv;
        let session = Session::new(Arc::new(model), pool, options.isa, session)?;
        let session = AnySession::Cpu(session);
        Ok(Self::with(session, longest_draft, tokenizer, ends, options.exact_head))
    }

    /// The same on the GPU that `cuda`, a copy of `model`, lies on; `model` is not needed any more afterwards.
    ///
    /// # Errors
    /// [`CudaRuntimeError`] for options outside their range and where memory is missing.
    #[cfg(feature = "cuda")]
    pub fn on_gpu(
        cuda: &CudaModel,
        model: &PackedModel,
        tokenizer: Tokenizer,
        ends: Vec<u32>,
        options: GeneratorOptions,
    ) -> Result<Self, CudaRuntimeError> {
        let session = AnySession::on_gpu(CudaSession::new(cuda, options.context, options.kv)?, model);
        let longest_draft = options.lookahead.unwrap_or(GPU_DRAFT);
        Ok(Self::with(session, longest_draft, tokenizer, ends, true))
    }

    fn with(session: AnySession, longest_draft: usize, tokenizer: Tokenizer, ends: Vec<u32>, exact_head: bool) -> Self {
        // Many models pad their vocabulary with ids that stand for no token.
        let ids = 0..session.vocab_size() as u32;
        let unused = ids.filter(|&id| !tokenizer.has_id(id)).collect();
        Self {
            tokens: TokenLoop::new(session, longest_draft, unused, ends),
            tokenizer,
            exact_head,
        }
    }

    /// Never generates these tokens.
    pub fn suppress(&mut self, ids: &[u32]) {
        self.tokens.suppress(ids);
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Tokens of the window.
    pub fn context(&self) -> usize {
        self.tokens.context()
    }

    /// The part of a prompt that is read: all of it, or the most recent tokens of one that is longer than the context, with room for
    /// `max_tokens` up to half of the context.
    pub fn fitting<'a>(&self, prompt: &'a [u32], max_tokens: usize) -> &'a [u32] {
        self.tokens.fitting(prompt, max_tokens)
    }

    /// Reads a prompt ahead of [`generate`](Self::generate), which then begins at once.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn read(&mut self, request: Request<'_>) -> Result<(), GenerationError> {
        let prompt = self.fitting(request.prompt, request.max_tokens);
        // The least of the head that can be asked for: its logits are not used.
        let top = Top { count: 1, except: &[] };
        self.tokens.reader_mut().read(prompt, Some(top))?;
        Ok(())
    }

    /// Continues a prompt with text that can be joined with it. `piece` gets the text as it becomes certain, and an error of it ends the text; `stop` ends it
    /// after the current token. What the prompt has in common with what was read before is not read again.
    ///
    /// # Errors
    /// [`GenerationError`]: an empty prompt, a token outside the vocabulary, logits that are no numbers; or what `piece` returned.
    pub fn generate<E: From<GenerationError>>(
        &mut self,
        request: Request<'_>,
        sampler: &mut Sampler,
        stops: &mut StopStrings,
        stop: &AtomicBool,
        piece: &mut dyn FnMut(&str) -> Result<(), E>,
    ) -> Result<Generated, E> {
        let start = Instant::now();
        let counted = self.tokens.reader().counts();
        let prompt = self.fitting(request.prompt, request.max_tokens);
        let all_logits = self.exact_head || request.logprobs.is_some();
        self.tokens.begin(prompt, request.max_tokens);
        let mut out = Generated {
            text: String::new(),
            ids: Vec::new(),
            logprobs: Vec::new(),
            finish: Finish::Length,
            dropped: request.prompt.len() - prompt.len(),
            shifted: 0,
            reused: self.tokens.reader().known(prompt),
            drafted: 0,
            accepted: 0,
            first: start.elapsed(),
            rest: Duration::ZERO,
        };
        let mut decoder = self.tokenizer.stream_behind(prompt);
        let mut release = |text: &str, out: &mut String| -> Result<(), E> {
            out.push_str(text);
            if text.is_empty() { Ok(()) } else { piece(text) }
        };
        let mut first_at = None;
        while out.ids.len() < request.max_tokens {
            if stop.load(Ordering::Relaxed) {
                out.finish = Finish::Interrupted;
                break;
            }
            let mut asked = None;
            let drawn = self.tokens.next::<GenerationError>(sampler, all_logits, |logits| {
                asked = request
                    .logprobs
                    .map(|count| (likeliest(logits, count), logits.to_vec()));
            })?;
            let Some(drawn) = drawn else {
                break;
            };
            let id = drawn.id;
            out.shifted += drawn.shifted;
            if let Some(((top, total), logits)) = asked {
                let logit = logits.get(id as usize).copied();
                let logprob = f64::from(logit.unwrap_or(f32::NEG_INFINITY)) - total;
                out.logprobs.push(Logprobs {
                    chosen: TokenLogprob { id, logprob },
                    top,
                });
            }
            let counts = self.tokens.reader().counts();
            out.drafted = counts.drafted - counted.drafted;
            out.accepted = counts.accepted - counted.accepted;
            let now = Instant::now();
            first_at.get_or_insert(now);
            out.ids.push(id);
            out.first = first_at.map_or(out.first, |at| at - start);
            out.rest = first_at.map_or(out.rest, |at| now - at);
            if drawn.ends {
                out.finish = Finish::EndToken;
                break;
            }
            let text = decoder.push(id).map_err(GenerationError::Tokenizer)?;
            let streamed = stops.push(&text);
            release(streamed.text, &mut out.text)?;
            if streamed.stopped {
                out.finish = Finish::StopString;
                return Ok(out);
            }
        }
        let text = decoder.finish().map_err(GenerationError::Tokenizer)?;
        let streamed = stops.push(&text);
        release(streamed.text, &mut out.text)?;
        if streamed.stopped {
            out.finish = Finish::StopString;
        } else {
            release(stops.finish(), &mut out.text)?;
        }
        Ok(out)
    }
}

/// Makes a [sketch](crate::runtime::HeadSketch) of the head where there is none, unless the head lies in a file, which is to start at once: what such a file holds
/// is used.
pub fn add_sketch<E: Executor>(model: &mut PackedModel, executor: &E, isa: Isa) {
    if model.sketch().is_none() && !model.head().values.is_shared() {
        model.sketch_head(executor, isa);
    }
}
