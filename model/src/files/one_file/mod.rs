//! [Models in one piece](crate::image) as files: mapped, written, verified, and told to C.

mod c_header;
mod plan;
mod read;
mod source;
mod verify;
mod write;

#[cfg(test)]
mod tests;

pub use read::OneFile;
pub use write::{OneFileOptions, Parts, TernaryLayout, one_file_bytes, save_one_file};

use crate::image::{
    ALIGNMENT, COLUMNS, FORMAT, Image, PADDING, SCALES, SKETCH, TOKENIZER_JSON, TOKENIZER_PACKED, VERSION, Weights,
};

/// Characters of a checksum: blake3 in hexadecimal. The checksum is made with zeros in its own place.
const CHECKSUM_LEN: usize = 64;
/// The extension of such files.
pub const ONE_FILE_EXTENSION: &str = "1bit";
