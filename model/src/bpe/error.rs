//! What can be wrong with a packed tokenizer, or with ids for it.

use alloc::string::String;

/// Why a tokenizer cannot be used, or not with these ids.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BpeError {
    /// Bytes that do not begin as a packed tokenizer does.
    #[error("{found} bytes are no packed tokenizer; export the model again")]
    NotPacked {
        /// How many there are.
        found: usize,
    },
    /// The header asks for more tables than there can be.
    #[error("packed tokenizer: the sizes of its tables are not possible; export the model again")]
    Sizes,
    /// The tables end elsewhere than the bytes.
    #[error("packed tokenizer: the tables end at {expected} of {found} bytes; export the model again")]
    Length {
        /// Where they end.
        expected: usize,
        /// Bytes that there are.
        found: usize,
    },
    /// The settings behind the tables are no JSON.
    #[error("packed tokenizer: its settings cannot be read: {message}; export the model again")]
    Json {
        /// The parser's account.
        message: String,
    },
    /// A byte that is no token, so that not every text has ids.
    #[error("packed tokenizer: no token for byte {byte:#04x}; export the model again")]
    NoByte {
        /// The byte.
        byte: u8,
    },
    /// A part of the `tokenizer.json` that this reader does not have. The `tokenizers` crate may have it, on systems that have a standard library.
    #[error(
        "packed tokenizer: its {part} is not known here: {found}; train a tokenizer with `onebit tokenizer train`, or use a build with `std`"
    )]
    Unsupported {
        /// The part.
        part: &'static str,
        /// Its JSON, shortened.
        found: String,
    },
    /// An id that the vocabulary does not have.
    #[error("token id {id} is not in the vocabulary of {vocab_size}; use the tokenizer that belongs to the model")]
    UnknownId {
        /// The id.
        id: u32,
        /// Ids below this one can exist.
        vocab_size: usize,
    },
}
