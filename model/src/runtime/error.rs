//! What can go wrong when a model is put together or run.

use alloc::string::String;
use core::fmt;

use crate::config::ConfigError;

/// Why the runtime refused. Each message is one line that says what was expected, what was found and what to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The configuration describes no model.
    Config(ConfigError),
    /// A tensor holds another number of values than the configuration implies.
    TensorLength {
        /// The tensor.
        name: String,
        /// Values implied.
        expected: usize,
        /// Values found.
        found: usize,
    },
    /// A tensor is stored in a form that its place in the model does not take.
    TensorForm {
        /// The tensor.
        name: String,
        /// The form wanted.
        expected: &'static str,
        /// The form found.
        found: &'static str,
    },
    /// A tensor holds a value that cannot be one of its own: not finite, not a trit, not a positive scale.
    TensorValue {
        /// The tensor.
        name: String,
        /// The rule that a value breaks.
        expected: &'static str,
    },
    /// A row longer than the exact integer sums allow.
    TooWide {
        /// The tensor.
        name: String,
        /// Its columns.
        cols: usize,
        /// Most columns.
        limit: usize,
    },
    /// A session option outside its range.
    Option {
        /// The option.
        name: &'static str,
        /// Its value.
        found: usize,
        /// Largest value; the smallest is 1.
        limit: usize,
    },
    /// What was given does not belong to the model.
    Unfit {
        /// What it is.
        what: &'static str,
        /// What there should be.
        expected: String,
        /// What there is.
        found: usize,
    },
    /// The memory for a buffer cannot be had.
    OutOfMemory {
        /// What it was for.
        what: &'static str,
        /// Values of the buffer.
        values: usize,
    },
    /// No token was given.
    EmptyInput,
    /// The tokens do not fit in what is left of the context.
    ContextFull {
        /// Tokens already in the cache.
        position: usize,
        /// Tokens given.
        more: usize,
        /// Tokens that the session holds.
        limit: usize,
    },
    /// A token id that the embedding has no row for.
    UnknownToken {
        /// The id.
        id: u32,
        /// Its place in the input.
        index: usize,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// A snapshot of keys and values of another length.
    Snapshot {
        /// Tokens or bytes that there should be.
        expected: usize,
        /// What there was.
        found: usize,
    },
    /// Turns of a batch whose sequences do not ascend.
    Turns {
        /// The sequence that came again or too late.
        sequence: usize,
    },
    /// The threads cannot be started.
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The system's account.
        message: String,
    },
}

impl fmt::Display for RuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "{error}"),
            Self::TensorLength { name, expected, found } => write!(
                f,
                "tensor `{name}`: expected {expected} values, found {found}; the weights and the config do not belong together"
            ),
            Self::TensorForm { name, expected, found } => write!(
                f,
                "tensor `{name}`: expected {expected}, found {found}; check the layer's mode in the config (layer_bit_map, quantization_config)"
            ),
            Self::TensorValue { name, expected } => {
                write!(
                    f,
                    "tensor `{name}`: expected {expected}; the file is damaged or the training diverged"
                )
            }
            Self::TooWide { name, cols, limit } => write!(
                f,
                "tensor `{name}`: {cols} columns, but integer sums are exact up to {limit}; use mode f16 for this layer"
            ),
            Self::Option { name, found, limit } => {
                write!(
                    f,
                    "session option `{name}`: expected 1 to {limit}, found {found}; change it"
                )
            }
            Self::Unfit { what, expected, found } => write!(f, "{what}: expected {expected}, found {found}"),
            Self::OutOfMemory { what, values } => {
                write!(
                    f,
                    "no memory for {what} ({values} values); use a shorter context or a smaller model"
                )
            }
            Self::EmptyInput => write!(f, "no token given; give at least one"),
            Self::ContextFull { position, more, limit } => write!(
                f,
                "context full: {position} tokens held and {more} more given, but the session holds {limit}; shorten the input or open a longer session"
            ),
            Self::UnknownToken { id, index, vocab_size } => write!(
                f,
                "token {id} at place {index} is outside the vocabulary of {vocab_size}; use the tokenizer that belongs to the model"
            ),
            Self::Snapshot { expected, found } => write!(
                f,
                "a snapshot of the cache: expected {expected} tokens or bytes, found {found}; take one of the same model, type of cache and length"
            ),
            Self::Turns { sequence } => write!(
                f,
                "sequence {sequence} comes again or behind a higher one; give each sequence one turn, in ascending order"
            ),
            Self::Threads { threads, message } => {
                write!(f, "cannot start {threads} threads: {message}; ask for fewer")
            }
        }
    }
}

impl core::error::Error for RuntimeError {}

impl From<ConfigError> for RuntimeError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}
