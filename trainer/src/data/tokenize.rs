//! Text to a token file, on all threads, checked by decoding.
//!
//! Documents are read in order and cut at borders that do not change their ids
//! ([`onebit_model::tokenizer::Tokenizer::border`]); the pieces of a few megabytes at a time are encoded and decoded again
//! in parallel and written in order. After each document stands the tokenizer's end-of-text token, unless the document
//! ends with it already (as a line does for a word-level tokenizer, whose end of line is that token). A document without
//! text is passed over.

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onebit_model::tokenizer::Tokenizer;
use rayon::prelude::*;

use super::text::{Documents, no_text};
use super::{DataError, Result, TokenWriter, WindowOrder};

/// Text that is gathered of one document before it is cut.
const STRETCH: usize = 2 << 20;
/// Pieces that one thread encodes.
const PIECE: usize = 128 << 10;
/// Text that is encoded at once by all threads.
const BATCH: usize = 8 << 20;
/// A border is not sought closer than this to the end of what has been read.
const MARGIN: usize = 1 << 10;

/// How to tokenize.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizeOptions {
    /// Write over an existing file.
    pub force: bool,
    /// Decode everything again and compare.
    pub verify: bool,
    /// Refuse a result in which no window of this length fits.
    pub seq_len: Option<usize>,
}

impl Default for TokenizeOptions {
    fn default() -> TokenizeOptions {
        TokenizeOptions {
            force: false,
            verify: true,
            seq_len: None,
        }
    }
}

/// How far [`tokenize`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input files read.
    pub bytes_read: u64,
    /// Bytes of the input files.
    pub bytes_total: u64,
    /// Tokens written.
    pub tokens: u64,
    /// Documents written.
    pub documents: u64,
}

/// What [`tokenize`] wrote.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// The token file.
    pub path: PathBuf,
    /// Tokens in it, end-of-text tokens included.
    pub tokens: u64,
    /// Documents in it.
    pub documents: u64,
    /// Bytes of the text.
    pub source_bytes: u64,
    /// Words of the text, with one for the end of each line.
    pub source_words: u64,
    /// Tokens that stand for something outside the vocabulary (in a word-level tokenizer also `<unk>` in the text itself).
    pub unknown: u64,
}

/// Words of `text` as perplexity per word counts them: what lies between white space, and one for each line's end. The
/// last line counts with or without a newline.
pub fn count_words(text: &str) -> u64 {
    words_and_newlines(text) + u64::from(!text.is_empty() && !text.ends_with('\n'))
}

fn words_and_newlines(text: &str) -> u64 {
    text.split_whitespace().count() as u64 + text.bytes().filter(|&b| b == b'\n').count() as u64
}

/// A piece of a document, to be encoded.
struct Job {
    text: String,
    ends_document: bool,
    path: Arc<Path>,
    /// Bytes of the document before it.
    offset: u64,
}

/// A piece, encoded.
struct Encoded {
    ids: Vec<u32>,
    words: u64,
    unknown: u64,
}

/// Tokenizes the files and folders `inputs` into the token file `output`. `progress` is called after each batch; if it
/// breaks, nothing is written.
///
/// # Errors
/// [`DataError`]: from reading, [`DataError::RoundTrip`] where decoding does not give the text back,
/// [`DataError::WindowTooLong`] if `seq_len` does not fit, [`DataError::Interrupted`].
pub fn tokenize(
    inputs: &[PathBuf],
    tokenizer: &Tokenizer,
    output: &Path,
    options: &TokenizeOptions,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Summary> {
    let mut documents = Documents::open(inputs)?;
    let writer = TokenWriter::create(output, tokenizer.vocab_size(), tokenizer.fingerprint(), options.force)?;
    let mut sink = Sink {
        tokenizer,
        writer,
        last: None,
        last_newline: true,
        bytes: 0,
        words: 0,
        unknown: 0,
    };
    let mut jobs = Vec::new();
    let mut waiting = 0;
    // Text of the current document that is not cut yet, where it begins, and the length at which to seek a border.
    let (mut text, mut offset, mut reach) = (String::new(), 0, STRETCH);
    while let Some(piece) = documents.next() {
        let piece = piece?;
        // Most documents are a single piece: no copy.
        if text.is_empty() {
            text = piece.text;
        } else {
            text.push_str(&piece.text);
        }
        let cut = match piece.ends_document {
            true => Some(text.len()),
            false if text.len() < reach => None,
            false => tokenizer
                .border(&text, text.len() - MARGIN.min(text.len()))
                .filter(|&at| at > 0),
        };
        let Some(cut) = cut else {
            // Not until there is twice as much, so that a text without borders is not searched again and again.
            reach = if text.len() < reach { reach } else { 2 * text.len() };
            continue;
        };
        let rest = text.split_off(cut);
        waiting += text.len();
        cut_jobs(tokenizer, &text, offset, piece.ends_document, &piece.path, &mut jobs);
        offset = if piece.ends_document { 0 } else { offset + cut as u64 };
        (text, reach) = (rest, STRETCH);
        if waiting >= BATCH || jobs.len() >= BATCH / 256 {
            sink.encode(&mut jobs, options.verify)?;
            waiting = 0;
            let so_far = Progress {
                bytes_read: documents.bytes_read(),
                bytes_total: documents.bytes_total(),
                tokens: sink.writer.tokens(),
                documents: sink.writer.documents(),
            };
            if progress(&so_far).is_break() {
                return Err(DataError::Interrupted);
            }
        }
    }
    sink.encode(&mut jobs, options.verify)?;
    let (tokens, documents) = (sink.writer.tokens(), sink.writer.documents());
    if tokens == 0 {
        return Err(no_text(inputs));
    }
    if let Some(seq_len) = options.seq_len {
        WindowOrder::new(tokens as usize, seq_len, 0)?;
    }
    let Sink {
        bytes: source_bytes,
        words: source_words,
        unknown,
        writer,
        ..
    } = sink;
    writer.finish(source_bytes, source_words)?;
    Ok(Summary {
        path: output.to_owned(),
        tokens,
        documents,
        source_bytes,
        source_words,
        unknown,
    })
}

fn cut_jobs(tokenizer: &Tokenizer, text: &str, offset: u64, ends: bool, path: &Arc<Path>, jobs: &mut Vec<Job>) {
    let mut offset = offset;
    let pieces = tokenizer.split(text, PIECE);
    let count = pieces.len();
    for (i, piece) in pieces.into_iter().enumerate() {
        let ends_document = ends && i + 1 == count;
        jobs.push(Job {
            text: piece.to_owned(),
            ends_document,
            path: path.clone(),
            offset,
        });
        offset += piece.len() as u64;
    }
    if count == 0 && ends {
        jobs.push(Job {
            text: String::new(),
            ends_document: true,
            path: path.clone(),
            offset,
        });
    }
}

/// Where encoded pieces go, in order.
struct Sink<'a> {
    tokenizer: &'a Tokenizer,
    writer: TokenWriter,
    /// The last id of the current document.
    last: Option<u32>,
    /// Whether the current document, so far, ends at the end of a line.
    last_newline: bool,
    bytes: u64,
    words: u64,
    unknown: u64,
}

impl Sink<'_> {
    fn encode(&mut self, jobs: &mut Vec<Job>, verify: bool) -> Result<()> {
        let tokenizer = self.tokenizer;
        let encoded = jobs
            .par_iter()
            .map(|job| encode(tokenizer, job, verify))
            .collect::<Result<Vec<_>>>()?;
        for (job, piece) in jobs.drain(..).zip(encoded) {
            self.writer.push(&piece.ids)?;
            self.bytes += job.text.len() as u64;
            self.words += piece.words;
            self.unknown += piece.unknown;
            self.last = piece.ids.last().copied().or(self.last);
            if !job.text.is_empty() {
                self.last_newline = job.text.ends_with('\n');
            }
            if job.ends_document {
                self.end_document()?;
            }
        }
        Ok(())
    }

    fn end_document(&mut self) -> Result<()> {
        self.words += u64::from(!self.last_newline);
        self.last_newline = true;
        if let (Some(last), Some(eos)) = (self.last.take(), self.tokenizer.eos())
            && last != eos
        {
            self.writer.push(&[eos])?;
        }
        self.writer.end_document();
        Ok(())
    }
}

fn encode(tokenizer: &Tokenizer, job: &Job, verify: bool) -> Result<Encoded> {
    let ids = tokenizer.encode(&job.text)?;
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
