//! What can go wrong while tokens are drawn.

use crate::bpe::BpeError;
use crate::image::ImageError;
use crate::runtime::RuntimeError;
use crate::sampling::SamplingError;

/// Why a text could not be generated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes of the model.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A model without the tokenizer that a board can use.
    #[error("the model has no packed tokenizer, which boards need; export it with a byte-level BPE tokenizer")]
    NoTokenizer,
    /// Inference.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Choosing tokens.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// Tokens and text.
    #[error(transparent)]
    Tokenizer(#[from] BpeError),
}
