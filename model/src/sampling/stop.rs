//! Stop strings over streamed text.

use alloc::string::String;
use alloc::vec::Vec;

use super::SamplingError;

/// What one piece of text releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streamed<'a> {
    /// Text that no stop string can reach back into: print it.
    pub text: &'a str,
    /// Whether a stop string has been completed; it and what follows it are never released.
    pub stopped: bool,
}

/// Watches streamed text for the first stop string to be completed, and holds back what may be the beginning of one.
///
/// The text released in all, and whether it stopped, do not depend on how the text was cut into pieces. Where several stop
/// strings are completed by the same character, the longest counts. A character costs `stops · length` comparisons at most.
#[derive(Clone, Debug)]
pub struct StopStrings {
    /// The longest first.
    stops: Vec<String>,
    /// Text released by the last call, then text held back.
    text: String,
    released: usize,
    stopped: bool,
}

impl StopStrings {
    /// A watcher for any of `stops` (none: everything is released at once).
    ///
    /// # Errors
    /// [`SamplingError::EmptyStopString`].
    pub fn new<T: Into<String>>(stops: impl IntoIterator<Item = T>) -> Result<Self, SamplingError> {
        let mut stops: Vec<String> = stops.into_iter().map(Into::into).collect();
        if stops.iter().any(String::is_empty) {
            return Err(SamplingError::EmptyStopString);
        }
        stops.sort_by_key(|s| core::cmp::Reverse(s.len()));
        Ok(Self {
            stops,
            text: String::new(),
            released: 0,
            stopped: false,
        })
    }

    /// Takes the next piece of text. After a stop nothing more is released.
    pub fn push(&mut self, piece: &str) -> Streamed<'_> {
        self.text.drain(..self.released);
        self.released = 0;
        if self.stopped {
            return self.streamed();
        }
        let held = self.text.len();
        self.text.push_str(piece);
        for (at, c) in piece.char_indices() {
            let end = held.saturating_add(at).saturating_add(c.len_utf8());
            let so_far = self.text.get(..end).unwrap_or_default();
            if let Some(stop) = self.stops.iter().find(|s| so_far.ends_with(s.as_str())) {
                self.released = so_far.len().saturating_sub(stop.len());
                self.text.truncate(self.released);
                self.stopped = true;
                return self.streamed();
            }
        }
        self.released = self.text.len().saturating_sub(self.held_back());
        self.streamed()
    }

    /// Releases what is held back: the text has ended without a stop string.
    pub fn finish(&mut self) -> &str {
        self.text.drain(..self.released);
        self.released = self.text.len();
        &self.text
    }

    /// Whether a stop string has been completed.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Forgets the text, for the next answer.
    pub fn reset(&mut self) {
        self.text.clear();
        self.released = 0;
        self.stopped = false;
    }

    fn streamed(&self) -> Streamed<'_> {
        Streamed {
            text: self.text.get(..self.released).unwrap_or_default(),
            stopped: self.stopped,
        }
    }

    /// Length of the longest end of the text that begins a stop string.
    fn held_back(&self) -> usize {
        let longest = self
            .stops
            .first()
            .map_or(0, |s| s.len().saturating_sub(1))
            .min(self.text.len());
        let from = self.text.len().saturating_sub(longest);
        let mut ends = (from..self.text.len()).filter_map(|at| self.text.get(at..));
        ends.find(|end| self.stops.iter().any(|s| s.starts_with(end)))
            .map_or(0, str::len)
    }
}
