//! From text to training windows.
//!
//! ```text
//! text files ──text──▶ documents ──tokenize──▶ *.tokens ──TokenFile──▶ ids ──WindowOrder──▶ windows of seq_len + 1
//! ```

mod error;
mod mmap;
mod order;
pub mod text;
mod token_file;
mod tokenize;
mod windows;

pub use error::DataError;
pub use order::{Alignment, Order, windows_in_order};
pub use token_file::{TokenFile, TokenWriter};
pub(crate) use tokenize::document_ids;
pub use tokenize::{BpeDropoutOptions, Progress, Summary, TokenizeOptions, count_words, tokenize};
pub use windows::{WindowOrder, permute};

/// Result of a data operation.
pub type Result<T> = std::result::Result<T, DataError>;
