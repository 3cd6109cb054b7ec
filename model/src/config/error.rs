//! One error for everything that can be wrong with a configuration: what, where, expected, found, what to do.

use alloc::string::String;
use core::fmt;

/// Why a configuration was refused. Each message is one line that ends with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not JSON, or not a JSON object.
    Syntax {
        /// The parser's account, with line and column.
        message: String,
    },
    /// A key that means nothing here.
    UnknownKey {
        /// Where it stands, such as `onebit.qknorm`.
        key: String,
        /// The known key nearest to it.
        suggestion: Option<String>,
    },
    /// A key without which the model is not determined.
    MissingKey {
        /// The key.
        key: &'static str,
        /// What it says.
        meaning: &'static str,
    },
    /// A value of the wrong kind.
    WrongType {
        /// Where it stands.
        key: String,
        /// What it should be.
        expected: &'static str,
        /// The value, shortened.
        found: String,
    },
    /// A value that is well formed and names something this program does not do.
    Unsupported {
        /// Where it stands.
        key: String,
        /// What is supported.
        expected: String,
        /// The value, shortened.
        found: String,
    },
    /// A size or number for which there is no model.
    Invalid {
        /// The field.
        field: &'static str,
        /// The rule it breaks.
        expected: String,
        /// Its value.
        found: String,
    },
    /// Two keys that say different things.
    Contradiction {
        /// The first, with its value.
        first: String,
        /// The second, with its value.
        second: String,
    },
    /// Neither a file nor a preset.
    UnknownPreset {
        /// What was asked for.
        name: String,
        /// The preset nearest to it.
        suggestion: Option<String>,
        /// All presets, separated by commas.
        known: String,
    },
    /// The file cannot be read.
    Io {
        /// The path.
        path: String,
        /// The system's account.
        message: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { message } => write!(f, "model config: not valid JSON: {message}; correct the file"),
            Self::UnknownKey { key, suggestion } => {
                write!(f, "model config: unknown key `{key}`; ")?;
                match suggestion {
                    Some(known) => write!(f, "did you mean `{known}`? Otherwise remove it"),
                    None => write!(f, "remove it"),
                }
            }
            Self::MissingKey { key, meaning } => {
                write!(f, "model config: `{key}` is missing; add it ({meaning})")
            }
            Self::WrongType { key, expected, found } => {
                write!(
                    f,
                    "model config: `{key}`: expected {expected}, found {found}; correct the value"
                )
            }
            Self::Unsupported { key, expected, found } => {
                write!(f, "model config: `{key}`: {found} is not supported; use {expected}")
            }
            Self::Invalid { field, expected, found } => {
                write!(
                    f,
                    "model config: `{field}`: expected {expected}, found {found}; change one of them"
                )
            }
            Self::Contradiction { first, second } => {
                write!(f, "model config: {first} contradicts {second}; keep one of the two")
            }
            Self::UnknownPreset {
                name,
                suggestion,
                known,
            } => {
                write!(f, "model config: `{name}` is neither a file nor a preset; ")?;
                if let Some(nearest) = suggestion {
                    write!(f, "did you mean `{nearest}`? ")?;
                }
                write!(f, "presets: {known}")
            }
            Self::Io { path, message } => {
                write!(
                    f,
                    "model config: cannot read {path}: {message}; check the path and its permissions"
                )
            }
        }
    }
}

impl core::error::Error for ConfigError {}
