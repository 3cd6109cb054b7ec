//! Text from a model, piece by piece: what `generate` and `chat` share.
//!
//! A prompt longer than the context keeps its most recent tokens, with room for the answer (up to half of the context). An answer
//! that goes past the context slides the window: the most recent half is read again from position 0, and the text goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onebit_engine::Isa;
use onebit_model::files::GenerationConfig;
use onebit_model::runtime::{KvType, LONGEST_DRAFT, Lookahead, PackedModel, Pool, Session, SessionOptions, Top};
use onebit_model::sampling::{Sampler, SamplingParams, StopStrings};
use onebit_model::tokenizer::Tokenizer;
use serde::Serialize;

use crate::{CliError, Result};

/// Tokens generated when neither the command line nor the model says how many.
pub(crate) const MAX_TOKENS: usize = 100;

/// Bytes from which on a head is worth the seconds that its sketch takes to make.
const SKETCHED_HEAD: usize = 16 << 20;

/// Makes a sketch of the head where there is none, unless the head lies in a file, which is to start at once: what such a file holds is used.
pub(crate) fn sketch(model: &mut PackedModel, pool: &Pool, isa: Isa) {
    if model.sketch().is_none() && !model.head().values.is_shared() {
        model.sketch_head(pool, isa);
    }
}

/// Sampling as given on the command line; what is not given comes from the model, and otherwise from [`SamplingParams::default`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Given {
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub seed: Option<u64>,
}

impl Given {
    /// The parameters, checked.
    pub(crate) fn resolve(&self, model: &GenerationConfig) -> Result<SamplingParams> {
        let default = SamplingParams::default();
        // A `top_p` of 0 is what some models write for "only the likeliest token".
        let params = SamplingParams {
            temperature: self.temperature.or(model.temperature).unwrap_or(default.temperature),
            top_k: self.top_k.or(model.top_k.map(|k| k as usize)).unwrap_or(default.top_k),
            top_p: self.top_p.or(model.top_p.filter(|p| *p > 0.0)).unwrap_or(default.top_p),
            min_p: self.min_p.or(model.min_p).unwrap_or(default.min_p),
            repetition_penalty: self
                .repetition_penalty
                .or(model.repetition_penalty)
                .unwrap_or(default.repetition_penalty),
            seed: self.seed.unwrap_or(default.seed),
        };
        params.validate().map_err(|e| CliError::Usage(e.to_string()))?;
        Ok(params)
    }
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Finish {
    /// As many tokens as were asked for.
    Length,
    /// The model's end token.
    EndToken,
    /// A stop string.
    StopString,
    /// Ctrl-C.
    Interrupted,
}

/// What was generated.
pub(crate) struct Generated {
    /// The text, without stop string and control tokens.
    pub text: String,
    /// The tokens, the end token included if there was one.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt that were left out because it was too long.
    pub dropped: usize,
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
    pub(crate) fn tokens_per_second(&self) -> f64 {
        let steps = self.ids.len().saturating_sub(1);
        if steps == 0 {
            0.0
        } else {
            steps as f64 / self.rest.as_secs_f64().max(1e-9)
        }
    }

    /// Milliseconds from the call to the first token.
    pub(crate) fn first_ms(&self) -> f64 {
        1e3 * self.first.as_secs_f64()
    }
}

/// A model with the tokens that it has read.
pub(crate) struct Generator {
    reader: Reader,
    tokenizer: Tokenizer,
    ends: Vec<u32>,
    /// Ids of the model that stand for no token: many models pad their vocabulary.
    unused: Vec<u32>,
    /// How many of the largest logits are needed, if not all.
    needed: Option<usize>,
}

type Reader = Lookahead<Arc<PackedModel>, Pool>;

/// How the answers are computed. Nothing but `kv` changes them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Means {
    /// The CPU path.
    pub isa: Isa,
    /// Threads.
    pub threads: usize,
    /// Tokens read ahead at most; where not given, as many as pay.
    pub lookahead: Option<usize>,
    /// Computes every logit, also those that cannot be drawn.
    pub exact_head: bool,
    /// How keys and values are kept.
    pub kv: KvType,
}

impl Generator {
    /// A generator with a window of `context` tokens for texts drawn by samplers like `sampler`; `ends` are the tokens that end a text.
    pub(crate) fn new(
        mut model: PackedModel,
        tokenizer: Tokenizer,
        ends: Vec<u32>,
        context: usize,
        sampler: &Sampler,
        means: Means,
    ) -> Result<Self> {
        let ids = 0..model.config().vocab_size as u32;
        let unused = ids.filter(|&id| !tokenizer.has_id(id)).collect();
        let pool = Pool::new(means.threads)?;
        let needed = sampler.needed().filter(|_| !means.exact_head);
        if needed.is_some() && model.head().values.bytes() > SKETCHED_HEAD {
            sketch(&mut model, &pool, means.isa);
        }
        // Several tokens at once pay where weights come from memory; in the caches each costs as much as alone.
        let usual = if model.comes_from_memory() { LONGEST_DRAFT } else { 0 };
        let longest_draft = means.lookahead.unwrap_or(usual);
        let mut options = SessionOptions::new(context);
        options.logit_rows = (longest_draft + 1).min(options.chunk);
        options.kv = means.kv;
        let session = Session::new(Arc::new(model), pool, means.isa, options)?;
        Ok(Self {
            reader: Lookahead::new(session, longest_draft),
            unused,
            tokenizer,
            ends,
            needed,
        })
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Continues `prompt` (at least one token) by at most `max_tokens`. `piece` gets the text as it becomes certain; `stop` ends it
    /// after the current token. What the prompt has in common with what was read before is not read again.
    pub(crate) fn generate(
        &mut self,
        prompt: &[u32],
        max_tokens: usize,
        sampler: &mut Sampler,
        stops: &mut StopStrings,
        stop: &AtomicBool,
        piece: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Generated> {
        let start = Instant::now();
        let context = self.reader.session().options().context;
        let counted = self.reader.counts();
        let dropped = if prompt.len() > context {
            prompt.len() - (context - max_tokens.min(context / 2))
        } else {
            0
        };
        let prompt = &prompt[dropped..];
        let mut history = prompt.to_vec();
        // Tokens whose logits are lowered after they were found to be among the largest.
        let mut except = self.unused.clone();
        let penalised = sampler.params().repetition_penalty != 1.0;
        if penalised {
            except.extend_from_slice(prompt);
        }
        let mut out = Generated {
            text: String::new(),
            ids: Vec::new(),
            finish: Finish::Length,
            dropped,
            drafted: 0,
            accepted: 0,
            first: start.elapsed(),
            rest: Duration::ZERO,
        };
        let tokenizer = &self.tokenizer;
        let mut decoder = tokenizer.stream(true);
        let mut release = |text: &str, out: &mut String| -> Result<()> {
            out.push_str(text);
            if text.is_empty() { Ok(()) } else { piece(text) }
        };
        let mut first_at = None;
        while out.ids.len() < max_tokens {
            if stop.load(Ordering::Relaxed) {
                out.finish = Finish::Interrupted;
                break;
            }
            let top = self.needed.map(|count| Top { count, except: &except });
            let logits = match out.ids.last() {
                Some(&last) => step(&mut self.reader, last, top)?,
                None => self.reader.read(prompt, top)?,
            };
            for &id in &self.unused {
                logits[id as usize] = f32::NEG_INFINITY;
            }
            let id = sampler.sample(logits, &history)?;
            let counts = self.reader.counts();
            out.drafted = counts.drafted - counted.drafted;
            out.accepted = counts.accepted - counted.accepted;
            let now = Instant::now();
            first_at.get_or_insert(now);
            out.ids.push(id);
            history.push(id);
            if penalised {
                except.push(id);
            }
            out.first = first_at.map_or(out.first, |at| at - start);
            out.rest = first_at.map_or(out.rest, |at| now - at);
            if self.ends.contains(&id) {
                out.finish = Finish::EndToken;
                break;
            }
            let text = decoder.push(id)?;
            let streamed = stops.push(&text);
            release(streamed.text, &mut out.text)?;
            if streamed.stopped {
                out.finish = Finish::StopString;
                return Ok(out);
            }
        }
        let text = decoder.finish()?;
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

/// Reads one more token, after sliding the window if it is full.
fn step<'a>(reader: &'a mut Reader, id: u32, top: Option<Top<'_>>) -> Result<&'a mut [f32]> {
    let context = reader.session().options().context;
    if reader.held().len() < context {
        return Ok(reader.next(id, top)?);
    }
    let mut recent = reader.held().to_vec();
    recent.push(id);
    recent.drain(..recent.len() - (context / 2).max(1));
    Ok(reader.read(&recent, top)?)
}
