//! The manifest: length and checksum of each file of a checkpoint, written last.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{FULL_DISK, damaged};
use crate::Result;
use crate::error::io_error;

const NAME: &str = "manifest.json";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    blake3: String,
}

/// Writes the manifest of `files` in `directory`.
pub(super) fn write(directory: &Path, files: &[&str]) -> Result<()> {
    let mut entries = BTreeMap::new();
    for file in files {
        entries.insert(*file, entry(&directory.join(file))?);
    }
    let json = serde_json::to_vec_pretty(&entries).map_err(|e| damaged(directory, e.to_string()))?;
    write_synced(&directory.join(NAME), &json)
}

/// Checks every file that the manifest of `directory` names, which must be `files`: a manifest that leaves one out vouches for nothing.
pub(super) fn check(directory: &Path, files: &[&str]) -> Result<()> {
    let path = directory.join(NAME);
    let bytes = fs::read(&path).map_err(|e| damaged(directory, format!("{NAME}: {e}")))?;
    let entries: BTreeMap<String, Entry> =
        serde_json::from_slice(&bytes).map_err(|e| damaged(directory, format!("{NAME}: {e}")))?;
    if let Some(absent) = files.iter().find(|file| !entries.contains_key(**file)) {
        return Err(damaged(directory, format!("{NAME} does not name {absent}")));
    }
    for (name, expected) in entries {
        if !files.contains(&name.as_str()) {
            return Err(damaged(
                directory,
                format!("{NAME} names {name}, which is no file of a checkpoint"),
            ));
        }
        let found = entry(&directory.join(&name)).map_err(|e| damaged(directory, e.to_string()))?;
        if found != expected {
            return Err(damaged(
                directory,
                format!("{name}: expected {expected:?}, found {found:?}"),
            ));
        }
    }
    Ok(())
}

fn entry(path: &Path) -> Result<Entry> {
    let bytes = fs::read(path).map_err(io_error(path, "resume from another checkpoint"))?;
    Ok(Entry {
        bytes: bytes.len() as u64,
        blake3: blake3::hash(&bytes).to_hex().to_string(),
    })
}

/// Writes a file and waits until the disk has it.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(io_error(path, FULL_DISK))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(io_error(path, FULL_DISK))
}

/// Waits until the disk has the entries of a directory.
pub(super) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|d| d.sync_all())
        .map_err(io_error(path, FULL_DISK))
}
