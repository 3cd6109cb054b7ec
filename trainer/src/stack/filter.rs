//! Which documents are left out: by their licences, and those that came already.
//!
//! **Licences.** A document stays if it has licences and each of them is in the list: the column has those of the repository that the file is from, and the strictest counts.
//!
//! **Duplicates.** Of each document that stays a few marks are remembered, for the last N of them; a document with a mark of another one is left out.
//!
//! | | marks | what is a duplicate |
//! |---|---|---|
//! | exact | 1: BLAKE3 of the words | the same words, however they are spaced |
//! | near | 16: see [`minhash`] | most of the runs of five words are the same |
//!
//! With the marks stands where the document is from, so that a shard that is visited again is not a duplicate of itself. What is remembered is a function of the documents
//! before, and a checkpoint has it as it is at its step: 16 bytes a document, or 136. So a resumed run leaves out the same documents; and what lies further back than N is
//! forgotten by every run alike.

mod minhash;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};

use serde::Serialize;

use super::StackError;

/// Which copies are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Duplicates {
    /// None.
    #[default]
    Keep,
    /// Those with the same words.
    Exact,
    /// Those with almost the same words.
    Near,
}

impl std::str::FromStr for Duplicates {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "keep" => Ok(Duplicates::Keep),
            "exact" => Ok(Duplicates::Exact),
            "near" => Ok(Duplicates::Near),
            _ => Err(format!("expected keep, exact or near, found {name:?}")),
        }
    }
}

/// What is left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FilterOptions {
    /// Licences that are allowed, in lower case; empty: any or none.
    pub licenses: BTreeSet<String>,
    /// Copies.
    pub duplicates: Duplicates,
    /// Documents that are remembered.
    pub window: u64,
}

impl Default for FilterOptions {
    fn default() -> Self {
        FilterOptions {
            licenses: BTreeSet::new(),
            duplicates: Duplicates::Keep,
            window: 1_000_000,
        }
    }
}

impl FilterOptions {
    /// Whether a document with these licences stays.
    pub(super) fn allows<'a>(&self, mut licenses: impl ExactSizeIterator<Item = &'a [u8]>) -> bool {
        let allowed = |license: &[u8]| {
            std::str::from_utf8(license).is_ok_and(|name| self.licenses.contains(&name.to_lowercase()))
        };
        self.licenses.is_empty() || licenses.len() > 0 && licenses.all(allowed)
    }

    /// The marks of a document.
    pub(super) fn marks(&self, text: &str) -> Vec<u64> {
        match self.duplicates {
            Duplicates::Keep => Vec::new(),
            Duplicates::Exact => vec![exact(text)],
            Duplicates::Near => minhash::bands(text).to_vec(),
        }
    }

    /// Marks that each document has.
    fn marks_each(&self) -> usize {
        match self.duplicates {
            Duplicates::Keep => 0,
            Duplicates::Exact => 1,
            Duplicates::Near => minhash::BANDS,
        }
    }
}

fn exact(text: &str) -> u64 {
    let mut hash = blake3::Hasher::new();
    for word in text.split_whitespace() {
        hash.update(word.as_bytes()).update(b" ");
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// A document that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    origin: u64,
    marks: Vec<u64>,
}

/// The documents that are remembered. It has more than the last `window` of them, as far back as a checkpoint may still need.
#[derive(Debug)]
pub(super) struct Memory {
    window: u64,
    marks_each: usize,
    /// Number of the first one, counted from the beginning of the stream.
    first: u64,
    kept: VecDeque<Kept>,
    /// The newest document with a mark, by its number.
    by_mark: HashMap<u64, u64>,
    /// A checkpoint may be asked for at which so many were kept.
    needed: u64,
}

/// A document's place: shard and row.
pub(super) fn origin(shard: usize, row: u64) -> u64 {
    (shard as u64) << 40 | row & ((1 << 40) - 1)
}

impl Memory {
    pub fn new(options: &FilterOptions) -> Self {
        Memory {
            window: options.window.max(1),
            marks_each: options.marks_each(),
            first: 0,
            kept: VecDeque::new(),
            by_mark: HashMap::new(),
            needed: 0,
        }
    }

    /// Documents that were kept since the stream began.
    pub fn count(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// Whether the document from `origin` stays; if so it is remembered.
    pub fn stays(&mut self, origin: u64, marks: Vec<u64>) -> bool {
        let count = self.count();
        let mut known = false;
        for mark in &marks {
            let Some(&number) = self.by_mark.get(mark) else {
                continue;
            };
            if number + self.window < count {
                continue;
            }
            let found = number.checked_sub(self.first).and_then(|at| self.kept.get(at as usize));
            match found {
                Some(kept) if kept.origin != origin => return false,
                found => known |= found.is_some(),
            }
        }
        if !known && !marks.is_empty() {
            self.remember(Kept { origin, marks });
        }
        true
    }

    fn remember(&mut self, kept: Kept) {
        let number = self.count();
        for mark in &kept.marks {
            self.by_mark.insert(*mark, number);
        }
        self.kept.push_back(kept);
        self.let_go();
    }

    /// No state at which fewer than `count` were kept will be asked for.
    pub fn forget(&mut self, count: u64) {
        self.needed = count;
        self.let_go();
    }

    fn let_go(&mut self) {
        let from = self.needed.min(self.count()).saturating_sub(self.window);
        while self.first < from
            && let Some(kept) = self.kept.pop_front()
        {
            for mark in kept.marks {
                if self.by_mark.get(&mark) == Some(&self.first) {
                    self.by_mark.remove(&mark);
                }
            }
            self.first += 1;
        }
    }

    /// What was remembered when `count` documents were kept: of each, oldest first, its origin and its marks, little-endian.
    pub fn bytes(&self, count: u64) -> Vec<u8> {
        let from = count.saturating_sub(self.window).max(self.first);
        let some = (from..count).filter_map(|number| self.kept.get((number - self.first) as usize));
        let mut bytes = Vec::new();
        for kept in some {
            bytes.extend_from_slice(&kept.origin.to_le_bytes());
            bytes.extend(kept.marks.iter().flat_map(|mark| mark.to_le_bytes()));
        }
        bytes
    }

    /// Remembers what [`Memory::bytes`] gave at `count`.
    ///
    /// # Errors
    /// [`StackError::Cursor`] if that is not what these are.
    pub fn restore(&mut self, count: u64, bytes: &[u8]) -> Result<(), StackError> {
        let size = match self.marks_each {
            0 => 0,
            marks => 8 * (1 + marks),
        };
        let documents = count.min(self.window);
        if documents.checked_mul(size as u64) != Some(bytes.len() as u64) {
            return Err(StackError::Cursor {
                why: format!(
                    "stream.bin has {} bytes, expected {documents} documents of {size}",
                    bytes.len()
                ),
            });
        }
        (self.first, self.needed) = (count - documents, count);
        let mut words = bytes.chunks_exact(8).map(|word| {
            let mut all = [0; 8];
            all.copy_from_slice(word);
            u64::from_le_bytes(all)
        });
        while let Some(origin) = words.next() {
            let marks = words.by_ref().take(self.marks_each).collect();
            self.remember(Kept { origin, marks });
        }
        Ok(())
    }
}
