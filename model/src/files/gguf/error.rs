//! Everything that may be wrong with a GGUF file, one variant for each class.

use super::types::TensorType;

/// The names of the types that are read, for messages.
fn supported_types() -> String {
    TensorType::names()
}

/// Why a GGUF file was refused. Positions are bytes from the file's beginning.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file ends inside something.
    #[error("the file ends at byte {len}, inside {what}, which needs {need} bytes from byte {at}")]
    Truncated {
        /// What was being read.
        what: String,
        /// Where it begins.
        at: usize,
        /// Bytes it needs.
        need: u64,
        /// Bytes of the file.
        len: usize,
    },
    /// The first four bytes are not `GGUF`.
    #[error("the file begins with {found:?} and not with \"GGUF\"")]
    Magic {
        /// The first bytes.
        found: [u8; 4],
    },
    /// A version that is not read. Files of version 1 have other lengths, and those of a big-endian machine show a very large number.
    #[error("version {found}; version 3, little-endian, and version 2, which differs in nothing else, are read")]
    Version {
        /// The version.
        found: u32,
    },
    /// More keys or tensors than a model has, or than the file could hold.
    #[error("{found} {what}, more than {most}: a count that this file cannot hold or no model needs")]
    Count {
        /// `keys`, `tensors`, `array elements`.
        what: &'static str,
        /// The count in the file.
        found: u64,
        /// The most that is accepted.
        most: u64,
    },
    /// Text that is not UTF-8.
    #[error("{what} is not valid UTF-8")]
    Utf8 {
        /// Which text.
        what: String,
    },
    /// A type number of a metadata value that does not exist.
    #[error("key {key}: value type {found}; types 0 to 12 exist")]
    ValueType {
        /// The key.
        key: String,
        /// The number.
        found: u32,
    },
    /// A truth value that is neither 0 nor 1.
    #[error("key {key}: a bool of {found}; 0 and 1 are the only ones")]
    Bool {
        /// The key.
        key: String,
        /// The byte.
        found: u8,
    },
    /// An array of arrays.
    #[error("key {key}: an array of arrays, which no model needs and which could be nested without end")]
    NestedArray {
        /// The key.
        key: String,
    },
    /// A key stands twice.
    #[error("key {key} stands twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A tensor stands twice.
    #[error("tensor {name} stands twice")]
    DuplicateTensor {
        /// The tensor.
        name: String,
    },
    /// `general.alignment` is not usable.
    #[error("general.alignment is {found}; a power of two from 8 to 65536 is expected")]
    Alignment {
        /// The value.
        found: u64,
    },
    /// More dimensions than the format has.
    #[error("tensor {name} has {found} dimensions; 1 to 4 are possible")]
    Dimensions {
        /// The tensor.
        name: String,
        /// Their number.
        found: u32,
    },
    /// A dimension that is zero, negative when read as signed, or whose product with the others overflows.
    #[error("tensor {name} has the dimensions {found:?}, whose product is none or too large")]
    Size {
        /// The tensor.
        name: String,
        /// The dimensions, innermost first.
        found: Vec<u64>,
    },
    /// A tensor type that is not read.
    #[error("tensor {name}: type {found}{}; supported are {}", known_as(*found), supported_types())]
    TensorType {
        /// The tensor.
        name: String,
        /// The type's number.
        found: u32,
    },
    /// A row that is no whole number of blocks.
    #[error("tensor {name}: rows of {cols} values; {kind} has blocks of {block}")]
    Block {
        /// The tensor.
        name: String,
        /// The type.
        kind: &'static str,
        /// Values of a row.
        cols: usize,
        /// Values of a block.
        block: usize,
    },
    /// A tensor that does not begin at a multiple of the alignment.
    #[error("tensor {name} begins at {offset} of the data, which is no multiple of {alignment}")]
    Misaligned {
        /// The tensor.
        name: String,
        /// From the beginning of the data.
        offset: u64,
        /// `general.alignment`.
        alignment: u64,
    },
    /// A tensor that ends beyond the file.
    #[error("tensor {name} lies at {offset} of the data and has {bytes} bytes; the file has {data} bytes of data")]
    Outside {
        /// The tensor.
        name: String,
        /// From the beginning of the data.
        offset: u64,
        /// Bytes of the tensor.
        bytes: u64,
        /// Bytes of the data.
        data: u64,
    },
    /// A tensor that begins before the one before it has ended.
    #[error("tensor {name} begins at {offset} of the data, inside the tensor before it, which ends at {end}")]
    Overlap {
        /// The tensor.
        name: String,
        /// From the beginning of the data.
        offset: u64,
        /// Where it could begin.
        end: u64,
    },
    /// Bytes between two tensors, or before the first, that belong to none.
    #[error("tensor {name} begins at {offset} of the data, with a hole before it: the tensor before it ends at {end}")]
    Hole {
        /// The tensor.
        name: String,
        /// From the beginning of the data.
        offset: u64,
        /// Where it should begin.
        end: u64,
    },
    /// Bytes after the last tensor that belong to none.
    #[error("{bytes} bytes after the last tensor belong to nothing")]
    Trailing {
        /// Their number.
        bytes: u64,
    },
    /// A key that the model needs is not there.
    #[error("key {key} is missing; it is not guessed, because a wrong value gives plausible nonsense")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A key that could change the network and that is not known.
    #[error("unknown key {key}; supported are {supported}")]
    UnknownKey {
        /// The key.
        key: String,
        /// The keys of its kind that are known.
        supported: String,
    },
    /// A key holds a value of another type.
    #[error("key {key}: expected {expected}, found {found}")]
    WrongType {
        /// The key.
        key: String,
        /// The type that it should have.
        expected: &'static str,
        /// The type that it has.
        found: String,
    },
    /// A key holds a value that this program cannot follow.
    #[error("key {key}: expected {expected}, found {found}")]
    Value {
        /// The key.
        key: String,
        /// What can be followed.
        expected: String,
        /// The value.
        found: String,
    },
    /// `general.architecture` is none that is known.
    #[error("architecture {found:?}; supported are {supported}")]
    Architecture {
        /// The name.
        found: String,
        /// The known ones.
        supported: String,
    },
    /// A tensor that the graph needs is not there.
    #[error("tensor {name} is missing, which the graph {graph} needs")]
    MissingTensor {
        /// The tensor.
        name: String,
        /// The graph.
        graph: &'static str,
    },
    /// A tensor that the graph has no place for.
    #[error("unknown tensor {name}{}; the graph {graph} has no place for it", if *more == 0 { String::new() } else { format!(" and {more} more") })]
    UnknownTensor {
        /// The first such tensor.
        name: String,
        /// How many more there are.
        more: usize,
        /// The graph.
        graph: &'static str,
    },
    /// A tensor of another shape than the keys imply.
    #[error("tensor {name}: expected {expected:?} (rows, columns), found {found:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// From the keys.
        expected: (usize, usize),
        /// In the file.
        found: (usize, usize),
    },
    /// The sizes that the keys give are those of no model.
    #[error("the keys of the file describe no model: {0}")]
    Config(crate::config::ConfigError),
    /// The text of `onebit.generation_config` was refused.
    #[error("key onebit.generation_config: {0}")]
    Generation(String),
    /// The tokenizer in the file was refused, or the model's own has no place in one.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A tensor of a type that cannot be used there.
    #[error("tensor {name}: type {found} cannot be used there; {expected} can")]
    TensorUse {
        /// The tensor.
        name: String,
        /// Its type.
        found: &'static str,
        /// The types that can be used.
        expected: String,
    },
    /// A code that stands for no weight.
    #[error("tensor {name}: weight {at} has a code that stands for no trit")]
    Code {
        /// The tensor.
        name: String,
        /// Position of the weight, row by row.
        at: usize,
    },
    /// A ternary tensor whose blocks have several scales.
    #[error(
        "tensor {name}: block {block} has the scale {found} and the blocks before it {expected}: these weights were not trained with one scale a \
         matrix, so they are no BitNet b1.58 weights"
    )]
    Scales {
        /// The tensor.
        name: String,
        /// The first block that differs.
        block: usize,
        /// Its scale.
        found: f32,
        /// The scale of those before it.
        expected: f32,
    },
    /// A scale that is NaN, infinite, negative, or not that of the blocks.
    #[error("tensor {name}: scale {found}; expected {expected}")]
    Scale {
        /// The tensor.
        name: String,
        /// The value.
        found: f32,
        /// What was expected.
        expected: String,
    },
    /// A weight or a step that is NaN or infinite.
    #[error("tensor {name}: value {at} is {found}")]
    NotFinite {
        /// The tensor.
        name: String,
        /// Its position.
        at: usize,
        /// The value.
        found: f32,
    },
    /// The model has no form in this file format or in this graph.
    #[error("the model cannot be written as {graph}: {reason}")]
    Inexpressible {
        /// The graph.
        graph: String,
        /// Why, and what can be done.
        reason: String,
    },
}

/// The name that a type number has elsewhere, in brackets.
fn known_as(id: u32) -> String {
    let name = match id {
        3 => "Q4_1",
        6 => "Q5_0",
        7 => "Q5_1",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        12 => "Q4_K",
        13 => "Q5_K",
        15 => "Q8_K",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        38 => "TL1 of bitnet.cpp",
        39 => "TL2 of bitnet.cpp, or MXFP4",
        42 => "Q2_0",
        16..=23 | 29 => "an IQ type",
        i if i > i32::MAX as u32 => "a negative number",
        _ => return String::new(),
    };
    format!(" ({name})")
}
