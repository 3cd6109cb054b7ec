//! Decoding of ids that arrive one by one.
//!
//! A character may be spread over several tokens, so a token's text is not always known when it arrives. Where each token has bytes of its
//! own (byte-level, SentencePiece with byte fallback), bytes are held back until they complete a character. For any other decoder the ids
//! since the last output are decoded together with the ids before them (which settle spaces at the seam), and what the
//! longer text adds is new; a text that ends in U+FFFD may still become a character and waits.

use super::decoding::{Decoding, strip_start};
use super::{Result, Tokenizer};
use crate::bpe::take_complete;

/// More ids than any decoder needs for one character (byte fallback spends one id a byte): after so many, a U+FFFD
/// at the end is the text itself.
const MOST_PENDING: usize = 4;

/// Turns ids into text as they come; all outputs joined are the text of all ids.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// Tokens with bytes of their own: the bytes of a character that is not complete.
    bytes: Vec<u8>,
    /// Spaces that the start of the text still loses.
    strip: usize,
    /// Otherwise: ids already output that the next ones are decoded with, then ids that wait.
    ids: Vec<u32>,
    settled: usize,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> TextStream<'a> {
        TextStream {
            tokenizer,
            skip_special,
            bytes: Vec::new(),
            strip: tokenizer.decoding.strip(),
            ids: Vec::new(),
            settled: 0,
        }
    }

    /// For a text that goes on from the tokens `before`: what is between both, such as a space, belongs to what comes.
    pub(super) fn behind(mut self, before: &[u32]) -> TextStream<'a> {
        let with_text = before.iter().rev().filter(|&&id| !self.tokenizer.is_special(id));
        let mut last: Vec<u32> = with_text.take(MOST_PENDING).copied().collect();
        last.reverse();
        if !last.is_empty() {
            self.strip = 0;
        }
        if self.tokenizer.decoding == Decoding::Library {
            self.settled = last.len();
            self.ids = last;
        }
        self
    }

    /// The text that `id` completes; empty while a character is incomplete.
    ///
    /// # Errors
    /// [`super::TokenizerError::UnknownId`] for an id outside the vocabulary; the stream stays as it was.
    pub fn push(&mut self, id: u32) -> Result<String> {
        if self.skip_special && self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        if self.tokenizer.decoding != Decoding::Library {
            self.tokenizer.push_bytes(id, &mut self.bytes)?;
            if self.strip > 0 {
                strip_start(&mut self.bytes, &mut self.strip);
            }
            let mut text = String::new();
            take_complete(&mut self.bytes, &mut text);
            return Ok(text);
        }
        self.ids.push(id);
        let text = self.take_new(self.ids.len() - self.settled <= MOST_PENDING);
        if text.is_err() {
            self.ids.pop();
        }
        text
    }

    /// What is left at the end of the text: an incomplete character is output as U+FFFD.
    ///
    /// # Errors
    /// [`super::TokenizerError::Decode`] from the library's decoder.
    pub fn finish(mut self) -> Result<String> {
        match self.tokenizer.decoding {
            Decoding::Library => self.take_new(false),
            _ => Ok(String::from_utf8_lossy(&self.bytes).into_owned()),
        }
    }

    fn take_new(&mut self, wait: bool) -> Result<String> {
        let before = self.tokenizer.decode_text(&self.ids[..self.settled])?;
        let now = self.tokenizer.decode_text(&self.ids)?;
        if wait && now.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        // A decoder may rewrite what it gave before; then only what follows the common part can be added.
        let common = before.bytes().zip(now.bytes()).take_while(|(a, b)| a == b).count();
        let text = now[now.floor_char_boundary(common)..].to_owned();
        if !text.is_empty() {
            self.ids.drain(..self.settled);
        }
        self.settled = self.ids.len();
        Ok(text)
    }
}
