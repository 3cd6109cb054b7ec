//! What can be wrong with sampling parameters, logits or stop strings.

use core::fmt;

/// Why a token could not be sampled or a sampler not be made.
#[derive(Clone, Debug, PartialEq)]
pub enum SamplingError {
    /// A parameter is outside its range.
    OutOfRange {
        /// The parameter.
        name: &'static str,
        /// What it must be.
        range: &'static str,
        /// What it is.
        found: f32,
    },
    /// The vocabulary is empty or its size does not fit token ids of 32 bits.
    VocabularySize {
        /// The size asked for.
        found: usize,
    },
    /// There is not one logit for each token of the vocabulary.
    LogitCount {
        /// Size of the vocabulary.
        expected: usize,
        /// Logits given.
        found: usize,
    },
    /// A logit is NaN or +∞ (−∞ is allowed: the token is excluded).
    BadLogit {
        /// The token.
        token: u32,
        /// Its logit.
        found: f32,
    },
    /// Every token is excluded: all logits are −∞.
    NoToken,
    /// The history holds a token that the vocabulary does not.
    UnknownToken {
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// A stop string is empty, and so would stop before the first token.
    EmptyStopString,
}

impl fmt::Display for SamplingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { name, range, found } => write!(f, "sampling: {name} must be {range}, found {found}"),
            Self::VocabularySize { found } => {
                write!(
                    f,
                    "sampling: the vocabulary must hold 1 to {} tokens, found {found}",
                    u32::MAX
                )
            }
            Self::LogitCount { expected, found } => {
                write!(
                    f,
                    "sampling: expected {expected} logits, one for each token, found {found}"
                )
            }
            Self::BadLogit { token, found } => write!(
                f,
                "sampling: the logit of token {token} is {found}; the weights or activations are damaged or overflow"
            ),
            Self::NoToken => write!(f, "sampling: all logits are -inf, so no token is left to choose"),
            Self::UnknownToken { token, vocab } => {
                write!(
                    f,
                    "sampling: the history holds token {token}, but the vocabulary ends at {}",
                    vocab.saturating_sub(1)
                )
            }
            Self::EmptyStopString => write!(f, "sampling: a stop string is empty; leave it out"),
        }
    }
}

impl core::error::Error for SamplingError {}
