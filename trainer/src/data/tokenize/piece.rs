//! One piece of a text: encoded, and compared with what its ids decode to.

use std::path::Path;
use std::sync::Arc;

use onebit_model::tokenizer::{BpeDropout, Place, Tokenizer};

use super::{PIECE, words_and_newlines};
use crate::data::{DataError, Result};

/// A piece of a document, to be encoded.
pub(super) struct Job {
    pub(super) text: String,
    pub(super) ends_document: bool,
    pub(super) path: Arc<Path>,
    /// Bytes of the document before it.
    pub(super) offset: u64,
    /// Where it stands in the whole text.
    pub(super) place: Place,
}

/// A piece, encoded.
pub(super) struct Encoded {
    pub(super) ids: Vec<u32>,
    pub(super) words: u64,
    pub(super) unknown: u64,
}

/// Encodes a piece, by BPE-dropout where there is one.
pub(super) fn encode(
    tokenizer: &Tokenizer,
    dropout: Option<&BpeDropout<'_>>,
    job: &Job,
    verify: bool,
) -> Result<Encoded> {
    let ids = match dropout {
        Some(dropout) => dropout.encode(&job.text, job.place)?,
        None => tokenizer.encode(&job.text)?,
    };
    if verify {
        check(tokenizer, job, &ids)?;
    }
    let unknown = tokenizer
        .unknown()
        .map_or(0, |unknown| ids.iter().filter(|&&id| id == unknown).count() as u64);
    Ok(Encoded {
        words: words_and_newlines(&job.text),
        unknown,
        ids,
    })
}

/// The ids of a whole document: those that `onebit tokenize` writes for it, with the end-of-text token behind, unless it ends with it already. None, if it has no text.
///
/// # Errors
/// The tokenizer's.
pub(crate) fn document_ids(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for piece in tokenizer.split(text, PIECE) {
        ids.extend(tokenizer.encode(piece)?);
    }
    if let (Some(last), Some(eos)) = (ids.last(), tokenizer.eos())
        && *last != eos
    {
        ids.push(eos);
    }
    Ok(ids)
}

/// Compares the decoded ids with the text: byte for byte or, for a tokenizer that cannot promise that, word for word after
/// its own normaliser, a word outside the vocabulary being equal to anything.
fn check(tokenizer: &Tokenizer, job: &Job, ids: &[u32]) -> Result<()> {
    let decoded = tokenizer.decode_bytes(ids)?;
    if decoded == job.text.as_bytes() {
        return Ok(());
    }
    let mut at = decoded
        .iter()
        .zip(job.text.as_bytes())
        .take_while(|(a, b)| a == b)
        .count();
    if !tokenizer.is_lossless() {
        let plain = |text: &str| -> Result<String> { Ok(tokenizer.normalize(text)?.replace('\u{2581}', " ")) };
        let (expected, found) = (plain(&job.text)?, plain(&String::from_utf8_lossy(&decoded))?);
        let unknown = tokenizer.unknown().and_then(|id| tokenizer.token_of(id));
        let (mut expected, mut found) = (expected.split_whitespace(), found.split_whitespace());
        loop {
            match (expected.next(), found.next()) {
                (None, None) => return Ok(()),
                (Some(a), Some(b)) if a == b || Some(b) == unknown.as_deref() => {}
                // The place of the word in the text, if the normaliser left it as it was.
                (a, _) => {
                    at = a
                        .and_then(|word| job.text[at_char(&job.text, at)..].find(word))
                        .map_or(at, |i| i + at);
                    break;
                }
            }
        }
    }
    let around = |bytes: &[u8]| {
        let end = (at + 24).min(bytes.len());
        String::from_utf8_lossy(&bytes[at.min(end)..end]).into_owned()
    };
    Err(DataError::RoundTrip {
        path: job.path.to_path_buf(),
        offset: job.offset + at as u64,
        expected: around(job.text.as_bytes()),
        found: around(&decoded),
    })
}

fn at_char(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at)
}
