//! A byte-level BPE vocabulary as tables that are looked up in where they lie, in a mapped file: opening one reads none of its entries.
//! (Reading a `tokenizer.json` of 128,000 tokens takes longer than a forward pass of a large model.)
//!
//! ```text
//! magic "1btokpk1" | tokens, ids, merges, vocab_size, bytes of strings, bytes of rest: u32 each | fingerprint, 32 bytes
//! starts        u32 [ids + 1]      token id is strings[starts[id]..starts[id + 1]]; empty: there is none
//! sorted        u32 [tokens]       ids in the order of their strings' bytes
//! merge_starts  u32 [ids + 1]      the merges whose left part is id are merges[merge_starts[id]..merge_starts[id + 1]]
//! merges        u32 [merges, 3]    right part, rank, result; sorted by right part
//! strings                          spellings in the alphabet of `byte_level`
//! rest                             the tokenizer.json without vocabulary and merges
//! ```
//!
//! All little-endian. Every position is checked when it is used, and one that leads nowhere is a token that is not there: damaged tables give
//! wrong ids, and no more.

use alloc::boxed::Box;
use alloc::string::ToString;
use core::ops::Range;

use serde_json::Value;

use super::BpeError;
use super::byte_level::{alphabet, byte_of};
use super::names::at;
use crate::runtime::Values;

pub(crate) const MAGIC: &[u8; 8] = b"1btokpk1";
/// Bytes before `starts`.
const HEADER: usize = 8 + 6 * 4 + 32;
/// The id of a byte that is no token.
const NONE: u32 = u32::MAX;

/// The tables.
pub(crate) struct Tables {
    bytes: Values<u8>,
    sizes: Sizes,
    places: Places,
    /// The ids of the bytes.
    byte_ids: Box<[u32; 256]>,
    ignore_merges: bool,
}

/// How long the tables are.
#[derive(Clone, Copy)]
struct Sizes {
    tokens: usize,
    ids: usize,
    merges: usize,
    vocab_size: usize,
    strings: usize,
    rest: usize,
}

/// Where the tables begin.
#[derive(Clone, Copy)]
struct Places {
    sorted: usize,
    merge_starts: usize,
    merges: usize,
    strings: usize,
    rest: usize,
    end: usize,
}

impl Sizes {
    /// `None` if no memory is that large.
    fn places(&self) -> Option<Places> {
        let starts = self.ids.checked_add(1)?.checked_mul(4)?;
        let sorted = HEADER.checked_add(starts)?;
        let merge_starts = sorted.checked_add(self.tokens.checked_mul(4)?)?;
        let merges = merge_starts.checked_add(starts)?;
        let strings = merges.checked_add(self.merges.checked_mul(12)?)?;
        let rest = strings.checked_add(self.strings)?;
        let end = rest.checked_add(self.rest)?;
        Some(Places {
            sorted,
            merge_starts,
            merges,
            strings,
            rest,
            end,
        })
    }
}

impl Tables {
    /// Takes the tables in `bytes`, and the rest of the tokenizer's JSON.
    pub(crate) fn open(bytes: Values<u8>) -> Result<(Self, Value), BpeError> {
        let found = bytes.len();
        let words = bytes
            .first_chunk::<HEADER>()
            .and_then(|header| header.strip_prefix(MAGIC));
        let words = words.ok_or(BpeError::NotPacked { found })?.as_chunks::<4>().0;
        let [tokens, ids, merges, vocab_size, strings, rest, ..] = words else {
            return Err(BpeError::NotPacked { found });
        };
        let size = |word: &[u8; 4]| usize::try_from(u32::from_le_bytes(*word)).unwrap_or(usize::MAX);
        let sizes = Sizes {
            tokens: size(tokens),
            ids: size(ids),
            merges: size(merges),
            vocab_size: size(vocab_size),
            strings: size(strings),
            rest: size(rest),
        };
        let counts = [sizes.tokens, sizes.ids, sizes.merges, sizes.strings, sizes.rest];
        let most_ids = sizes.tokens.saturating_mul(4).saturating_add(65_536);
        if counts.into_iter().any(|count| count > found) || sizes.vocab_size > most_ids {
            return Err(BpeError::Sizes);
        }
        let places = sizes.places().ok_or(BpeError::Sizes)?;
        let expected = places.end;
        let rest = bytes.get(places.rest..).filter(|_| expected == found);
        let rest = rest.ok_or(BpeError::Length { expected, found })?;
        let json = |error: serde_json::Error| BpeError::Json {
            message: error.to_string(),
        };
        let rest: Value = serde_json::from_slice(rest).map_err(json)?;
        let mut tables = Self {
            ignore_merges: *at(&rest, "/model/ignore_merges") == true,
            sizes,
            places,
            byte_ids: Box::new([NONE; 256]),
            bytes,
        };
        let ids = alphabet().map(|c| tables.find(c.encode_utf8(&mut [0; 4])).unwrap_or(NONE));
        *tables.byte_ids = ids;
        Ok((tables, rest))
    }

    /// The id of a character of the alphabet.
    pub(super) fn id_of(&self, c: char) -> Option<u32> {
        let id = self.byte_ids.get(usize::from(byte_of(c)?))?;
        (*id != NONE).then_some(*id)
    }

    /// A byte that is no token.
    pub(super) fn missing_byte(&self) -> Option<u8> {
        (0..=u8::MAX)
            .zip(self.byte_ids.iter())
            .find(|&(_, id)| *id == NONE)
            .map(|(byte, _)| byte)
    }

    /// Whether a word that is a token is that token, whatever the merges.
    pub(super) fn ignores_merges(&self) -> bool {
        self.ignore_merges
    }

    /// blake3 of the tokenizer's JSON.
    #[cfg(feature = "std")]
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let header = self.bytes.first_chunk::<HEADER>();
        header
            .and_then(|header| header.last_chunk())
            .copied()
            .unwrap_or_default()
    }

    /// One more than the highest id, added tokens included.
    pub(crate) fn vocab_size(&self) -> usize {
        self.sizes.vocab_size
    }

    /// Tokens of the model, added ones not counted.
    #[cfg(feature = "std")]
    pub(crate) fn tokens(&self) -> usize {
        self.sizes.tokens
    }

    /// Merges of the model.
    #[cfg(feature = "std")]
    pub(crate) fn merges(&self) -> usize {
        self.sizes.merges
    }

    /// Ids with their spellings.
    #[cfg(feature = "std")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        (0..self.sizes.ids as u32).filter_map(|id| Some((id, self.spelling(id)?)))
    }

    /// Word `i` of the table that begins at byte `table`.
    fn word(&self, table: usize, i: usize) -> Option<u32> {
        let at = table.checked_add(i.checked_mul(4)?)?;
        let word = self.bytes.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*word))
    }

    /// `table[id]..table[id + 1]`.
    fn span(&self, table: usize, id: u32) -> Option<Range<usize>> {
        let id = usize::try_from(id).ok().filter(|&id| id < self.sizes.ids)?;
        let place = |i: usize| usize::try_from(self.word(table, i)?).ok();
        Some(place(id)?..place(id.checked_add(1)?)?)
    }

    /// The spelling of a token.
    pub(crate) fn spelling(&self, id: u32) -> Option<&str> {
        let strings = self.bytes.get(self.places.strings..self.places.rest)?;
        let bytes = strings.get(self.span(HEADER, id)?)?;
        core::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())
    }

    /// The id of a spelling.
    pub(crate) fn find(&self, spelling: &str) -> Option<u32> {
        let id_at = |i: usize| self.word(self.places.sorted, i);
        let i = partition_point(0..self.sizes.tokens, |i| {
            id_at(i).and_then(|id| self.spelling(id)).unwrap_or("") < spelling
        });
        let id = id_at(i).filter(|_| i < self.sizes.tokens)?;
        (self.spelling(id) == Some(spelling)).then_some(id)
    }

    /// Rank and result of the merge of two tokens.
    pub(super) fn merge(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let span = self.span(self.places.merge_starts, left)?;
        let end = span.end.min(self.sizes.merges);
        let entry = |i: usize, part: usize| self.word(self.places.merges, i.checked_mul(3)?.checked_add(part)?);
        let i = partition_point(span.start.min(end)..end, |i| entry(i, 0).is_some_and(|r| r < right));
        if i >= end || entry(i, 0) != Some(right) {
            return None;
        }
        Some((entry(i, 1)?, entry(i, 2)?))
    }
}

/// The first of `range` for which `before` does not hold.
fn partition_point(range: Range<usize>, before: impl Fn(usize) -> bool) -> usize {
    let Range { mut start, mut end } = range;
    while start < end {
        let middle = start.midpoint(end);
        if before(middle) {
            start = middle.saturating_add(1);
        } else {
            end = middle;
        }
    }
    start
}
