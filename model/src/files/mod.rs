//! Models in files: directories, [models in one file](OneFile), and those of others, each a [`ModelSource`].
//!
//! A directory holds `config.json`, `model.safetensors`, `tokenizer.json`, `generation_config.json`.
//!
//! Names, keys and layouts are Hugging Face's, so that `transformers` opens what is written here and the other way
//! round. [`HfDirectory`] reads float weights (f32, f16, bf16), one file or shards, and both packed ternary layouts:
//!
//! ```text
//! X_proj.weight        uint8 [rows/4, cols]   byte (r, c): bits 2j, 2j+1 hold row r + j·rows/4, column c, as trit + 1
//! X_proj.weight_scale  float [1]              multiplies (autobitlinear) or divides (bitlinear) the product
//! ```
//!
//! What it gives is always the multiplying γ of ARCHITECTURE.md §2.1. The files are memory-mapped; every length in them
//! is checked against the file's size before anything is allocated, every tensor against the configuration, and each
//! refusal names the tensor. [`save_master`] and [`save_packed`] write the same bytes for the same model, each file under a
//! temporary name that is renamed once it is on disk.

mod atomic;
mod directory;
mod directory_write;
mod error;
mod generation;
#[cfg(feature = "tokenizers")]
pub mod gguf;
mod load;
mod mmap;
mod one_file;
mod open;
mod pack;
mod recast;
mod regular;
mod save;
mod shards;
mod source;
mod stories;
mod stream;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use atomic::{remove_unfinished, replace_file};
pub use directory::HfDirectory;
pub use directory_write::{DirectoryOptions, save_directory};
pub use error::FileError;
pub use load::{MasterTensor, load_master};
pub use mmap::MappedFile;
pub use one_file::{ONE_FILE_EXTENSION, OneFile, OneFileOptions, Parts, TernaryLayout, one_file_bytes, save_one_file};
pub use open::{ModelKind, open_source};
pub use pack::{pack_rows, unpack_rows};
pub use recast::{Recast, held_mode};
pub(crate) use regular::read_text;
pub use regular::{open_regular, open_to_map};
pub use safetensors::Dtype;
pub use save::{Extras, HighPrecision, NamedTensor, save_master, save_packed};
pub use shards::ShardIndex;
pub use source::{ModelSource, StoredAs};
pub use stories::StoriesModel;

use crate::config::json::{Parsed, read_file};
pub use crate::image::{GenerationConfig, HeaderProblem, Image, ImageError, PartProblem, TensorView, Weights};

/// The model's sizes and options.
pub const CONFIG_FILE: &str = "config.json";
/// The weights, when they lie in one file.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Which shard holds which tensor, when the weights lie in several files.
pub const WEIGHTS_INDEX_FILE: &str = "model.safetensors.index.json";
/// The tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// The sampling settings that the model's maker recommends.
pub const GENERATION_FILE: &str = "generation_config.json";

/// Reads `config.json` of a model directory, with the reader's notes.
///
/// # Errors
/// [`FileError::Config`] with the path.
pub fn read_config(dir: &Path) -> Result<Parsed, FileError> {
    let path = dir.join(CONFIG_FILE);
    read_file(&path).map_err(|source| FileError::Config { path, source })
}
