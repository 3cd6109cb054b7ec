//! The vocabulary as GGUF files hold it, under the keys `tokenizer.ggml.…`.
//!
//! | `model` | scheme | what orders the merges |
//! |---|---|---|
//! | `llama` | SentencePiece BPE: spaces are written `▁`, other characters by bytes `<0x0A>` | `scores` |
//! | `gpt2` | byte-level BPE in the alphabet of [`byte_level`](super::byte_level), divided into words as `pre` says | `merges` |
//!
//! [`Tokenizer::from_ggml`] makes a `tokenizer.json` of it, [`Tokenizer::to_ggml`] the reverse. Going there and back leaves all ids as they
//! were; the spelling of the JSON, and scores, may be others. Where a file leaves a setting out, llama.cpp's default for its scheme holds.

mod error;
mod pre;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{HashMap, HashSet};

pub use error::GgmlError;

use super::kind::TokenKind;
use super::{Result, Tokenizer, TokenizerError};

/// The `model` of SentencePiece BPE.
const SENTENCEPIECE: &str = "llama";
/// The `model` of byte-level BPE.
pub(crate) const BYTE_LEVEL: &str = "gpt2";
/// The `pre` of a byte-level vocabulary that names none: llama.cpp's.
pub(crate) const DEFAULT_PRE: &str = "default";

/// A vocabulary with the settings that turn text into its tokens. A token's id is its place in the lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgmlVocabulary {
    /// `tokenizer.ggml.model`: `llama` or `gpt2`.
    pub model: String,
    /// `tokenizer.ggml.pre`: how text is divided into words. Only `gpt2` has a use for it; absent means `default`, and
    /// [`GgufModel`](crate::files::gguf::GgufModel) says so in its notes.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`: the spellings.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.scores`: one a token; `gpt2` may have none.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.token_type`: the code of a [`TokenKind`] a token; none at all means that every token is normal.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.merges`: two spellings with a space between them, first to last. None for `llama`.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`: what begins a text.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`: what ends a text.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`: what stands for anything outside the vocabulary.
    pub unknown: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`: what fills up a batch.
    pub padding: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`: whether a prompt begins with `bos`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`: whether a prompt ends with `eos`.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`: whether a space is put before a text. Only `llama` has a use for it.
    pub add_space_prefix: Option<bool>,
}

impl Tokenizer {
    /// Makes a tokenizer of the vocabulary of a GGUF file.
    ///
    /// # Errors
    /// [`TokenizerError::Ggml`], for each kind of damage another [`GgmlError`].
    pub fn from_ggml(vocabulary: &GgmlVocabulary) -> Result<Tokenizer> {
        read::tokenizer(vocabulary)
    }

    /// The vocabulary in the form of GGUF files. Ids that no token has become unused tokens `[PAD…]`.
    ///
    /// Two things are left out, as llama.cpp leaves them out: the composed form of Unicode (NFC) into which Qwen's tokenizers bring a text
    /// first, and SentencePiece's removal of extra spaces.
    ///
    /// # Errors
    /// [`GgmlError::NoForm`] for a scheme that GGUF files have no name for, such as whole words, and for any part of the tokenizer that would
    /// be lost.
    pub fn to_ggml(&self) -> Result<GgmlVocabulary> {
        Ok(write::vocabulary(self)?)
    }
}

impl GgmlVocabulary {
    /// Fills up with unused tokens `[PAD…]` to `rows` tokens, the rows of the model's embedding.
    ///
    /// # Errors
    /// [`GgmlError::TooManyTokens`] if there are more tokens than rows.
    pub fn pad_to(&mut self, rows: usize) -> Result<()> {
        let tokens = self.tokens.len();
        if tokens > rows {
            return Err(GgmlError::TooManyTokens { tokens, rows }.into());
        }
        if self.token_types.is_empty() {
            self.token_types = vec![TokenKind::Normal.code(); tokens];
        }
        let taken: HashSet<&str> = self.tokens.iter().map(String::as_str).collect();
        let unused = (tokens..rows).map(|id| {
            let mut name = unused_name(id);
            while taken.contains(name.as_str()) {
                name.push('_');
            }
            name
        });
        let unused: Vec<String> = unused.collect();
        self.tokens.extend(unused);
        self.token_types.resize(rows, TokenKind::Unused.code());
        if !self.scores.is_empty() {
            self.scores.resize(rows, UNUSED_SCORE);
        }
        Ok(())
    }

    /// The kinds of all tokens, after every list was looked over.
    fn checked(&self) -> std::result::Result<Vec<TokenKind>, GgmlError> {
        let tokens = self.tokens.len();
        if tokens == 0 {
            return Err(GgmlError::Empty);
        }
        if self.model != SENTENCEPIECE && self.model != BYTE_LEVEL {
            return Err(GgmlError::UnknownModel {
                found: self.model.clone(),
            });
        }
        let length = |key, found| Err(GgmlError::Length { key, found, tokens });
        let scores = self.scores.len();
        if scores != tokens && (scores != 0 || self.model == SENTENCEPIECE) {
            return length("tokenizer.ggml.scores", scores);
        }
        if self.token_types.len() != tokens && !self.token_types.is_empty() {
            return length("tokenizer.ggml.token_type", self.token_types.len());
        }
        let mut places = HashMap::with_capacity(tokens);
        for (id, token) in self.tokens.iter().enumerate() {
            if let Some(first) = places.insert(token.as_str(), id) {
                return Err(GgmlError::Duplicate {
                    first,
                    second: id,
                    token: token.clone(),
                });
            }
        }
        if let Some(id) = self.scores.iter().position(|score| score.is_nan()) {
            return Err(GgmlError::Score { id });
        }
        for (what, id) in [
            ("bos", self.bos),
            ("eos", self.eos),
            ("unknown", self.unknown),
            ("padding", self.padding),
        ] {
            if let Some(id) = id.filter(|&id| id as usize >= tokens) {
                return Err(GgmlError::SpecialOutside { what, id, tokens });
            }
        }
        if self.token_types.is_empty() {
            return Ok(vec![TokenKind::Normal; tokens]);
        }
        let kinds = self.token_types.iter().enumerate();
        kinds
            .map(|(id, &code)| TokenKind::from_code(code).ok_or(GgmlError::UnknownType { id, code }))
            .collect()
    }
}

/// The spelling of the unused token of an id.
fn unused_name(id: usize) -> String {
    format!("[PAD{id}]")
}

/// The score of tokens that nothing is merged into, as llama.cpp's own converter writes it.
const UNUSED_SCORE: f32 = -1000.0;

impl From<GgmlError> for TokenizerError {
    fn from(error: GgmlError) -> TokenizerError {
        TokenizerError::Ggml(error)
    }
}
