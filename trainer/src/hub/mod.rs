//! The Hugging Face Hub, as far as data sets need it: what a branch stands for, what files there are, and their bytes.

mod names;

pub(crate) use names::{is_commit, is_dataset_id, is_plain_path, is_sha256};

/// A file of a data set at a commit: what a download gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFile {
    /// The data set: `bigcode/the-stack`.
    pub dataset: String,
    /// The commit.
    pub revision: String,
    /// Its path in the data set: `data/rust/train-00000-of-00206.parquet`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes in lower-case hexadecimal, if it is known.
    pub sha256: Option<String>,
}
