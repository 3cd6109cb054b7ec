//! Text to a token file, on all threads, checked by decoding.
//!
//! Documents are read in order and cut at borders that do not change their ids
//! ([`onebit_model::tokenizer::Tokenizer::border`]); the pieces of a few megabytes at a time are encoded and decoded again
//! in parallel and written in order. After each document stands the tokenizer's end-of-text token, unless the document
//! ends with it already (as a line does for a word-level tokenizer, whose end of line is that token). A document without
//! text is passed over.
//!
//! With BPE-dropout ([`BpeDropoutOptions`]) the text is gone through several times, each time in other tokens, and the
//! passes stand one behind the other in the file. A draw depends on the seed, the pass and the byte of the text where a
//! word begins, not on pieces or threads. To training it is a longer corpus: windows are shuffled over all passes, memory
//! is mapped, and a resumed run sees the tokens that it would have seen.

mod piece;
#[cfg(test)]
mod tests;

use std::num::NonZeroU16;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onebit_model::tokenizer::{BpeDropout, Place, Tokenizer};
use rayon::prelude::*;

pub(crate) use piece::document_ids;
use piece::{Job, encode};

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

/// Which merges to leave out, and how often to go through the text: see [`BpeDropout`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct BpeDropoutOptions {
    /// The probability of each merge.
    pub p: f32,
    /// Seed of the draws.
    pub seed: u64,
    /// Passes over the text.
    pub passes: NonZeroU16,
}

/// How to tokenize.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenizeOptions {
    /// Write over an existing file.
    pub force: bool,
    /// Decode everything again and compare.
    pub verify: bool,
    /// Refuse a result in which no window of this length fits.
    pub seq_len: Option<usize>,
    /// BPE-dropout; without it the text is gone through once and divided as ever.
    pub dropout: Option<BpeDropoutOptions>,
}

impl Default for TokenizeOptions {
    fn default() -> TokenizeOptions {
        TokenizeOptions {
            force: false,
            verify: true,
            seq_len: None,
            dropout: None,
        }
    }
}

/// How far [`tokenize`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input files read, in all passes.
    pub bytes_read: u64,
    /// Bytes of the input files, times the passes.
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
    /// Documents in it, each counted in each pass.
    pub documents: u64,
    /// Bytes of the text, times the passes.
    pub source_bytes: u64,
    /// Words of the text, with one for the end of each line, times the passes.
    pub source_words: u64,
    /// Tokens that stand for something outside the vocabulary (in a word-level tokenizer also `<unk>` in the text itself).
    pub unknown: u64,
}

pub use onebit_model::evaluation::count_words;

fn words_and_newlines(text: &str) -> u64 {
    text.split_whitespace().count() as u64 + text.bytes().filter(|&b| b == b'\n').count() as u64
}

/// Tokenizes the files and folders `inputs` into the token file `output`. `progress` is called after each batch; if it
/// breaks, nothing is written.
///
/// # Errors
/// [`DataError`]: from reading, [`DataError::RoundTrip`] where decoding does not give the text back,
/// [`DataError::WindowTooLong`] if `seq_len` does not fit, [`DataError::Interrupted`]; those of [`BpeDropout::new`].
pub fn tokenize(
    inputs: &[PathBuf],
    tokenizer: &Tokenizer,
    output: &Path,
    options: &TokenizeOptions,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Summary> {
    let mut documents = Documents::open(inputs)?;
    let dropout = options
        .dropout
        .map(|drop| BpeDropout::new(tokenizer, drop.p, drop.seed))
        .transpose()?;
    let writer = TokenWriter::create(output, tokenizer.vocab_size(), tokenizer.fingerprint(), options.force)?;
    let mut sink = Sink {
        tokenizer,
        dropout,
        writer,
        last: None,
        last_newline: true,
        bytes: 0,
        words: 0,
        unknown: 0,
    };
    let passes = options.dropout.map_or(1, |drop| drop.passes.get());
    for pass in 0..passes {
        if pass > 0 {
            documents = Documents::open(inputs)?;
        }
        sink.go_through(&mut documents, pass, passes, options.verify, progress)?;
    }
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

/// Where a text to be cut begins.
struct Start<'a> {
    /// Bytes of its document before it.
    offset: u64,
    /// Pass, and bytes of the pass before it.
    place: Place,
    path: &'a Arc<Path>,
}

fn cut_jobs(tokenizer: &Tokenizer, text: &str, start: &Start<'_>, ends: bool, jobs: &mut Vec<Job>) {
    let pieces = tokenizer.split(text, PIECE);
    let count = pieces.len();
    let mut job = |text: &str, before: u64, ends_document: bool| {
        let byte = start.place.byte + before;
        jobs.push(Job {
            text: text.to_owned(),
            ends_document,
            path: start.path.clone(),
            offset: start.offset + before,
            place: Place { byte, ..start.place },
        });
    };
    let mut before = 0;
    for (i, piece) in pieces.into_iter().enumerate() {
        job(piece, before, ends && i + 1 == count);
        before += piece.len() as u64;
    }
    if count == 0 && ends {
        job("", 0, true);
    }
}

/// Where encoded pieces go, in order.
struct Sink<'a> {
    tokenizer: &'a Tokenizer,
    dropout: Option<BpeDropout<'a>>,
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
    /// One pass over the text: documents are read, cut and encoded.
    fn go_through(
        &mut self,
        documents: &mut Documents,
        pass: u16,
        passes: u16,
        verify: bool,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut jobs = Vec::new();
        let mut waiting = 0;
        // Text of the current document that is not cut yet, where it begins in the document and in the pass, and the length at which to seek a
        // border.
        let (mut text, mut offset, mut reach) = (String::new(), 0, STRETCH);
        let mut place = Place { pass, byte: 0 };
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
                false => self
                    .tokenizer
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
            let start = Start {
                offset,
                place,
                path: &piece.path,
            };
            cut_jobs(self.tokenizer, &text, &start, piece.ends_document, &mut jobs);
            offset = if piece.ends_document { 0 } else { offset + cut as u64 };
            place.byte += cut as u64;
            (text, reach) = (rest, STRETCH);
            if waiting >= BATCH || jobs.len() >= BATCH / 256 {
                self.encode(&mut jobs, verify)?;
                waiting = 0;
                self.report(documents, pass, passes, progress)?;
            }
        }
        self.encode(&mut jobs, verify)?;
        // A short text is no batch, and many passes over it take a while all the same.
        match pass + 1 < passes {
            true => self.report(documents, pass, passes, progress),
            false => Ok(()),
        }
    }

    fn report(
        &self,
        documents: &Documents,
        pass: u16,
        passes: u16,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        let so_far = Progress {
            bytes_read: u64::from(pass) * documents.bytes_total() + documents.bytes_read(),
            bytes_total: u64::from(passes) * documents.bytes_total(),
            tokens: self.writer.tokens(),
            documents: self.writer.documents(),
        };
        match progress(&so_far) {
            ControlFlow::Break(()) => Err(DataError::Interrupted),
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    fn encode(&mut self, jobs: &mut Vec<Job>, verify: bool) -> Result<()> {
        let (tokenizer, dropout) = (self.tokenizer, self.dropout.as_ref());
        let encoded = jobs
            .par_iter()
            .map(|job| encode(tokenizer, dropout, job, verify))
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
