//! Text to token ids and back.
//!
//! [`Tokenizer`] encodes and decodes through the `tokenizers` crate and adds what training and generation need: a fingerprint that ties a
//! corpus and a model to their tokenizer, decoding to exact bytes, streaming decoding ([`TextStream`]), and borders at which a long text can
//! be split without changing its ids ([`Tokenizer::border`]). [`BpeDropout`] divides a text into other tokens than the usual ones, by chance.
//!
//! | made from | by | |
//! |---|---|---|
//! | Hugging Face `tokenizer.json` | [`Tokenizer::from_file`], [`Tokenizer::from_bytes`] | any scheme |
//! | SentencePiece `tokenizer.model` | [`Tokenizer::from_file`], [`Tokenizer::from_sentencepiece`] | BPE and Unigram |
//! | the vocabulary of a GGUF file | [`Tokenizer::from_ggml`] (and [`Tokenizer::to_ggml`]) | SentencePiece BPE, byte-level BPE |
//! | the folder of a model | [`Tokenizer::from_dir`] | the first of the two files above |
//! | tables in a mapped file | [`Tokenizer::from_packed`] (and [`Tokenizer::pack`]) | byte-level BPE |
//! | text | [`train_bpe`], [`train_whole_words`], [`train_word`] | lossless BPE, lossless whole words over bytes, words of a closed vocabulary |
//!
//! Whatever it was made from, a tokenizer has a `tokenizer.json` ([`Tokenizer::json`]) and is saved as that. Files of others are looked over
//! before they are used: each kind of damage is an error of its own ([`JsonError`], [`SentencePieceError`], [`GgmlError`]), none is a panic,
//! and no length or id in a file asks for memory.

mod bpe;
mod bpe_dropout;
mod charsmap;
mod decoding;
mod error;
mod fingerprint;
mod ggml;
mod json;
mod kind;
mod packed;
mod pieces;
mod sentencepiece;
mod source;
mod split;
mod stream;
#[cfg(test)]
mod tests;
mod vocabulary;
mod word;

use std::collections::HashSet;

use rayon::prelude::*;
use serde_json::Value;

pub use bpe::{BpeTrainer, END_OF_TEXT, MIN_BPE_VOCAB, train_bpe, train_whole_words};
pub use bpe_dropout::{BpeDropout, Place};
pub use error::TokenizerError;
pub(crate) use ggml::{BYTE_LEVEL, DEFAULT_PRE};
pub use ggml::{GgmlError, GgmlVocabulary};
pub use json::JsonError;
pub use kind::TokenKind;
pub use sentencepiece::SentencePieceError;
pub use stream::TextStream;
pub use word::{END_OF_LINE, UNKNOWN, WordTrainer, train_word};

use crate::bpe::{byte_level, names, tables::Tables};
use crate::runtime::Values;
use decoding::Decoding;
use vocabulary::Inner;

/// Result of a tokenizer operation.
pub type Result<T> = std::result::Result<T, TokenizerError>;

/// Names under which tokenizers keep their padding token.
const PADDING_NAMES: [&str; 4] = ["<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>"];

/// A tokenizer with the ids of its special tokens.
pub struct Tokenizer {
    inner: Inner,
    /// The bytes that were loaded; [`Tokenizer::save`] writes these, so that the fingerprint survives.
    json: Values<u8>,
    fingerprint: [u8; 32],
    vocab_size: usize,
    decoding: Decoding,
    special: HashSet<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    padding: Option<u32>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .finish()
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json` from memory.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`].
    pub fn from_bytes(json: impl Into<Vec<u8>>) -> Result<Tokenizer> {
        Self::parse(json.into(), "the tokenizer")
    }

    fn parse(json: Vec<u8>, origin: &str) -> Result<Tokenizer> {
        let invalid = |reason: JsonError| TokenizerError::Invalid {
            origin: origin.to_owned(),
            reason,
        };
        let (inner, value) = json::read(&json).map_err(invalid)?;
        let vocab_size = json::vocab_size(&inner).map_err(invalid)?;
        let fingerprint = fingerprint::of(&value);
        Ok(Self::assemble(inner, &value, json.into(), vocab_size, fingerprint))
    }

    /// Takes a tokenizer in the form that [`pack`](Self::pack) gives, with the `tokenizer.json` that it was made from. Both are looked up in
    /// where they lie; neither is read whole.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`].
    pub fn from_packed(packed: Values<u8>, json: Values<u8>) -> Result<Tokenizer> {
        let unusable = |reason: JsonError| TokenizerError::Invalid {
            origin: "the packed tokenizer".to_owned(),
            reason,
        };
        let invalid = |reason: String| unusable(JsonError::Library { reason });
        let (tables, rest) = Tables::open(packed).map_err(|error| invalid(error.to_string()))?;
        json::check_parts(&rest).map_err(unusable)?;
        let (vocab_size, fingerprint) = (tables.vocab_size(), tables.fingerprint());
        let inner = vocabulary::over_tables(tables, &rest).map_err(invalid)?;
        Ok(Self::assemble(inner, &rest, json, vocab_size, fingerprint))
    }

    /// The tokenizer in a form that [`from_packed`](Self::from_packed) opens without reading it; `None` for schemes other than byte-level
    /// BPE. The same tokenizer gives the same bytes.
    pub fn pack(&self) -> Option<Vec<u8>> {
        let bytes = packed::pack(&self.json, &self.fingerprint, self.vocab_size)?;
        // The added tokens get their ids from the library, so it is asked whether they are the same.
        let packed = Self::from_packed(bytes.clone().into(), Vec::new().into()).ok()?;
        let same = (0..=self.vocab_size as u32).all(|id| packed.token_of(id) == self.token_of(id))
            && (packed.bos, packed.eos, packed.unknown) == (self.bos, self.eos, self.unknown)
            && packed.special == self.special;
        same.then_some(bytes)
    }

    /// `value` is the JSON, with or without the vocabulary.
    fn assemble(inner: Inner, value: &Value, json: Values<u8>, vocab_size: usize, fingerprint: [u8; 32]) -> Tokenizer {
        let special = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, t)| t.special)
            .map(|(id, _)| id)
            .collect();
        let named = |names: &[&str]| names.iter().find_map(|name| inner.token_to_id(name));
        let eos = named(&names::EOS);
        let bos = names::template_start(value)
            .and_then(|name| inner.token_to_id(name))
            .or_else(|| named(&names::BOS));
        let model = &value["model"];
        let unknown = match model["unk_id"].as_u64() {
            Some(id) => u32::try_from(id).ok(),
            None => model["unk_token"].as_str().and_then(|name| inner.token_to_id(name)),
        };
        let padding = value["padding"]["pad_token"]
            .as_str()
            .and_then(|name| inner.token_to_id(name))
            .or_else(|| named(&PADDING_NAMES));
        Tokenizer {
            inner,
            json,
            fingerprint,
            vocab_size,
            decoding: Decoding::of(&value["decoder"]),
            special,
            bos,
            eos,
            unknown,
            padding,
        }
    }

    /// The `tokenizer.json` itself.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// blake3 of the JSON with sorted keys and without white space: equal for two files that say the same.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// One more than the highest id: the rows that an embedding needs.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of a token by its spelling in the vocabulary.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The spelling of a token in the vocabulary (byte-level tokens in their printable alphabet).
    pub fn token_of(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether there is a token of this id.
    pub fn has_id(&self, id: u32) -> bool {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        added.contains_key(&id) || self.inner.get_model().has_id(id)
    }

    /// The token that begins a text, if the tokenizer names one (its post-processor's template, or a usual name).
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text or, for word-level tokenizers, a line (by its usual name).
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The token that stands for anything outside the vocabulary.
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// The token that fills up a batch, if the tokenizer names one (its padding, or a usual name).
    pub fn padding(&self) -> Option<u32> {
        self.padding
    }

    /// Whether `id` is a control token, which [`TextStream`] can leave out.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// Whether decoding gives back any text that was encoded: byte-level both ways, no normaliser, and a token for each
    /// of the 256 bytes.
    pub fn is_lossless(&self) -> bool {
        let all_bytes = || {
            byte_level::alphabet()
                .iter()
                .all(|c| self.id_of(c.encode_utf8(&mut [0; 4])).is_some())
        };
        // Without it a space would be looked up as itself, which no token is.
        let to_bytes = self.inner.get_pre_tokenizer().is_some_and(is_byte_level);
        self.decoding == Decoding::ByteLevel && to_bytes && self.inner.get_normalizer().is_none() && all_bytes()
    }

    /// What the tokenizer's normaliser makes of `text` (the text itself if it has none).
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn normalize(&self, text: &str) -> Result<String> {
        use tokenizers::Normalizer as _;
        let mut normalized = tokenizers::NormalizedString::from(text);
        if let Some(normalizer) = self.inner.get_normalizer() {
            normalizer
                .normalize(&mut normalized)
                .map_err(|e| TokenizerError::Encode { reason: e.to_string() })?;
        }
        Ok(normalized.get().to_owned())
    }

    /// The ids of `text`. No token is added that the text does not hold; special tokens written out in it are
    /// recognised. A long text is split at safe borders and encoded on all threads, with the same ids.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        if text.len() <= 2 * split::PIECE {
            return self.encode_whole(text);
        }
        let pieces = self.split(text, split::PIECE);
        let ids: Vec<Vec<u32>> = pieces
            .par_iter()
            .map(|piece| self.encode_whole(piece))
            .collect::<Result<_>>()?;
        Ok(ids.concat())
    }

    /// The ids of several texts, on all threads.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode_batch<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Vec<u32>>> {
        texts.par_iter().map(|text| self.encode_whole(text.as_ref())).collect()
    }

    fn encode_whole(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|e| TokenizerError::Encode { reason: e.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`, special tokens included; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`TokenizerError::UnknownId`] and [`TokenizerError::Decode`].
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let bytes = self.decode_bytes(ids)?;
        Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    /// The exact bytes of `ids`, special tokens included.
    ///
    /// # Errors
    /// [`TokenizerError::UnknownId`] and [`TokenizerError::Decode`].
    pub fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>> {
        if self.decoding == Decoding::Library {
            return Ok(self.decode_text(ids)?.into_bytes());
        }
        let mut out = Vec::with_capacity(4 * ids.len());
        for &id in ids {
            self.push_bytes(id, &mut out)?;
        }
        decoding::strip_start(&mut out, &mut self.decoding.strip());
        Ok(out)
    }

    /// Appends the bytes of one token, where each has bytes of its own.
    fn push_bytes(&self, id: u32, out: &mut Vec<u8>) -> Result<()> {
        let spelling = self.inner.id_to_token(id).ok_or_else(|| self.unknown_id(id))?;
        self.decoding.push(&spelling, out);
        Ok(())
    }

    /// Through the library's decoder, for any scheme; special tokens included.
    fn decode_text(&self, ids: &[u32]) -> Result<String> {
        // Some of its decoders count on a first token.
        if ids.is_empty() {
            return Ok(String::new());
        }
        if let Some(&id) = ids.iter().find(|&&id| self.inner.id_to_token(id).is_none()) {
            return Err(self.unknown_id(id));
        }
        self.inner
            .decode(ids, false)
            .map_err(|e| TokenizerError::Decode { reason: e.to_string() })
    }

    fn unknown_id(&self, id: u32) -> TokenizerError {
        TokenizerError::UnknownId {
            id,
            vocab_size: self.vocab_size,
        }
    }

    /// A decoder for ids that arrive one by one. With `skip_special`, control tokens give no text.
    pub fn stream(&self, skip_special: bool) -> TextStream<'_> {
        TextStream::new(self, skip_special)
    }

    /// A decoder that gives control tokens no text, for a text that goes on from the tokens `before`: the texts of both can be joined.
    pub fn stream_behind(&self, before: &[u32]) -> TextStream<'_> {
        TextStream::new(self, true).behind(before)
    }
}

/// Whether a pre-tokeniser turns text to bytes.
fn is_byte_level(pre_tokenizer: &tokenizers::PreTokenizerWrapper) -> bool {
    use tokenizers::PreTokenizerWrapper as Wrapper;
    match pre_tokenizer {
        Wrapper::ByteLevel(_) => true,
        Wrapper::Sequence(all) => all.as_ref().iter().any(is_byte_level),
        _ => false,
    }
}
