//! One error for model files: which file, which tensor, what was expected and found, what to do.

use std::path::PathBuf;

#[cfg(feature = "tokenizers")]
use super::gguf::GgufError;
use crate::config::ConfigError;
use crate::image::{HeaderProblem, PartProblem, hint};

/// ` and N more`, or nothing.
fn others(more: usize) -> String {
    if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    }
}

/// Why a model directory could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system refused.
    #[error("cannot {action} {}: {source}; check the path, its permissions and the free space", path.display())]
    Io {
        /// `open`, `write`, ….
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's account.
        source: std::io::Error,
    },
    /// The configuration was refused.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ConfigError,
    },
    /// `generation_config.json` or the shard index was refused.
    #[error("{}: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        message: String,
    },
    /// The container's header contradicts itself or the file.
    #[error("{}: damaged safetensors file: {problem}; fetch or write the file again", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the tensor and the offsets.
        problem: HeaderProblem,
    },
    /// A GGUF file was refused, or a model has no form in one.
    #[cfg(feature = "tokenizers")]
    #[error("{}: {source}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<GgufError>,
    },
    /// A tensor was read and holds no weights of this model.
    #[error("{}: {source}", path.display())]
    Weights {
        /// The file or directory.
        path: PathBuf,
        /// Why, with the tensor.
        source: crate::runtime::RuntimeError,
    },
    /// A part of a one-file model is missing, damaged, or none.
    #[error("{}: {part}: {problem}; export the model again", path.display())]
    Part {
        /// The file.
        path: PathBuf,
        /// The tensor or the entry of `__metadata__`.
        part: String,
        /// What was expected and found.
        problem: PartProblem,
    },
    /// A tensor that the configuration calls for is not there.
    #[error("{}: tensor {name} is missing{}; is this the config.json of these weights?", path.display(), hint(suggestion))]
    MissingTensor {
        /// The file or directory.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// A tensor of a similar name that the configuration has no place for.
        suggestion: Option<String>,
    },
    /// A tensor that the configuration has no place for.
    #[error("{}: unknown tensor {name}{}; is this the config.json of these weights?", path.display(), others(*more))]
    UnknownTensor {
        /// The file or directory.
        path: PathBuf,
        /// The first such tensor.
        name: String,
        /// How many more there are.
        more: usize,
    },
    /// A tensor of another shape than the configuration implies.
    #[error("tensor {name}: expected shape {expected:?}, found {found:?}; is this the config.json of these weights?")]
    Shape {
        /// The tensor.
        name: String,
        /// From the configuration.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A tensor of a type that cannot be used there.
    #[error("tensor {name}: expected {expected}, found {found}; {fix}")]
    Type {
        /// The tensor.
        name: String,
        /// The types that can be used.
        expected: &'static str,
        /// In the file.
        found: String,
        /// What to do.
        fix: &'static str,
    },
    /// The two-bit code 3, which stands for no trit.
    #[error(
        "tensor {name}: row {row}, column {col} holds the code 3, which is no trit; fetch or pack the weights again"
    )]
    Code {
        /// The tensor.
        name: String,
        /// Row of the unpacked matrix.
        row: usize,
        /// Column.
        col: usize,
    },
    /// A weight scale that is not a positive finite number.
    #[error("tensor {name}: expected a positive finite scale, found {value}; fetch or pack the weights again")]
    Scale {
        /// The tensor.
        name: String,
        /// Its value.
        value: f32,
    },
    /// A value that is NaN or infinite, or becomes infinite in the chosen type.
    #[error(
        "tensor {name}: value {value} at {index} does not fit {dtype}; use a wider type, or an earlier checkpoint if it is not finite"
    )]
    Value {
        /// The tensor.
        name: String,
        /// Position in row-major order.
        index: usize,
        /// The value.
        value: f32,
        /// The type it was to be stored in.
        dtype: &'static str,
    },
    /// Four rows share a byte in the packed layout.
    #[error(
        "tensor {name}: {rows} rows cannot be packed in groups of 4; choose sizes that are multiples of 4, or save float weights"
    )]
    Rows {
        /// The tensor.
        name: String,
        /// Its rows.
        rows: usize,
    },
    /// Float weights were asked for and the directory holds packed ones.
    #[error("{}: the weights are packed trits, and float weights are needed; use the model they were packed from", path.display())]
    Packed {
        /// The directory.
        path: PathBuf,
    },
    /// A tensor is not what the headers said when the writing began.
    #[error(
        "tensor {name}: expected {expected} bytes, as was announced, found {found}; was the model changed meanwhile? try again"
    )]
    Changed {
        /// The tensor.
        name: String,
        /// Bytes announced; 0 where none were.
        expected: usize,
        /// Bytes there.
        found: usize,
    },
    /// The path is no model of a kind that can be read.
    #[error("{}: {found}; give a model directory, which holds config.json, or a file of one of the kinds {expected}", path.display())]
    Kind {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: String,
        /// The kinds of files.
        expected: &'static str,
    },
    /// A file of bitllama2.c that contradicts itself, or none.
    #[error("{}: no model of bitllama2.c: {problem}; fetch the file again", path.display())]
    Stories {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
}
