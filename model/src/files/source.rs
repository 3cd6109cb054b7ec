//! Where a model's tensors come from, whatever the file: one at a time, so that a conversion never holds the whole model.

use std::path::Path;

use super::FileError;
use crate::config::ModelConfig;
use crate::runtime::TensorSource;

/// In which form a source holds a tensor, which is the form in which it gives it. It is told from the file's header: no value is read for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredAs {
    /// Single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Trits with one γ: a linear in mode `ternary` or `binary` that is packed already.
    Trits,
    /// Integers with a step a row: a linear in mode `int8` or `int4`, whose values fit a byte, or a table of bytes.
    Int8,
    /// Half bytes with a step for each group of columns: embedding or head.
    Int4,
}

/// A model in some file or directory, opened and checked as far as headers tell: which tensors there are, and their types, shapes and
/// positions. Tensors go by their Hugging Face names ([`ModelConfig::tensors`]) and come in their Hugging Face orientation and row order,
/// whatever the file calls them and however it orders them.
///
/// Nothing of a tensor stays in memory after the value that was given is dropped: a source that maps its file gives the pages back. That
/// is what bounds the memory of a conversion by the largest tensor.
pub trait ModelSource {
    /// The file or directory, for messages.
    fn path(&self) -> &Path;

    /// Sizes and options.
    fn config(&self) -> &ModelConfig;

    /// What the reader wants said: what it took for granted, and what it left aside.
    fn notes(&self) -> &[String];

    /// The form of tensor `name`.
    ///
    /// # Errors
    /// [`FileError::MissingTensor`] for a name that the configuration does not imply.
    fn stored(&self, name: &str) -> Result<StoredAs, FileError>;

    /// Reads tensor `name`.
    ///
    /// # Errors
    /// [`FileError::MissingTensor`] for a name that the configuration does not imply; for a value that stands for nothing, the error that
    /// says where.
    fn tensor(&self, name: &str) -> Result<TensorSource, FileError>;
}
