//! What can be wrong with a vocabulary of a GGUF file, and what of a tokenizer has no place in one.

use super::pre;

/// An error of [`Tokenizer::from_ggml`](crate::tokenizer::Tokenizer::from_ggml), [`Tokenizer::to_ggml`](crate::tokenizer::Tokenizer::to_ggml)
/// or [`GgmlVocabulary::pad_to`](super::GgmlVocabulary::pad_to).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GgmlError {
    /// There are no tokens.
    #[error("the vocabulary is empty; take a GGUF file with tokenizer.ggml.tokens")]
    Empty,
    /// A list is not as long as the list of tokens.
    #[error("{key} has {found} entries for {tokens} tokens; the file is damaged: download or convert it again")]
    Length {
        /// The list, by its key.
        key: &'static str,
        /// Its length.
        found: usize,
        /// The number of tokens.
        tokens: usize,
    },
    /// A kind of vocabulary that is not read.
    #[error(
        "tokenizer.ggml.model is {found:?}, and \"llama\" (SentencePiece BPE) and \"gpt2\" (byte-level BPE) can be read; \
         give the model's tokenizer.json instead"
    )]
    UnknownModel {
        /// The name found.
        found: String,
    },
    /// A way of dividing text into words that is not known.
    #[error(
        "tokenizer.ggml.pre is {found:?}; known are {}; give the model's tokenizer.json instead",
        pre::known()
    )]
    UnknownPre {
        /// The name found.
        found: String,
    },
    /// A type of token that does not exist.
    #[error("token {id} has type {code}; types are 1 to 6; the file is damaged: download or convert it again")]
    UnknownType {
        /// The token.
        id: usize,
        /// The code found.
        code: i32,
    },
    /// Two tokens of one spelling.
    #[error("tokens {first} and {second} are both {token:?}; the file is damaged: download or convert it again")]
    Duplicate {
        /// The lower id.
        first: usize,
        /// The higher id.
        second: usize,
        /// Their spelling.
        token: String,
    },
    /// A score that orders nothing.
    #[error("the score of token {id} is not a number; the file is damaged: download or convert it again")]
    Score {
        /// The token.
        id: usize,
    },
    /// A byte token that names no byte.
    #[error(
        "token {id} has the type of a byte and is spelled {token:?}, expected <0x00> to <0xFF>; convert the file again"
    )]
    Byte {
        /// The token.
        id: usize,
        /// Its spelling.
        token: String,
    },
    /// A piece that no text of a sane size holds.
    #[error(
        "token {id} has {length} bytes, and at most {limit} are read; the file is damaged: download or convert it again"
    )]
    TooLong {
        /// The token.
        id: usize,
        /// Its bytes.
        length: usize,
        /// The most allowed.
        limit: usize,
    },
    /// A merge that is not two tokens.
    #[error("merge {index} is {merge:?}, expected two tokens with a space between them; convert the file again")]
    MergeForm {
        /// Its place, from 0.
        index: usize,
        /// The merge.
        merge: String,
    },
    /// A merge of, or into, what is no token.
    #[error("merge {index} ({merge:?}) needs the token {token:?}, which is not there; convert the file again")]
    MergeToken {
        /// Its place, from 0.
        index: usize,
        /// The merge.
        merge: String,
        /// The token that is missing.
        token: String,
    },
    /// A special token outside the vocabulary.
    #[error("the {what} token has id {id}, and there are {tokens} tokens; correct tokenizer.ggml.{what}_token_id")]
    SpecialOutside {
        /// Which: bos, eos, unknown or padding.
        what: &'static str,
        /// Its id.
        id: u32,
        /// The number of tokens.
        tokens: usize,
    },
    /// A token is to be added to each text, and it is not said which.
    #[error("tokenizer.ggml.add_{what}_token is set, and tokenizer.ggml.{what}_token_id is not; set both or neither")]
    SpecialMissing {
        /// Which: bos or eos.
        what: &'static str,
    },
    /// More tokens than the embedding has rows.
    #[error(
        "the vocabulary has {tokens} tokens and the embedding {rows} rows; use the tokenizer that the model was trained with"
    )]
    TooManyTokens {
        /// The number of tokens.
        tokens: usize,
        /// The rows.
        rows: usize,
    },
    /// Something of the tokenizer cannot be said in a GGUF file.
    #[error("the tokenizer has no GGUF form: {reason}; export to another format, or use another tokenizer")]
    NoForm {
        /// What cannot be said.
        reason: String,
    },
}
