//! What can be wrong with a container's header, and with a part of a one-file model: one variant for each class of damage, so that a caller, and a
//! test, can tell them apart without reading the text.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use safetensors::Dtype;

use crate::config::ConfigError;

/// Why the header of a safetensors file was refused. Offsets count from the first byte of the data, sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// The file ends inside the eight bytes of the header's length.
    #[error("{found} bytes, too short for the header's length")]
    TooShort {
        /// Bytes of the file.
        found: usize,
    },
    /// The length is beyond what the format allows.
    #[error("header of {length} bytes, more than the limit of {limit}")]
    TooLarge {
        /// What the file says.
        length: u64,
        /// The format's limit.
        limit: usize,
    },
    /// The file ends inside the header.
    #[error("header of {length} bytes in a file of {found}")]
    Truncated {
        /// What the file says.
        length: u64,
        /// Bytes of the file.
        found: usize,
    },
    /// The header is no JSON object from its first byte on, which the format asks for so that no file is two formats at once.
    #[error("the header does not begin with {{")]
    Start,
    /// The header is not UTF-8.
    #[error("the header is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Position in the header.
        at: usize,
    },
    /// The header is no JSON, is nested too deeply, or has a value of the wrong kind or an unknown field.
    #[error("header: {message}")]
    Json {
        /// The parser's account, with line and column.
        message: String,
    },
    /// A type that the format does not have.
    #[error("tensor {name} has the unknown type {found}")]
    UnknownType {
        /// The tensor.
        name: String,
        /// What the file says, shortened.
        found: String,
    },
    /// More texts in `__metadata__` than any file has.
    #[error("{found} texts in __metadata__, more than {limit}")]
    Texts {
        /// In the file.
        found: usize,
        /// Most that are read.
        limit: usize,
    },
    /// A name that stands twice in a file.
    #[error("{name} stands twice")]
    Duplicate {
        /// The tensor, `__metadata__`, or the text in it.
        name: String,
    },
    /// A name that stands in two shards.
    #[error("tensor {name} is also in another shard")]
    DuplicateInShards {
        /// The tensor.
        name: String,
    },
    /// A tensor of more dimensions than any model has.
    #[error("tensor {name} has {found} dimensions, more than {limit}")]
    Dimensions {
        /// The tensor.
        name: String,
        /// In the file.
        found: usize,
        /// Most that is read.
        limit: usize,
    },
    /// A tensor that begins before its predecessor ends.
    #[error("tensor {name} begins at {start}, the one before it ends at {previous}: they overlap")]
    Overlap {
        /// The tensor.
        name: String,
        /// Where it begins.
        start: usize,
        /// Where the one before it ends.
        previous: usize,
    },
    /// Bytes between two tensors that belong to neither.
    #[error("tensor {name} begins at {start}, the one before it ends at {previous}: there is a hole")]
    Hole {
        /// The tensor.
        name: String,
        /// Where it begins.
        start: usize,
        /// Where the one before it ends.
        previous: usize,
    },
    /// A tensor that ends before it begins, or beyond the file.
    #[error("tensor {name} lies at {start}..{end} of {data} bytes")]
    OutOfFile {
        /// The tensor.
        name: String,
        /// Where it begins.
        start: usize,
        /// Where it ends.
        end: usize,
        /// Bytes of data in the file.
        data: usize,
    },
    /// The product of the dimensions is no number.
    #[error("tensor {name}: {shape:?} of {dtype:?} is more than a number of bytes can say")]
    Overflow {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its type.
        dtype: Dtype,
    },
    /// Another number of bytes than type and shape ask for.
    #[error("tensor {name} has {found} bytes, which is not {shape:?} of {dtype:?}")]
    Size {
        /// The tensor.
        name: String,
        /// Bytes between its offsets.
        found: usize,
        /// Its shape.
        shape: Vec<usize>,
        /// Its type.
        dtype: Dtype,
    },
    /// Data after the last tensor.
    #[error("the tensors end at {end} of {data} bytes")]
    Trailing {
        /// Where the last tensor ends.
        end: usize,
        /// Bytes of data in the file.
        data: usize,
    },
}

/// ` (did you mean X?)`, or nothing.
pub(crate) fn hint(suggestion: &Option<String>) -> String {
    suggestion
        .as_ref()
        .map_or_else(String::new, |name| alloc::format!(" (did you mean {name}?)"))
}

/// Why a part of a one-file model was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PartProblem {
    /// It is not there.
    #[error("is missing{}", hint(suggestion))]
    Missing {
        /// A tensor of a similar name that nobody asked for.
        suggestion: Option<String>,
    },
    /// A tensor or an entry that this version does not know.
    #[error("is no part of such a model in version {version}")]
    Unknown {
        /// The version that is read.
        version: &'static str,
    },
    /// The file is of another format, or of another version.
    #[error("expected \"{expected}\", found {found}")]
    Format {
        /// What is read.
        expected: &'static str,
        /// What the file says, quoted and shortened, or `nothing`.
        found: String,
    },
    /// A tensor of another type.
    #[error("expected {expected:?}, found {found:?}")]
    Type {
        /// What the configuration implies.
        expected: Dtype,
        /// In the file.
        found: Dtype,
    },
    /// A tensor of another shape.
    #[error("expected shape {expected:?}, found {found:?}")]
    Shape {
        /// What the configuration implies.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A tensor that does not begin at a whole cache line.
    #[error("begins at byte {start}, which is no multiple of {alignment}")]
    Misaligned {
        /// Position in the file.
        start: usize,
        /// What it has to be a multiple of.
        alignment: usize,
    },
    /// Bytes that this machine cannot read in place: it has the other byte order, or the file was put at an odd address.
    #[error("does not lie in memory as this machine reads it")]
    NotInPlace,
    /// A scale that is zero, negative, NaN or infinite.
    #[error("expected a positive finite scale for {linear}, found {value}")]
    Scale {
        /// The linear that it belongs to.
        linear: String,
        /// Its value.
        value: f32,
    },
    /// Padding that is too long, or not zeros.
    #[error("expected less than {alignment} zero bytes of padding")]
    Padding {
        /// What the padding fills up to.
        alignment: usize,
    },
    /// Figures of a sketch for which there is no head.
    #[error(
        "is no sketch: its figures must be finite and not below zero, and the width of the head one that can be rotated"
    )]
    Sketch,
    /// The checksum is missing, or is not 64 hexadecimal digits.
    #[error("is missing or no checksum")]
    NoChecksum,
    /// The bytes are not those that were written.
    #[error("the bytes are not those that were written")]
    Checksum,
    /// A code that stands for no weight.
    #[error("holds a code that stands for no weight")]
    Code,
    /// An integer that the linear's mode does not have.
    #[error("holds an integer outside the range of its mode")]
    Range,
    /// NaN, an infinity, or an integer that its type does not have there.
    #[error("holds a value that is not finite, or an integer that its type does not have there")]
    NotFinite,
    /// A part that is derived from another and does not follow from it.
    #[error("does not follow from {of}")]
    Derived {
        /// What it is derived from.
        of: &'static str,
    },
    /// A text that its own parser refused: tokenizer, template, recommended settings.
    #[error("{message}")]
    Content {
        /// The parser's account.
        message: String,
    },
    /// The model cannot be built here: out of memory or threads, or a machine of the other byte order.
    #[error("{message}")]
    Model {
        /// Why.
        message: String,
    },
}

/// Why bytes are no model in one file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The container's header contradicts itself or the bytes.
    #[error("damaged safetensors file: {0}; write the file again")]
    Header(HeaderProblem),
    /// The configuration was refused.
    #[error("{0}")]
    Config(ConfigError),
    /// A part is missing, damaged, or none.
    #[error("{part}: {problem}; export the model again")]
    Part {
        /// The tensor or the entry of `__metadata__`.
        part: String,
        /// What was expected and found.
        problem: PartProblem,
    },
}

impl PartProblem {
    pub(crate) fn content(error: impl fmt::Display) -> Self {
        let message = error.to_string();
        Self::Content { message }
    }

    pub(crate) fn model(error: impl fmt::Display) -> Self {
        let message = error.to_string();
        Self::Model { message }
    }
}
