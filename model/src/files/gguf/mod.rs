//! GGUF, the file format of llama.cpp and of bitnet.cpp: versions 2 and 3, little-endian.
//!
//! ```text
//! "GGUF", u32 version, u64 tensors, u64 keys
//! each key:     text name, u32 type, value                       text = u64 length and UTF-8 bytes
//! each tensor:  text name, u32 dimensions, u64 each (innermost first), u32 type, u64 offset
//! zeros up to a multiple of general.alignment (32)
//! data:         each tensor at its offset, a multiple of the alignment, in order, without holes
//! ```
//!
//! [`Gguf`] is the container, checked as a whole: nothing is allocated that the file's size does not pay for, and each way of being
//! malformed has its own [`GgufError`]. [`GgufModel`] is a model in one, a [`ModelSource`](super::ModelSource): which networks are known
//! and what each of them computes is told in [`graph`], how weights lie in [`blocks`]. [`save_gguf`] writes one.
//!
//! **Metadata is not guessed.** A missing key, an unknown key under the architecture's name, an unknown tensor or type is an error that
//! lists what is known. What is taken as the format's documentation has it when it is absent: `general.alignment` is 32, a head has
//! `embedding_length / head_count` values, the rotary embedding turns all of them and is not scaled.
//!
//! **Scales.** Blocks of `TQ1_0` and `TQ2_0` have an f16 scale each, and γ (ARCHITECTURE.md §2.1) is one f32 for a matrix. Reading, all blocks must
//! have the same scale. Writing, so that nothing is lost: a `bitnet` file has blocks with scale 1 and γ in an f32 tensor `….scale`, which llama.cpp
//! multiplies by; other graphs have no such tensors, so the blocks get f16(γ), all that their programs can know, and
//! `onebit.linear_scales` has γ exactly for us. `I2_S` has an f32. Float linears whose weights are of one magnitude and 0 are ternary.

pub mod blocks;
mod config;
mod container;
mod cursor;
mod encode;
mod error;
mod export;
pub mod graph;
mod keys;
mod model;
mod names;
mod plan;
mod rows;
mod ternary;
#[cfg(test)]
mod tests;
mod types;
mod value;
mod vocabulary;
mod write;

pub use container::{Gguf, TensorInfo};
pub use error::GgufError;
pub use export::{GgufOptions, GgufWritten, LINEAR_TYPES, save_gguf};
pub use graph::Graph;
pub use model::GgufModel;
pub use types::TensorType;
pub use value::{Array, Value, ValueType};

/// The extension of such files.
pub const GGUF_EXTENSION: &str = "gguf";

/// The first bytes of a file.
pub const MAGIC: &[u8; 4] = b"GGUF";
/// The version that is written, and the newest that is read.
const VERSION: u32 = 3;
const DEFAULT_ALIGNMENT: usize = 32;
const ALIGNMENT_KEY: &str = "general.alignment";
const GENERAL_ARCHITECTURE: &str = "general.architecture";
