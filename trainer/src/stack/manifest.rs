//! The manifest of a sharded data set on the Hub: JSON Lines, a [`Shard`] a line, in the order of their paths.
//!
//! ```text
//! {"id":"rust/train-00000-of-00206","language":"rust","path":"data/rust/train-00000-of-00206.parquet","bytes":…,"sha256":"…","dataset":"bigcode/the-stack","revision":"…"}
//! ```
//!
//! It pins the data: `revision` is a commit, so a manifest means the same bytes for ever. It may be edited by hand (to leave shards out) or come from a stranger; what
//! [`read_manifest`] gives is safe to make names of files and addresses of.

mod make;

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::hub::{self, HubFile};

pub use make::{Made, ManifestOptions, Totals, make_manifest};

/// Bytes of the longest line that is read: some ten times what the longest path needs.
const LONGEST_LINE: u64 = 64 << 10;
/// Characters of the longest id, which becomes the name of a file or two.
const LONGEST_ID: usize = 200;

/// One line of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// What the shard is called here, unique in the manifest: `rust/train-00000-of-00206`.
    pub id: String,
    /// Its language: the folder that it lies in.
    pub language: String,
    /// Its path in the data set: `data/rust/train-00000-of-00206.parquet`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes in lower-case hexadecimal, where the Hub knows it.
    pub sha256: Option<String>,
    /// The data set on the Hub: `bigcode/the-stack`.
    pub dataset: String,
    /// The commit of the data set, 40 hexadecimal digits.
    pub revision: String,
}

impl Shard {
    /// The shard as the Hub client downloads it.
    pub fn file(&self) -> HubFile {
        HubFile {
            dataset: self.dataset.clone(),
            revision: self.revision.clone(),
            path: self.path.clone(),
            bytes: self.bytes,
            sha256: self.sha256.clone(),
        }
    }

    /// What makes the shard unusable, if anything does.
    pub(crate) fn problem(&self) -> Option<String> {
        if !hub::is_plain_path(&self.id) || self.id.len() > LONGEST_ID || !self.id.chars().all(is_id_character) {
            return Some(format!(
                "id is {:?}, expected at most {LONGEST_ID} ASCII letters, digits and -_.+# in parts divided by /",
                self.id
            ));
        }
        if self.language.is_empty() || !self.language.chars().all(|c| is_id_character(c) && c != '/') {
            return Some(format!(
                "language is {:?}, expected ASCII letters, digits and -_.+#",
                self.language
            ));
        }
        if !hub::is_plain_path(&self.path) {
            return Some(format!(
                "path is {:?}, expected a relative path with / that stays inside the data set",
                self.path
            ));
        }
        if self.bytes == 0 {
            return Some("bytes is 0, expected the length of the shard".into());
        }
        if let Some(sha256) = &self.sha256
            && !hub::is_sha256(sha256)
        {
            return Some(format!(
                "sha256 is {sha256:?}, expected 64 lower-case hexadecimal digits"
            ));
        }
        if !hub::is_dataset_id(&self.dataset) {
            return Some(format!("dataset is {:?}, expected OWNER/NAME", self.dataset));
        }
        if !hub::is_commit(&self.revision) {
            return Some(format!(
                "revision is {:?}, expected a commit of 40 lower-case hexadecimal digits",
                self.revision
            ));
        }
        None
    }
}

fn is_id_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.+#/".contains(c)
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The system refused to read or write it.
    #[error("cannot {action} the manifest {}: {source}; check the path, the permissions and the space there", path.display())]
    Io {
        /// The manifest.
        path: PathBuf,
        /// `read` or `write`.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line that is no shard.
    #[error("the manifest {}, line {line}: {reason}; mend the line or make the manifest again with `onebit stack manifest`", path.display())]
    Line {
        /// The manifest.
        path: PathBuf,
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A language that the data set does not have.
    #[error("the data set {dataset} has no language {language:?} in its folder `data`, but {known}")]
    Language {
        /// The data set.
        dataset: String,
        /// What was asked for.
        language: String,
        /// What there is.
        known: String,
    },
    /// A file that cannot be a line.
    #[error("the data set {dataset} is not laid out as data/LANGUAGE/*.parquet: of {file:?} the {reason}")]
    Layout {
        /// The data set.
        dataset: String,
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No file that could be a line.
    #[error(
        "the data set {dataset} has no parquet file in the folders that were asked for; check --dataset-id and --languages"
    )]
    NoShards {
        /// The data set.
        dataset: String,
    },
    /// No line at all.
    #[error("the manifest {} is empty, expected a shard a line; make it with `onebit stack manifest`", path.display())]
    Empty {
        /// The manifest.
        path: PathBuf,
    },
}

/// Reads a manifest: its shards in the order of the lines.
///
/// # Errors
/// A file that cannot be read; an empty one; a line (with its number) that is no [`Shard`], has an unknown or missing key, names a path that leaves its folder, a shard
/// of no bytes, or one that was named before.
pub fn read_manifest(path: &Path) -> Result<Vec<Shard>> {
    let io = |source| read_failed(path, source);
    parse(BufReader::new(File::open(path).map_err(io)?), path)
}

/// The shards that `reader` gives; `path` is what errors name.
fn parse(mut reader: impl BufRead, path: &Path) -> Result<Vec<Shard>> {
    let io = |source| read_failed(path, source);
    let mut shards: Vec<Shard> = Vec::new();
    let (mut ids, mut files) = (HashSet::new(), HashSet::new());
    let mut total = 0u64;
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        // The bound keeps a file without line ends from filling the memory.
        let read = (&mut reader).take(LONGEST_LINE + 1).read_until(b'\n', &mut bytes);
        if read.map_err(io)? == 0 {
            break;
        }
        let failed = |reason| ManifestError::Line {
            path: path.to_path_buf(),
            line,
            reason,
        };
        if bytes.len() as u64 > LONGEST_LINE {
            return Err(failed(format!(
                "it has more than {LONGEST_LINE} bytes, expected a shard a line"
            ))
            .into());
        }
        let shard: Shard =
            serde_json::from_slice(&bytes).map_err(|e| failed(format!("{e}, expected a shard as one JSON object")))?;
        if let Some(problem) = shard.problem() {
            return Err(failed(problem).into());
        }
        if !ids.insert(shard.id.clone()) {
            return Err(failed(format!("the id {:?} was on a line before", shard.id)).into());
        }
        if !files.insert((shard.dataset.clone(), shard.revision.clone(), shard.path.clone())) {
            return Err(failed(format!("the file {:?} was on a line before", shard.path)).into());
        }
        total = total
            .checked_add(shard.bytes)
            .ok_or_else(|| failed("bytes is more, with the lines before, than 64 bits count".into()))?;
        shards.push(shard);
    }
    if shards.is_empty() {
        return Err(ManifestError::Empty {
            path: path.to_path_buf(),
        }
        .into());
    }
    Ok(shards)
}

fn read_failed(path: &Path, source: std::io::Error) -> ManifestError {
    ManifestError::Io {
        path: path.to_path_buf(),
        action: "read",
        source,
    }
}

#[cfg(test)]
mod tests;
