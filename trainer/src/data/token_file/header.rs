//! The header of a version 3 token file: its bytes, and the checks that it does not contradict itself or the file's length.

use std::path::Path;

use crate::data::error::hex;
use crate::data::{DataError, Result};

pub(super) const MAGIC: &[u8; 4] = b"1BTK";
pub(super) const OLD_MAGIC: &[u8; 4] = b"TKN2";
const VERSION: u32 = 3;
pub(super) const HEADER: usize = 192;
/// The part of the header that its checksum covers.
const CHECKED: usize = 128;

/// Whether a file that begins with `head` is a token file.
pub(in crate::data) fn is_tokens(head: &[u8]) -> bool {
    head.starts_with(MAGIC) || head.starts_with(OLD_MAGIC)
}

/// The numbers of a version 3 header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) width: u32,
    pub(super) vocab_size: u32,
    pub(super) tokenizer: [u8; 32],
    pub(super) tokens: u64,
    pub(super) documents: u64,
    pub(super) source_bytes: u64,
    pub(super) source_words: u64,
    pub(super) index_at: u64,
    pub(super) checksum: [u8; 32],
}

/// Bytes up to the next multiple of 64.
pub(super) fn padding(len: u64) -> u64 {
    len.wrapping_neg() % 64
}

impl Header {
    pub(super) fn to_bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, MAGIC);
        put(4, &VERSION.to_le_bytes());
        put(8, &self.width.to_le_bytes());
        put(12, &self.vocab_size.to_le_bytes());
        put(16, &self.tokenizer);
        put(48, &self.tokens.to_le_bytes());
        put(56, &self.documents.to_le_bytes());
        put(64, &self.source_bytes.to_le_bytes());
        put(72, &self.source_words.to_le_bytes());
        put(80, &(HEADER as u64).to_le_bytes());
        put(88, &self.index_at.to_le_bytes());
        put(96, &self.checksum);
        let checksum = blake3::hash(&bytes[..CHECKED]);
        bytes[CHECKED..CHECKED + 32].copy_from_slice(checksum.as_bytes());
        bytes
    }

    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Header> {
        let path = || path.to_owned();
        let version = if bytes.len() < 8 { VERSION } else { u32_at(bytes, 4) };
        if version != VERSION {
            return Err(DataError::Version {
                path: path(),
                expected: VERSION,
                found: version,
            });
        }
        let found = bytes.len() as u64;
        if bytes.len() < HEADER {
            return Err(DataError::Length {
                path: path(),
                what: "the header",
                expected: HEADER as u64,
                found,
            });
        }
        let computed = blake3::hash(&bytes[..CHECKED]);
        if computed != hash_at(bytes, CHECKED) {
            let expected = hex(&hash_at(bytes, CHECKED));
            return Err(DataError::Checksum {
                path: path(),
                part: "header",
                expected,
                found: hex(computed.as_bytes()),
            });
        }
        let header = Header {
            width: u32_at(bytes, 8),
            vocab_size: u32_at(bytes, 12),
            tokenizer: hash_at(bytes, 16),
            tokens: u64_at(bytes, 48),
            documents: u64_at(bytes, 56),
            source_bytes: u64_at(bytes, 64),
            source_words: u64_at(bytes, 72),
            index_at: u64_at(bytes, 88),
            checksum: hash_at(bytes, 96),
        };
        let wrong = |what, expected: String, found: String| {
            Err(DataError::Header {
                path: path(),
                what,
                expected,
                found,
            })
        };
        if header.width != 2 && header.width != 4 {
            return wrong("the id width", "2 or 4".into(), header.width.to_string());
        }
        if bytes[CHECKED + 32..HEADER].iter().any(|&b| b != 0) {
            return wrong("the reserved space", "zeros".into(), "something else".into());
        }
        if u64_at(bytes, 80) != HEADER as u64 {
            return wrong(
                "the start of the ids",
                HEADER.to_string(),
                u64_at(bytes, 80).to_string(),
            );
        }
        let end = header
            .tokens
            .checked_mul(header.width.into())
            .and_then(|len| len.checked_add(HEADER as u64));
        let index_at = end.and_then(|end| end.checked_add(padding(end)));
        if index_at != Some(header.index_at) {
            let expected = format!("the end of {} ids", header.tokens);
            return wrong("the start of the document index", expected, header.index_at.to_string());
        }
        let len = header
            .documents
            .checked_mul(8)
            .and_then(|len| len.checked_add(header.index_at));
        match len {
            Some(expected) if expected == found => Ok(header),
            _ => {
                let expected = len.unwrap_or(u64::MAX);
                Err(DataError::Length {
                    path: path(),
                    what: "its ids and documents",
                    expected,
                    found,
                })
            }
        }
    }
}

/// Bytes `at..at + 4`; callers have checked the length.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

fn hash_at(bytes: &[u8], at: usize) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(&bytes[at..at + 32]);
    out
}
