//! The shards of a data set: a line of JSON each.

use std::io::BufRead;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::error::io_error;

/// One line of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// What the shard is called.
    pub id: String,
    /// Its language.
    pub language: String,
    /// Its path in the data set.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes in hexadecimal digits, if it is known.
    pub sha256: Option<String>,
    /// The data set.
    pub dataset: String,
    /// Its revision.
    pub revision: String,
}

/// The shards of the manifest at `path`.
///
/// # Errors
/// [`crate::TrainError::Io`].
pub fn read_manifest(path: &Path) -> Result<Vec<Shard>> {
    let failed = || io_error(path, "make a manifest with `onebit stack manifest`");
    let file = std::fs::File::open(path).map_err(failed())?;
    let mut shards = Vec::new();
    for line in std::io::BufReader::new(file).lines() {
        let line = line.map_err(failed())?;
        shards.push(serde_json::from_str(&line).map_err(|e| failed()(e.into()))?);
    }
    Ok(shards)
}
