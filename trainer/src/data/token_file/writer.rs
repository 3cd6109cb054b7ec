//! Writing of a token file in one pass: ids as they come, then the document index, the header last.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::TokenFile;
use super::header::{HEADER, Header, padding};
use crate::data::{DataError, Result};

/// A token file that is being written, under a temporary name until [`TokenWriter::finish`].
pub struct TokenWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    header: Header,
    starts: Vec<u64>,
    document_at: u64,
    finished: bool,
}

impl TokenWriter {
    /// Begins a file for ids below `vocab_size`; ids take 2 bytes up to 65,536 of them.
    ///
    /// # Errors
    /// [`DataError::Exists`] unless `force`, and [`DataError::Io`] if the folder cannot be written.
    pub fn create(path: impl AsRef<Path>, vocab_size: usize, tokenizer: [u8; 32], force: bool) -> Result<TokenWriter> {
        let path = path.as_ref().to_owned();
        if path.exists() && !force {
            return Err(DataError::Exists { path });
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let temporary = path.with_file_name(name);
        let failed = |source| DataError::Io {
            path: path.clone(),
            action: "write",
            source,
        };
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&temporary).map_err(failed)?);
        // The place of the header; all zeros, it is no token file yet.
        file.write_all(&[0; HEADER]).map_err(failed)?;
        let header = Header {
            width: if vocab_size <= 1 << 16 { 2 } else { 4 },
            vocab_size: u32::try_from(vocab_size).unwrap_or(u32::MAX),
            tokenizer,
            tokens: 0,
            documents: 0,
            source_bytes: 0,
            source_words: 0,
            index_at: 0,
            checksum: [0; 32],
        };
        let (hasher, buffer, starts) = (blake3::Hasher::new(), Vec::new(), Vec::new());
        Ok(TokenWriter {
            path,
            temporary,
            file,
            hasher,
            buffer,
            header,
            starts,
            document_at: 0,
            finished: false,
        })
    }

    /// The number of tokens so far.
    pub fn tokens(&self) -> u64 {
        self.header.tokens
    }

    /// The number of documents that have ended.
    pub fn documents(&self) -> u64 {
        self.starts.len() as u64
    }

    /// Adds ids to the current document.
    ///
    /// # Errors
    /// [`DataError::IdOutOfRange`] and [`DataError::Io`].
    pub fn push(&mut self, ids: &[u32]) -> Result<()> {
        self.buffer.clear();
        for (position, &id) in ids.iter().enumerate() {
            if id >= self.header.vocab_size {
                let vocab_size = self.header.vocab_size.into();
                let position = self.header.tokens + position as u64;
                return Err(DataError::IdOutOfRange {
                    path: self.path.clone(),
                    position,
                    id,
                    vocab_size,
                });
            }
            // Below the vocabulary size, an id of width 2 has its two upper bytes zero.
            self.buffer
                .extend_from_slice(&id.to_le_bytes()[..self.header.width as usize]);
        }
        self.header.tokens += ids.len() as u64;
        self.write_buffer()
    }

    fn write_buffer(&mut self) -> Result<()> {
        self.hasher.update(&self.buffer);
        self.file.write_all(&self.buffer).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> DataError {
        DataError::Io {
            path: self.path.clone(),
            action: "write",
            source,
        }
    }

    /// Ends the current document; one without tokens is not counted.
    pub fn end_document(&mut self) {
        if self.header.tokens > self.document_at {
            self.starts.push(self.document_at);
            self.document_at = self.header.tokens;
        }
    }

    /// Writes index and header, flushes to disk, renames, and opens the file. `source_bytes` and `source_words` are of
    /// the original text.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn finish(mut self, source_bytes: u64, source_words: u64) -> Result<TokenFile> {
        self.end_document();
        let end = HEADER as u64 + self.header.tokens * u64::from(self.header.width);
        self.buffer = vec![0; padding(end) as usize];
        self.header.index_at = end + padding(end);
        self.buffer
            .extend(self.starts.iter().flat_map(|start| start.to_le_bytes()));
        self.write_buffer()?;
        self.header.documents = self.starts.len() as u64;
        self.header.source_bytes = source_bytes;
        self.header.source_words = source_words;
        self.header.checksum = *self.hasher.finalize().as_bytes();
        let header = self.header.to_bytes();
        let written = (|| {
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&header)?;
            self.file.flush()?;
            self.file.get_ref().sync_all()?;
            std::fs::rename(&self.temporary, &self.path)
        })();
        written.map_err(|source| self.failed(source))?;
        self.finished = true;
        // So that the new name survives a power cut; not every system lets a folder be opened.
        if let Some(folder) = self.path.parent().and_then(|parent| File::open(parent).ok()) {
            let _ = folder.sync_all();
        }
        TokenFile::open(&self.path)
    }
}

impl Drop for TokenWriter {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}
