//! Tokenizers from files and folders, and into files.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::{Result, Tokenizer, TokenizerError};
use crate::files::{TOKENIZER_FILE, open_regular};

/// The files of a model's folder that a tokenizer can be read from, the better one first.
const FILES: [&str; 2] = [TOKENIZER_FILE, "tokenizer.model"];

impl Tokenizer {
    /// Reads a `tokenizer.json`, or a SentencePiece model if the name ends in `.model`. A folder is read as by [`from_dir`](Self::from_dir).
    ///
    /// # Errors
    /// [`TokenizerError::Read`], and [`TokenizerError::Invalid`] or [`TokenizerError::SentencePiece`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Tokenizer> {
        let path = path.as_ref();
        if path.is_dir() {
            return Self::from_dir(path);
        }
        let mut bytes = Vec::new();
        let read = open_regular(path).and_then(|mut file| file.read_to_end(&mut bytes));
        read.map_err(|source| TokenizerError::Read {
            path: path.to_owned(),
            source,
        })?;
        match path.extension().is_some_and(|extension| extension == "model") {
            true => Self::from_sentencepiece(&bytes),
            false => Self::parse(bytes, &path.display().to_string()),
        }
    }

    /// Reads the tokenizer of a model's folder: its `tokenizer.json` or, without one, its `tokenizer.model`.
    ///
    /// # Errors
    /// [`TokenizerError::Missing`] if there is neither; as [`from_file`](Self::from_file).
    pub fn from_dir(folder: impl AsRef<Path>) -> Result<Tokenizer> {
        let folder = folder.as_ref();
        match Self::find_in(folder) {
            Some(path) => Self::from_file(path),
            None => Err(TokenizerError::Missing {
                folder: folder.to_owned(),
            }),
        }
    }

    /// The file of a model's folder that [`from_dir`](Self::from_dir) reads, if there is one.
    pub fn find_in(folder: impl AsRef<Path>) -> Option<PathBuf> {
        let mut files = FILES.iter().map(|name| folder.as_ref().join(name));
        files.find(|path| path.is_file())
    }

    /// Writes the `tokenizer.json`: a temporary file beside it, flushed to disk, then renamed.
    ///
    /// # Errors
    /// [`TokenizerError::Write`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let failed = |source| TokenizerError::Write {
            path: path.to_owned(),
            source,
        };
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let temporary = path.with_file_name(name);
        let written = std::fs::File::create(&temporary)
            .and_then(|mut file| file.write_all(&self.json).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&temporary, path));
        written.map_err(|source| {
            let _ = std::fs::remove_file(&temporary);
            failed(source)
        })
    }
}
