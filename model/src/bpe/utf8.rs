//! Text from bytes that arrive token by token: a character may be spread over several tokens.

use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of the longest character.
const LONGEST: usize = 4;

/// Holds bytes back until they complete a character; all that it gives, joined, is the text of all bytes.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    bytes: Vec<u8>,
    text: String,
}

impl Utf8Stream {
    /// An empty stream with room for tokens of `bytes` bytes: longer ones allocate once more.
    pub fn with_capacity(bytes: usize) -> Self {
        let room = bytes.saturating_add(LONGEST);
        Self {
            bytes: Vec::with_capacity(room),
            // A byte that is no text becomes three.
            text: String::with_capacity(room.saturating_mul(3)),
        }
    }

    /// The text that the bytes given by `add` complete; empty while a character is incomplete. Bytes that can never become UTF-8 are U+FFFD.
    pub fn push<E>(&mut self, add: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<&str, E> {
        self.text.clear();
        add(&mut self.bytes)?;
        take_complete(&mut self.bytes, &mut self.text);
        Ok(&self.text)
    }

    /// What is left at the end of the text: an incomplete character is U+FFFD. The stream is then as new.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        if !self.bytes.is_empty() {
            self.text.push('\u{fffd}');
            self.bytes.clear();
        }
        &self.text
    }

    /// Forgets an incomplete character.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.text.clear();
    }
}

/// Moves the complete characters from the start of `bytes` to the end of `text`; sequences that can never become UTF-8 are U+FFFD.
pub(crate) fn take_complete(bytes: &mut Vec<u8>, text: &mut String) {
    let mut rest = [0; LONGEST];
    let mut left = 0;
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let invalid = chunk.invalid();
        let incomplete = || core::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
        if invalid.is_empty() {
            continue;
        }
        if chunks.peek().is_none() && incomplete() {
            left = invalid.len();
            rest.iter_mut().zip(invalid).for_each(|(rest, byte)| *rest = *byte);
        } else {
            text.push('\u{fffd}');
        }
    }
    bytes.clear();
    bytes.extend(rest.iter().take(left));
}
