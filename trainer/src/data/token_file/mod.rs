//! `*.tokens`: a tokenised corpus in one memory-mapped file.
//!
//! Version 3, little endian, 192 bytes of header:
//! ```text
//!   0  magic `1BTK`            48  token count  u64        96  blake3 of ids and document index
//!   4  version 3       u32     56  document count u64     128  blake3 of bytes 0..128
//!   8  id width 2 | 4  u32     64  source bytes u64       160  zeros
//!  12  vocab size      u32     72  source words u64       192  ids
//!  16  tokenizer hash  [32]    80  ids at  u64 = 192
//!                              88  document index at  u64, a multiple of 64: start of each document, u64
//! ```
//! The index follows the ids, so that a corpus of any size is written in one pass. `source bytes` and `source words` are
//! of the original text (words between white space, and one for each line's end): the units of bits per byte and of
//! word perplexity. The header's checksum is compared on opening; the long one by [`TokenFile::verify`].
//!
//! The older `TKN2` is read too: magic, token count u64, ids u32 from byte 12.

mod header;
#[cfg(test)]
mod tests;
mod writer;

use std::ops::Range;
use std::path::{Path, PathBuf};

use onebit_model::files::open_to_map;

use super::error::hex;
use super::mmap::Map;
use super::{DataError, Result};

pub(super) use header::is_tokens;
use header::{HEADER, Header, MAGIC, OLD_MAGIC, u32_at, u64_at};
pub use writer::TokenWriter;

/// Bytes of the header of `TKN2`.
const OLD_HEADER: usize = 12;

/// A tokenised corpus, open for reading.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    map: Map,
    tokens: usize,
    /// Where the ids begin.
    ids_at: usize,
    width: usize,
    /// `None` for `TKN2`.
    header: Option<Header>,
}

impl TokenFile {
    /// Opens a token file and compares every length in it with the file's.
    ///
    /// # Errors
    /// [`DataError`], naming the file and what is wrong with it.
    pub fn open(path: impl AsRef<Path>) -> Result<TokenFile> {
        let path = path.as_ref().to_owned();
        let failed = |source| DataError::Io {
            path: path.clone(),
            action: "read",
            source,
        };
        let map = Map::new(open_to_map(&path).map_err(failed)?).map_err(failed)?;
        Self::parse(path, map)
    }

    /// Reads a token file that is already in memory; `label` stands for its path in errors.
    ///
    /// # Errors
    /// Those of [`Self::open`], but for the system's.
    pub fn from_bytes(bytes: Vec<u8>, label: impl AsRef<Path>) -> Result<TokenFile> {
        Self::parse(label.as_ref().to_owned(), Map::Memory(bytes))
    }

    /// A token file of `ids` in memory, one document; `label` stands for its path in errors.
    ///
    /// # Errors
    /// None in practice: the file is made here.
    pub fn from_ids(ids: &[u32], label: impl AsRef<Path>) -> Result<TokenFile> {
        let mut bytes = Vec::with_capacity(OLD_HEADER + 4 * ids.len());
        bytes.extend(OLD_MAGIC);
        bytes.extend((ids.len() as u64).to_le_bytes());
        bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
        Self::from_bytes(bytes, label)
    }

    fn parse(path: PathBuf, map: Map) -> Result<TokenFile> {
        let bytes = map.bytes();
        if bytes.starts_with(MAGIC) {
            let header = Header::parse(&path, bytes)?;
            let (tokens, width) = (header.tokens as usize, header.width as usize);
            return Ok(TokenFile {
                path,
                map,
                tokens,
                ids_at: HEADER,
                width,
                header: Some(header),
            });
        }
        if !bytes.starts_with(OLD_MAGIC) {
            let found = format!("`{}`", bytes[..bytes.len().min(4)].escape_ascii());
            return Err(DataError::NotTokens { path, found });
        }
        let found = bytes.len() as u64;
        if bytes.len() < OLD_HEADER {
            return Err(DataError::Length {
                path,
                what: "the header",
                expected: OLD_HEADER as u64,
                found,
            });
        }
        let tokens = u64_at(bytes, 4);
        let expected = tokens.saturating_mul(4).saturating_add(OLD_HEADER as u64);
        if expected != found {
            return Err(DataError::Length {
                path,
                what: "its ids",
                expected,
                found,
            });
        }
        Ok(TokenFile {
            path,
            map,
            tokens: tokens as usize,
            ids_at: OLD_HEADER,
            width: 4,
            header: None,
        })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.tokens
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// Bytes of one id: 2 or 4.
    pub fn id_width(&self) -> usize {
        self.width
    }

    /// Ids are below this; `None` for `TKN2`, which does not say.
    pub fn vocab_size(&self) -> Option<usize> {
        self.header.as_ref().map(|h| h.vocab_size as usize)
    }

    /// The fingerprint of the tokenizer; `None` for `TKN2`.
    pub fn tokenizer(&self) -> Option<[u8; 32]> {
        self.header.as_ref().map(|h| h.tokenizer)
    }

    /// Bytes of the original text; `None` for `TKN2`.
    pub fn source_bytes(&self) -> Option<u64> {
        self.header.as_ref().map(|h| h.source_bytes)
    }

    /// Words of the original text, with one for the end of each line; `None` for `TKN2`.
    pub fn source_words(&self) -> Option<u64> {
        self.header.as_ref().map(|h| h.source_words)
    }

    /// The number of documents; a `TKN2` file counts as one.
    pub fn documents(&self) -> usize {
        self.header.as_ref().map_or(1, |h| h.documents as usize)
    }

    /// The tokens of document `index`, the end-of-text token included.
    ///
    /// # Errors
    /// [`DataError::OutOfRange`], or [`DataError::Header`] if the index is damaged.
    pub fn document(&self, index: usize) -> Result<Range<usize>> {
        let count = self.documents();
        if index >= count {
            let (start, end) = (index as u64, index as u64 + 1);
            let path = self.path.clone();
            return Err(DataError::OutOfRange {
                path,
                what: "documents",
                start,
                end,
                found: count as u64,
            });
        }
        let Some(header) = &self.header else {
            return Ok(0..self.tokens);
        };
        self.unchanged()?;
        let start = |i: usize| u64_at(self.map.bytes(), header.index_at as usize + 8 * i);
        let first = start(index);
        let end = if index + 1 < count {
            start(index + 1)
        } else {
            header.tokens
        };
        if first > end || end > header.tokens || (index == 0 && first != 0) {
            let expected = format!("inside 0..{}", header.tokens);
            let found = format!("{first}..{end}");
            return Err(DataError::Header {
                path: self.path.clone(),
                what: "the document index",
                expected,
                found,
            });
        }
        Ok(first as usize..end as usize)
    }

    /// Puts the ids of `range` into `out`, which is cleared first.
    ///
    /// # Errors
    /// [`DataError::OutOfRange`], and [`DataError::IdOutOfRange`] for an id outside the file's own vocabulary.
    pub fn get(&self, range: Range<usize>, out: &mut Vec<u32>) -> Result<()> {
        out.clear();
        if range.start > range.end || range.end > self.tokens {
            let (start, end) = (range.start as u64, range.end as u64);
            let path = self.path.clone();
            return Err(DataError::OutOfRange {
                path,
                what: "tokens",
                start,
                end,
                found: self.tokens as u64,
            });
        }
        self.unchanged()?;
        let bytes = &self.map.bytes()[self.ids_at + range.start * self.width..self.ids_at + range.end * self.width];
        // The ids begin at a multiple of their width in a page-aligned map, so the casts hold; the copy is for safety.
        match self.width {
            2 => match bytemuck::try_cast_slice::<u8, u16>(bytes) {
                Ok(ids) => out.extend(ids.iter().map(|id| u32::from(u16::from_le(*id)))),
                Err(_) => out.extend(
                    bytes
                        .chunks_exact(2)
                        .map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))),
                ),
            },
            _ => match bytemuck::try_cast_slice::<u8, u32>(bytes) {
                Ok(ids) => out.extend(ids.iter().map(|id| u32::from_le(*id))),
                Err(_) => out.extend(bytes.chunks_exact(4).map(|b| u32_at(b, 0))),
            },
        }
        match self.vocab_size() {
            Some(vocab_size) => self.check_ids(range.start, out, vocab_size),
            None => Ok(()),
        }
    }

    fn unchanged(&self) -> Result<()> {
        self.map.unchanged().map_err(|source| DataError::Io {
            path: self.path.clone(),
            action: "read",
            source,
        })
    }

    fn check_ids(&self, start: usize, ids: &[u32], vocab_size: usize) -> Result<()> {
        match ids.iter().position(|&id| id as usize >= vocab_size) {
            Some(at) => Err(DataError::IdOutOfRange {
                path: self.path.clone(),
                position: (start + at) as u64,
                id: ids[at],
                vocab_size: vocab_size as u64,
            }),
            None => Ok(()),
        }
    }

    /// Whether a model with `vocab_size` tokens and the tokenizer of that fingerprint can read the file. The ids of a
    /// `TKN2` file, which names no vocabulary, are all looked at.
    ///
    /// # Errors
    /// [`DataError::IdOutOfRange`] and [`DataError::Tokenizer`].
    pub fn check_for(&self, vocab_size: usize, tokenizer: Option<&[u8; 32]>) -> Result<()> {
        if let (Some(expected), Some(found)) = (tokenizer, self.tokenizer())
            && *expected != found
        {
            let (expected, found) = (hex(expected), hex(&found));
            return Err(DataError::Tokenizer {
                path: self.path.clone(),
                expected,
                found,
            });
        }
        match self.vocab_size() {
            Some(own) if own <= vocab_size => Ok(()),
            _ => self.for_each_block(|start, ids| self.check_ids(start, ids, vocab_size)),
        }
    }

    /// Reads the whole file: the checksum of ids and index, the order of the documents, and every id.
    ///
    /// # Errors
    /// [`DataError::Checksum`], [`DataError::Header`] and [`DataError::IdOutOfRange`].
    pub fn verify(&self) -> Result<()> {
        let Some(header) = &self.header else { return Ok(()) };
        self.unchanged()?;
        let found = blake3::hash(&self.map.bytes()[HEADER..]);
        if found != header.checksum {
            let (expected, found) = (hex(&header.checksum), hex(found.as_bytes()));
            return Err(DataError::Checksum {
                path: self.path.clone(),
                part: "content",
                expected,
                found,
            });
        }
        (0..self.documents()).try_for_each(|i| self.document(i).map(drop))?;
        self.for_each_block(|_, _| Ok(()))
    }

    fn for_each_block(&self, mut visit: impl FnMut(usize, &[u32]) -> Result<()>) -> Result<()> {
        const BLOCK: usize = 1 << 16;
        let mut ids = Vec::with_capacity(BLOCK.min(self.tokens));
        for start in (0..self.tokens).step_by(BLOCK) {
            self.get(start..(start + BLOCK).min(self.tokens), &mut ids)?;
            visit(start, &ids)?;
        }
        Ok(())
    }
}
