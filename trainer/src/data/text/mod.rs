//! Text as documents, from files of several kinds and folders of them, in bounded memory.
//!
//! | name ends in | documents |
//! |---|---|
//! | `.txt`, `.raw` (and any other name given directly) | the file is one document, byte for byte |
//! | `.jsonl`, `.ndjson`, `.json` | one a line: the string `text` or `content` of its object |
//! | `.parquet` | one a row: the column `content` or `text` |
//!
//! Each but parquet, which compresses inside, may also end in `.gz` or `.zst`. A folder is read with its subfolders, in
//! the order of the names; hidden names and other kinds of files in it are passed over. A document comes in [`Piece`]s.

mod json;
mod parquet;
mod plain;
mod table;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use table::{Row, Table};

use super::{DataError, Result};

/// A part of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The text; may be empty at the end of a document.
    pub text: String,
    /// Whether the document ends here.
    pub ends_document: bool,
    /// The file it is from.
    pub path: Arc<Path>,
}

type Pieces = Box<dyn Iterator<Item = Result<Piece>>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Json,
    Parquet,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

/// Kind (`None` if the name does not tell) and compression, by the name.
fn kind(path: &Path) -> (Option<Kind>, Packing) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let (stem, packing) = match (name.strip_suffix(".gz"), name.strip_suffix(".zst")) {
        (Some(stem), _) => (stem, Packing::Gzip),
        (_, Some(stem)) => (stem, Packing::Zstd),
        _ => (name.as_str(), Packing::None),
    };
    let kind = match stem.rsplit_once('.').map(|(_, extension)| extension) {
        Some("txt" | "raw") => Some(Kind::Plain),
        Some("jsonl" | "ndjson" | "json") => Some(Kind::Json),
        Some("parquet") => Some(Kind::Parquet),
        _ => None,
    };
    (kind, packing)
}

/// The files that `inputs` name, folders opened up.
///
/// # Errors
/// [`DataError::Io`] for a path that does not exist, [`DataError::NoText`] if there is no file of a known kind.
pub fn files(inputs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for input in inputs {
        let about = std::fs::metadata(input).map_err(|source| read_error(input, source))?;
        if about.is_dir() {
            walk(input, &mut found)?;
        } else {
            found.push(input.clone());
        }
    }
    if found.is_empty() {
        return Err(no_text(inputs));
    }
    Ok(found)
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let failed = |source| read_error(folder, source);
    let mut entries = std::fs::read_dir(folder)
        .map_err(failed)?
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(failed)?;
    entries.sort_unstable_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // A link to a folder is not followed: it could lead back here.
        if entry.file_type().map_err(failed)?.is_dir() {
            walk(&path, found)?;
        } else if kind(&path).0.is_some() && path.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

pub(super) fn no_text(inputs: &[PathBuf]) -> DataError {
    let names: Vec<String> = inputs.iter().map(|path| path.display().to_string()).collect();
    DataError::NoText {
        inputs: names.join(", "),
    }
}

fn read_error(path: &Path, source: std::io::Error) -> DataError {
    DataError::Io {
        path: path.to_owned(),
        action: "read",
        source,
    }
}

/// The documents of several files, in order.
pub struct Documents {
    files: std::vec::IntoIter<PathBuf>,
    current: Option<Pieces>,
    read: Arc<AtomicU64>,
    total: u64,
    failed: bool,
}

impl Documents {
    /// Documents of `inputs`, files and folders; see [`files`].
    ///
    /// # Errors
    /// Those of [`files`].
    pub fn open(inputs: &[PathBuf]) -> Result<Documents> {
        let files = files(inputs)?;
        let mut total = 0;
        for path in &files {
            total += std::fs::metadata(path)
                .map_err(|source| read_error(path, source))?
                .len();
        }
        Ok(Documents {
            files: files.into_iter(),
            current: None,
            read: Arc::default(),
            total,
            failed: false,
        })
    }

    /// Bytes of the files, as they lie on disk.
    pub fn bytes_total(&self) -> u64 {
        self.total
    }

    /// Bytes of the files read so far.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    fn open_file(&self, path: &Path) -> Result<Pieces> {
        let unsupported = |reason| DataError::Unsupported {
            path: path.to_owned(),
            reason,
        };
        let mut file = File::open(path).map_err(|source| read_error(path, source))?;
        let (kind, packing) = kind(path);
        if kind == Some(Kind::Parquet) {
            if packing != Packing::None {
                return Err(unsupported("parquet needs random access; decompress it first"));
            }
            return Ok(Box::new(parquet::Rows::open(path.into(), file, self.read.clone())?));
        }
        if kind.is_none() && packing == Packing::None {
            let mut head = Vec::new();
            file.by_ref()
                .take(4)
                .read_to_end(&mut head)
                .map_err(|source| read_error(path, source))?;
            if super::token_file::is_tokens(&head) {
                return Err(unsupported(
                    "it is a token file already; give it to --data of `onebit train`",
                ));
            }
            file = File::open(path).map_err(|source| read_error(path, source))?;
        }
        let counted = Counted {
            file,
            read: self.read.clone(),
        };
        stream(path, counted)
    }
}

/// The documents of what `reader` gives, whose kind (any but parquet) and compression the name `path` tells.
///
/// # Errors
/// [`DataError::Io`] if nothing can be decompressed; the other errors come with the documents.
pub fn stream(path: &Path, reader: impl Read + 'static) -> Result<Box<dyn Iterator<Item = Result<Piece>>>> {
    let (kind, packing) = kind(path);
    let reader: Box<dyn Read> = match packing {
        Packing::None => Box::new(reader),
        Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(reader)),
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::new(reader).map_err(|source| read_error(path, source))?),
    };
    Ok(match kind {
        Some(Kind::Json) => Box::new(json::Lines::new(path.into(), reader)),
        _ => Box::new(plain::Plain::new(path.into(), reader)),
    })
}

impl Iterator for Documents {
    type Item = Result<Piece>;

    /// The next piece; after an error there is none.
    fn next(&mut self) -> Option<Result<Piece>> {
        while !self.failed {
            if let Some(piece) = self.current.as_mut().and_then(Iterator::next) {
                self.failed = piece.is_err();
                return Some(piece);
            }
            let path = self.files.next()?;
            match self.open_file(&path) {
                Ok(pieces) => self.current = Some(pieces),
                Err(e) => {
                    self.failed = true;
                    return Some(Err(e));
                }
            }
        }
        None
    }
}

/// A file that counts what is read of it.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
