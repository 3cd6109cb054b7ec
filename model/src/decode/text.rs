//! A generator over a model in memory, with its own tokenizer.

use alloc::boxed::Box;
use alloc::vec::Vec;

use onebit_kernels_cpu::Isa;

use super::DecodeError;
use super::token_loop::TokenLoop;
use crate::bpe::{BpeTokenizer, Utf8Stream};
use crate::image::Image;
use crate::runtime::{KvType, PackedModel, RuntimeError, Serial, Session, SessionOptions};
use crate::sampling::{Sampler, SamplingParams};

/// Bytes of a token that the text of one token has room for from the start.
const LONGEST_TOKEN: usize = 64;

/// Bytes that the header's texts take at most while a model is opened, the tokenizer's 1 KiB among them.
const OPENING: usize = 20 << 10;
/// Bytes of a layer beside its weights and its cache.
const LAYER: usize = 2 << 10;

/// What a generator takes.
#[derive(Clone, Copy, Debug)]
pub struct TextOptions {
    /// Tokens of prompt and answer that are held, at most the model's `max_position_embeddings`.
    pub context: usize,
    /// How keys and values are kept: most of the memory.
    pub kv: KvType,
    /// Tokens of a prompt that are read at once. 1 takes the least memory; the tokens do not depend on it.
    pub chunk: usize,
    /// Whether a full context lets its older half go, instead of ending the answer.
    pub slides: bool,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// The path of the CPU; the tokens do not depend on it.
    pub isa: Isa,
}

impl TextOptions {
    /// For a model's whole context: keys and values in f32, prompts read token by token, answers that end with the context, the sampling that the model's maker
    /// recommends (else the default's), and the best path of this CPU.
    pub fn of(image: &Image) -> Self {
        let default = SamplingParams::default();
        let sampling = image.generation().map_or(default, |given| SamplingParams {
            temperature: given.temperature.unwrap_or(default.temperature),
            top_k: given
                .top_k
                .map_or(default.top_k, |k| usize::try_from(k).unwrap_or(usize::MAX)),
            top_p: given.top_p.unwrap_or(default.top_p),
            min_p: given.min_p.unwrap_or(default.min_p),
            repetition_penalty: given.repetition_penalty.unwrap_or(default.repetition_penalty),
            seed: default.seed,
        });
        Self {
            context: image.config().max_position_embeddings,
            kv: KvType::F32,
            chunk: 1,
            slides: false,
            sampling,
            isa: Isa::best(),
        }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As many tokens as were asked for.
    Length,
    /// The model's end token, which is the last that was given.
    EndToken,
    /// The context is full.
    Context,
}

/// A model with its tokenizer, and the answer that it is giving.
///
/// # Memory
/// The weights stay where the image's bytes lie. Everything else is taken by [`new`](Self::new), about as many bytes as [`memory_bytes`](Self::memory_bytes)
/// tells; with `V` the vocabulary, `H` hidden_size, `I` intermediate_size, `Q` and `K` the sizes of queries and of keys (heads · head_dim), `L` layers,
/// `C` the context and `chunk` 1:
///
/// ```text
/// key-value cache    2 · L · K · C · (f32 4, f16 2, int8 1), for int8 and 8 · L · (K / head_dim) · C; C rounded up to a multiple of 64
/// rotary table       4 · C · head_dim
/// logits, twice      8 · V, and 4 · V where there is a repetition penalty
/// sampler            16 · min(V, max(2 · top_k, 64)), 16 · V without top_k, nothing if it is greedy
/// activations        4 · (2 · H + widest input + Q + 2 · K or 2 · I + Q or I + 3 · I), and the parts of attention
/// tokens             8 · C
/// the rest           1 KiB of the tokenizer, and 20 KiB for the header's texts while the model opens
/// ```
pub struct TextGenerator {
    tokens: TokenLoop<Session<Box<PackedModel>, Serial>>,
    tokenizer: BpeTokenizer,
    sampler: Sampler,
    begin: Option<u32>,
    stream: Utf8Stream,
    /// Whether the head is computed whole in any case, because there is no sketch of it.
    all_logits: bool,
    /// Tokens that are still to come.
    left: usize,
    ended: Option<Ended>,
}

impl TextGenerator {
    /// Opens the model of an image. Tokens that end a text are those that it names, otherwise its tokenizer's end of text.
    ///
    /// # Errors
    /// [`DecodeError`]: a damaged image, one without a tokenizer that is known here, an option outside its range, too little memory.
    pub fn new(image: &Image, options: TextOptions) -> Result<Self, DecodeError> {
        let tokenizer = image.tokenizer()?.ok_or(DecodeError::NoTokenizer)?;
        let config = image.config();
        let given = image.generation();
        let mut ends: Vec<u32> = config.eos_token_ids.clone();
        ends.extend(given.into_iter().flat_map(|given| &given.eos_token_ids));
        if ends.is_empty() {
            ends.extend(tokenizer.eos());
        }
        let begin = given.and_then(|given| given.bos_token_id).or(config.bos_token_id);
        let begin = begin.filter(|&id| tokenizer.bos() == Some(id));
        let sampler = Sampler::new(options.sampling, config.vocab_size)?;
        let ids = 0..u32::try_from(config.vocab_size).unwrap_or(u32::MAX);
        let unused: Vec<u32> = ids.filter(|&id| !tokenizer.has_id(id)).collect();
        let session = SessionOptions {
            chunk: options.chunk,
            kv: options.kv,
            ..SessionOptions::new(options.context)
        };
        let model = image.model()?;
        let all_logits = model.sketch().is_none();
        let session = Session::new(Box::new(model), Serial, options.isa, session)?;
        let mut tokens = TokenLoop::new(session, 0, unused, ends);
        if let Some(given) = given {
            tokens.suppress(&given.suppress_tokens);
        }
        if !options.slides {
            tokens.stop_at_context_end();
        }
        Ok(Self {
            tokens,
            tokenizer,
            sampler,
            begin,
            stream: Utf8Stream::with_capacity(LONGEST_TOKEN),
            all_logits,
            left: 0,
            ended: Some(Ended::Length),
        })
    }

    /// Bytes that a generator takes at most beside the image, from [`new`](Self::new) to its last token; a prompt of more text than the context has room for, and an
    /// int4 head or the sketch of a head, come on top.
    ///
    /// # Errors
    /// [`DecodeError`] for an option outside its range.
    pub fn memory_bytes(image: &Image, options: &TextOptions) -> Result<usize, DecodeError> {
        let config = image.config();
        let session = SessionOptions {
            chunk: options.chunk,
            kv: options.kv,
            ..SessionOptions::new(options.context)
        };
        let session = session.memory_bytes(config, &Serial)?;
        let tokens = options
            .context
            .saturating_mul(2)
            .saturating_add(config.vocab_size)
            .saturating_mul(4);
        let sampler = Sampler::memory_bytes(&options.sampling, config.vocab_size);
        let layers = config.num_hidden_layers.saturating_mul(LAYER);
        let parts = [session, tokens, sampler, layers, OPENING];
        Ok(parts.into_iter().fold(0, usize::saturating_add))
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &BpeTokenizer {
        &self.tokenizer
    }

    /// How tokens are chosen.
    pub fn sampling(&self) -> &SamplingParams {
        self.sampler.params()
    }

    /// Chooses tokens otherwise from now on; the random stream starts again.
    ///
    /// # Errors
    /// [`DecodeError::Sampling`]; nothing is then changed.
    pub fn set_sampling(&mut self, sampling: SamplingParams) -> Result<(), DecodeError> {
        let vocab_size = self.tokens.reader().session().model().config().vocab_size;
        self.sampler = Sampler::new(sampling, vocab_size)?;
        Ok(())
    }

    /// The ids of a prompt: of its text, after the token with which the model's texts begin. An empty one is that token, or the one that ends the text before.
    pub fn prompt_ids(&self, text: &str) -> Vec<u32> {
        let mut ids: Vec<u32> = self.begin.into_iter().collect();
        ids.extend(self.tokenizer.encode(text));
        if ids.is_empty() {
            ids.extend(self.tokenizer.bos().or(self.tokenizer.eos()));
        }
        ids
    }

    /// Begins an answer of at most `max_tokens` tokens to a text. The random stream starts again.
    ///
    /// # Errors
    /// As [`begin_ids`](Self::begin_ids).
    pub fn begin(&mut self, text: &str, max_tokens: usize) -> Result<(), DecodeError> {
        let ids = self.prompt_ids(text);
        self.begin_ids(&ids, max_tokens)
    }

    /// Begins an answer of at most `max_tokens` tokens to these tokens, of which the most recent count where they are more than the context. The random stream
    /// starts again.
    ///
    /// # Errors
    /// [`RuntimeError::EmptyInput`] without tokens, [`RuntimeError::UnknownToken`] for one outside the vocabulary.
    pub fn begin_ids(&mut self, ids: &[u32], max_tokens: usize) -> Result<(), DecodeError> {
        let vocab_size = self.tokens.reader().session().model().config().vocab_size;
        let outside = |id: u32| usize::try_from(id).is_ok_and(|id| id >= vocab_size);
        if let Some((index, &id)) = ids.iter().enumerate().find(|&(_, id)| outside(*id)) {
            return Err(RuntimeError::UnknownToken { id, index, vocab_size }.into());
        }
        if ids.is_empty() {
            return Err(RuntimeError::EmptyInput.into());
        }
        self.tokens.begin(ids, max_tokens);
        self.sampler.reset();
        self.stream.clear();
        (self.left, self.ended) = (max_tokens, None);
        Ok(())
    }

    /// The next token of the answer; `None` where it has [ended](Self::ended).
    ///
    /// # Errors
    /// [`DecodeError`]; the answer has then ended with the token before.
    pub fn next_token(&mut self) -> Result<Option<u32>, DecodeError> {
        if self.ended.is_some() {
            return Ok(None);
        }
        let Some(left) = self.left.checked_sub(1) else {
            self.ended = Some(Ended::Length);
            return Ok(None);
        };
        self.ended = Some(Ended::Context);
        let Some(drawn) = self
            .tokens
            .next::<DecodeError>(&mut self.sampler, self.all_logits, |_| {})?
        else {
            return Ok(None);
        };
        self.left = left;
        self.ended = match (drawn.ends, left) {
            (true, _) => Some(Ended::EndToken),
            (false, 0) => Some(Ended::Length),
            _ => None,
        };
        Ok(Some(drawn.id))
    }

    /// The text that a token of the answer completes; empty while a character is incomplete, and for a control token.
    ///
    /// # Errors
    /// [`DecodeError::Tokenizer`] for an id outside the vocabulary.
    pub fn text_of(&mut self, id: u32) -> Result<&str, DecodeError> {
        Ok(self.tokenizer.push_token(id, &mut self.stream)?)
    }

    /// What is left when the answer has ended: an incomplete character is U+FFFD.
    pub fn last_text(&mut self) -> &str {
        self.stream.finish()
    }

    /// Why the answer ended; `None` while it goes on.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }
}
