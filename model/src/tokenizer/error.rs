//! What can go wrong with a tokenizer, and what to do about it.

use std::path::PathBuf;

use super::{GgmlError, JsonError, SentencePieceError};

/// An error of loading, training or using a [`super::Tokenizer`].
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file could not be read.
    #[error("cannot read the tokenizer {path}: {source}; give the path of a tokenizer.json or tokenizer.model")]
    Read {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder without a tokenizer.
    #[error(
        "{folder} holds neither a tokenizer.json nor a tokenizer.model; give the folder of a model with its tokenizer"
    )]
    Missing {
        /// The folder asked for.
        folder: PathBuf,
    },
    /// The file could not be written.
    #[error("cannot write the tokenizer {path}: {source}; choose a folder that exists and can be written")]
    Write {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are not a Hugging Face `tokenizer.json`.
    #[error("{origin} is not a tokenizer.json that can be used: {reason}")]
    Invalid {
        /// The file, or "the tokenizer" for bytes in memory.
        origin: String,
        /// What is wrong with it.
        reason: JsonError,
    },
    /// A SentencePiece model that is damaged or not supported.
    #[error("the SentencePiece model: {0}")]
    SentencePiece(SentencePieceError),
    /// A GGUF file's vocabulary that is damaged or not known, or a tokenizer that has none.
    #[error("the GGUF vocabulary: {0}")]
    Ggml(GgmlError),
    /// The library refused a text.
    #[error("the tokenizer cannot encode this text: {reason}; check that the tokenizer fits the text")]
    Encode {
        /// The library's words.
        reason: String,
    },
    /// The library refused a list of ids.
    #[error("the tokenizer cannot decode these ids: {reason}; check that they come from this tokenizer")]
    Decode {
        /// The library's words.
        reason: String,
    },
    /// An id that the vocabulary does not have.
    #[error("token id {id} is not in the vocabulary of {vocab_size}; use the tokenizer that the ids were made with")]
    UnknownId {
        /// The id found.
        id: u32,
        /// Ids below this one can exist.
        vocab_size: usize,
    },
    /// BPE-dropout was asked of a tokenizer that it cannot be done with.
    #[error(
        "BPE-dropout: {reason}; train a tokenizer with `onebit tokenizer train --kind bpe`, or leave the option out"
    )]
    NoBpeDropout {
        /// What the tokenizer lacks.
        reason: &'static str,
    },
    /// No probability.
    #[error("BPE-dropout: expected a probability from 0 to 1, found {found}")]
    DropoutRate {
        /// The number given.
        found: f32,
    },
    /// Training was asked for fewer tokens than the scheme needs.
    #[error("a vocabulary of {requested} is too small: at least {minimum} are needed ({reason}); raise --vocab-size")]
    VocabTooSmall {
        /// The size asked for.
        requested: usize,
        /// The smallest size that works.
        minimum: usize,
        /// What takes that many.
        reason: &'static str,
    },
    /// Training found nothing to learn from.
    #[error("the training text holds no words; give --input a text that is not empty")]
    NoText,
}
