//! The manifest: length and checksum of each file of a checkpoint, written last.

use std::collections::BTreeMap;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use onebit_model::files::open_regular;
use serde::{Deserialize, Serialize};

use super::{FILES, FULL_DISK, damaged};
use crate::Result;
use crate::error::io_error;
use crate::storage::{Output, Storage};

/// Its name in a checkpoint.
pub(super) const NAME: &str = "manifest.json";
/// No manifest is longer: it names a handful of files.
const LARGEST: u64 = 1 << 16;

/// What is known of a file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its length.
    pub bytes: u64,
    /// Its BLAKE3 in hexadecimal digits.
    pub blake3: String,
}

/// The files of a checkpoint.
pub type Manifest = BTreeMap<String, Entry>;

/// Writes the files of a checkpoint and notes what they are: what was meant to be written, whatever the disk made of it.
pub(super) struct Writer<'a> {
    storage: &'a dyn Storage,
    directory: &'a Path,
    entries: Manifest,
}

/// A file on its way, with its checksum.
struct Hashed {
    output: Box<dyn Output>,
    hash: blake3::Hasher,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.output.flush()
    }
}

impl<'a> Writer<'a> {
    pub fn new(storage: &'a dyn Storage, directory: &'a Path) -> Self {
        Writer {
            storage,
            directory,
            entries: Manifest::new(),
        }
    }

    /// Writes file `name` by `write`, which is given its path for messages, and waits until the disk has it.
    pub fn file(&mut self, name: &str, write: impl FnOnce(&Path, &mut dyn Write) -> Result<()>) -> Result<()> {
        let path = self.directory.join(name);
        let output = self.storage.create(&path).map_err(io_error(&path, FULL_DISK))?;
        let hashed = Hashed {
            output,
            hash: blake3::Hasher::new(),
            bytes: 0,
        };
        let mut buffered = BufWriter::with_capacity(1 << 16, hashed);
        write(&path, &mut buffered)?;
        let ended = buffered.into_inner().map_err(|e| e.into_error());
        let mut file = ended.map_err(io_error(&path, FULL_DISK))?;
        file.output.sync().map_err(io_error(&path, FULL_DISK))?;
        let entry = Entry {
            bytes: file.bytes,
            blake3: file.hash.finalize().to_hex().to_string(),
        };
        self.entries.insert(name.to_string(), entry);
        Ok(())
    }

    /// Writes file `name` with content that is at hand.
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.file(name, |path, file| {
            file.write_all(bytes).map_err(io_error(path, FULL_DISK))
        })
    }

    /// Writes the manifest of what was written.
    pub fn finish(mut self) -> Result<()> {
        let json = serde_json::to_vec_pretty(&self.entries).map_err(|e| damaged(self.directory, e.to_string()))?;
        self.bytes(NAME, &json)
    }
}

/// A manifest from its text: it names every file that a checkpoint must have, and none that a checkpoint cannot have.
///
/// # Errors
/// What is wrong with it.
pub fn parse_manifest(text: &[u8]) -> std::result::Result<Manifest, String> {
    let entries: Manifest = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    if let Some((absent, _)) = FILES
        .iter()
        .find(|(file, needed)| *needed && !entries.contains_key(*file))
    {
        return Err(format!("does not name {absent}"));
    }
    match entries.keys().find(|name| FILES.iter().all(|(file, _)| file != name)) {
        Some(name) => Err(format!("names {name}, which is no file of a checkpoint")),
        None => Ok(entries),
    }
}

/// Checks every file that the manifest of `directory` names.
pub(super) fn check(directory: &Path) -> Result<()> {
    let wrong = |why: String| damaged(directory, format!("{NAME} {why}"));
    let mut text = Vec::new();
    open_regular(&directory.join(NAME))
        .and_then(|file| file.take(LARGEST).read_to_end(&mut text))
        .map_err(|e| wrong(format!("cannot be read: {e}")))?;
    for (name, expected) in parse_manifest(&text).map_err(wrong)? {
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
    let mut hash = blake3::Hasher::new();
    let read = open_regular(path).and_then(|mut file| std::io::copy(&mut file, &mut hash));
    Ok(Entry {
        bytes: read.map_err(io_error(path, "resume from another checkpoint"))?,
        blake3: hash.finalize().to_hex().to_string(),
    })
}
