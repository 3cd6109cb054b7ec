//! A byte-level BPE vocabulary as tables that are looked up in where they lie, in a mapped file: opening one reads none of its entries.
//! (Reading a `tokenizer.json` of 128,000 tokens takes longer than a forward pass of a large model.)
//!
//! ```text
//! magic "1btokpk1" | tokens, ids, merges, vocab_size, bytes of strings, bytes of rest: u32 each | fingerprint, 32 bytes
//! starts        u32 [ids + 1]      token id is strings[starts[id]..starts[id + 1]]; empty: there is none
//! sorted        u32 [tokens]       ids in the order of their strings' bytes
//! merge_starts  u32 [ids + 1]      the merges whose left part is id are merges[merge_starts[id]..merge_starts[id + 1]]
//! merges        u32 [merges, 3]    right part, rank, result; sorted by right part
//! strings                          spellings in the alphabet of [`byte_level`](super::byte_level)
//! rest                             the tokenizer.json without vocabulary and merges
//! ```
//!
//! All little-endian. Every position is checked when it is used, and one that leads nowhere is a token that is not there: damaged tables give
//! wrong ids, and no more.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde_json::Value;
use tokenizers::Token;

use super::byte_level::alphabet;
use crate::runtime::Values;

const MAGIC: &[u8; 8] = b"1btokpk1";
/// Bytes before `starts`.
const HEADER: usize = 8 + 6 * 4 + 32;
/// Characters of the alphabet are below this.
const ALPHABET_END: usize = 0x180;

/// The tables.
pub(super) struct Tables {
    bytes: Values<u8>,
    sizes: Sizes,
    /// The ids of the alphabet's characters.
    characters: Box<[Option<u32>; ALPHABET_END]>,
    ignore_merges: bool,
}

#[derive(Clone, Copy)]
struct Sizes {
    tokens: usize,
    ids: usize,
    merges: usize,
    vocab_size: usize,
    strings: usize,
    rest: usize,
}

impl Sizes {
    /// Where the tables begin: sorted, merge_starts, merges, strings, rest, end.
    fn places(&self) -> [usize; 6] {
        let mut at = HEADER + 4 * (self.ids + 1);
        let mut next = |bytes: usize| {
            let place = at;
            at += bytes;
            place
        };
        [
            next(4 * self.tokens),
            next(4 * (self.ids + 1)),
            next(12 * self.merges),
            next(self.strings),
            next(self.rest),
            at,
        ]
    }
}

impl Tables {
    /// Takes the tables in `bytes`, and the rest of the tokenizer's JSON.
    pub(super) fn open(bytes: Values<u8>) -> Result<(Self, Value), String> {
        let short = || format!("{} bytes are no packed tokenizer", bytes.len());
        let header = bytes.first_chunk::<HEADER>().ok_or_else(short)?;
        if !header.starts_with(MAGIC) {
            return Err("these bytes are no packed tokenizer".to_string());
        }
        let size = |i: usize| {
            let word: [u8; 4] = std::array::from_fn(|j| header[8 + 4 * i + j]);
            u32::from_le_bytes(word) as usize
        };
        let sizes = Sizes {
            tokens: size(0),
            ids: size(1),
            merges: size(2),
            vocab_size: size(3),
            strings: size(4),
            rest: size(5),
        };
        let counts = [sizes.tokens, sizes.ids, sizes.merges, sizes.strings, sizes.rest];
        if counts.into_iter().any(|count| count > bytes.len()) || sizes.vocab_size > 4 * sizes.tokens + 65_536 {
            return Err("the sizes of its tables are not possible".to_string());
        }
        let end = sizes.places()[5];
        if end != bytes.len() {
            return Err(format!("the tables end at {end} of {} bytes", bytes.len()));
        }
        let rest = &bytes[sizes.places()[4]..];
        let rest: Value = serde_json::from_slice(rest).map_err(|e| e.to_string())?;
        let mut tables = Self {
            ignore_merges: rest["model"]["ignore_merges"] == true,
            sizes,
            characters: Box::new([None; ALPHABET_END]),
            bytes,
        };
        for c in alphabet() {
            tables.characters[c as usize] = tables.find(c.encode_utf8(&mut [0; 4]));
        }
        Ok((tables, rest))
    }

    /// blake3 of the tokenizer's JSON.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        std::array::from_fn(|i| self.bytes.get(HEADER - 32 + i).copied().unwrap_or_default())
    }

    /// One more than the highest id, added tokens included.
    pub(super) fn vocab_size(&self) -> usize {
        self.sizes.vocab_size
    }

    /// Tokens of the model, added ones not counted.
    pub(super) fn tokens(&self) -> usize {
        self.sizes.tokens
    }

    /// Merges of the model.
    pub(super) fn merges(&self) -> usize {
        self.sizes.merges
    }

    /// Ids with their spellings.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        (0..self.sizes.ids as u32).filter_map(|id| Some((id, self.spelling(id)?)))
    }

    fn word(&self, at: usize) -> Option<u32> {
        let word = self.bytes.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*word))
    }

    /// `table[i]..table[i + 1]`, where `i` is one of the ids.
    fn span(&self, table: usize, id: u32) -> Option<(usize, usize)> {
        if id as usize >= self.sizes.ids {
            return None;
        }
        let at = table + 4 * id as usize;
        Some((self.word(at)? as usize, self.word(at + 4)? as usize))
    }

    /// The spelling of a token.
    pub(super) fn spelling(&self, id: u32) -> Option<&str> {
        let [_, _, _, strings, rest, _] = self.sizes.places();
        let (start, end) = self.span(HEADER, id)?;
        let bytes = self.bytes.get(strings..rest)?.get(start..end)?;
        std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())
    }

    /// The id of a spelling.
    pub(super) fn find(&self, spelling: &str) -> Option<u32> {
        let [sorted, ..] = self.sizes.places();
        let id_at = |i: usize| self.word(sorted + 4 * i);
        let i = partition_point(0, self.sizes.tokens, |i| {
            id_at(i).and_then(|id| self.spelling(id)).unwrap_or("") < spelling
        });
        let id = id_at(i).filter(|_| i < self.sizes.tokens)?;
        (self.spelling(id) == Some(spelling)).then_some(id)
    }

    /// Rank and result of the merge of two tokens.
    fn merge(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let [_, merge_starts, merges, ..] = self.sizes.places();
        let (start, end) = self.span(merge_starts, left)?;
        let at = |i: usize| merges + 12 * i;
        let end = end.min(self.sizes.merges);
        let i = partition_point(start.min(end), end, |i| self.word(at(i)).is_some_and(|r| r < right));
        if i >= end || self.word(at(i)) != Some(right) {
            return None;
        }
        Some((self.word(at(i) + 4)?, self.word(at(i) + 8)?))
    }

    /// The tokens of one word of the pre-tokeniser: the library's own result, and the same on words that no merge reaches.
    pub(super) fn tokenize(&self, word: &str) -> Vec<Token> {
        let token = |id: u32, start: usize, end: usize| {
            let spelling = self.spelling(id).unwrap_or_default().to_owned();
            Token::new(id, spelling, (start, end))
        };
        if self.ignore_merges
            && let Some(id) = self.find(word)
        {
            return vec![token(id, 0, word.len())];
        }
        let merged = self.merge_all(self.symbols(word), || false);
        merged.into_iter().map(|s| token(s.id, s.start, s.end)).collect()
    }

    /// The ids of one word under BPE-dropout ([`merge_all`](Self::merge_all)). A word of which nothing was left out is that of
    /// [`tokenize`](Self::tokenize), also where it is looked up whole before any merge.
    pub(super) fn tokenize_dropping(&self, word: &str, mut drops: impl FnMut() -> bool) -> Vec<u32> {
        let mut dropped = false;
        let merged = self.merge_all(self.symbols(word), || {
            let drop = drops();
            dropped |= drop;
            drop
        });
        let whole = (self.ignore_merges && !dropped).then(|| self.find(word));
        match whole.flatten() {
            Some(id) => vec![id],
            None => merged.into_iter().map(|s| s.id).collect(),
        }
    }

    /// The characters of a word, each the token of its byte.
    fn symbols(&self, word: &str) -> Vec<Symbol> {
        let symbols = word.char_indices().filter_map(|(start, c)| {
            let id = self.characters.get(c as usize).copied().flatten()?;
            let end = start + c.len_utf8();
            Some(Symbol { id, start, end })
        });
        symbols.collect()
    }

    /// Merges neighbours, the lowest rank first and of equal ranks the leftmost, until none can be merged.
    ///
    /// Before each merge, `drops` says of one possible merge after another, best first, whether it is left out this time; the first that is
    /// not is done, and if all are left out the word stays as it is. So it is asked of every merge that its definition draws for, but for
    /// those behind the one that is done, whose draws would decide nothing.
    fn merge_all(&self, mut symbols: Vec<Symbol>, mut drops: impl FnMut() -> bool) -> Vec<Symbol> {
        // A doubly linked list over the symbols; one that was merged into its left neighbour is empty (`start == end`).
        let n = symbols.len();
        let mut next: Vec<usize> = (1..=n).collect();
        let mut before: Vec<Option<usize>> = (0..n).map(|i| i.checked_sub(1)).collect();
        let candidate = |symbols: &[Symbol], left: usize, right: usize| {
            let (rank, result) = self.merge(symbols.get(left)?.id, symbols.get(right)?.id)?;
            Some(Reverse((rank, left, result)))
        };
        let mut queue: BinaryHeap<_> = (1..n).filter_map(|i| candidate(&symbols, i - 1, i)).collect();
        // Left out of the merge that is sought, and possible again at the next one.
        let mut left_out = Vec::new();
        while let Some(entry) = queue.pop() {
            let Reverse((_, at, result)) = entry;
            let right = next[at];
            if symbols[at].start == symbols[at].end || right >= n {
                continue;
            }
            // An entry from before one of the two was merged with something else.
            let still = self.merge(symbols[at].id, symbols[right].id);
            if still.is_none_or(|(_, now)| now != result) {
                continue;
            }
            if drops() {
                left_out.push(entry);
                continue;
            }
            queue.extend(left_out.drain(..));
            symbols[at].id = result;
            symbols[at].end = symbols[right].end;
            symbols[right].end = symbols[right].start;
            next[at] = next[right];
            if let Some(before) = before.get_mut(next[right]) {
                *before = Some(at);
            }
            queue.extend(before[at].and_then(|left| candidate(&symbols, left, at)));
            queue.extend(candidate(&symbols, at, next[at]));
        }
        symbols.retain(|s| s.start != s.end);
        symbols
    }
}

/// A token of a word: its id and its bytes there.
struct Symbol {
    id: u32,
    start: usize,
    end: usize,
}

/// The first of `low..high` for which `before` does not hold.
fn partition_point(mut low: usize, mut high: usize, before: impl Fn(usize) -> bool) -> usize {
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Whether the pre-tokeniser ends in the byte-level alphabet, so that a word holds nothing else.
fn ends_in_bytes(pre: &Value) -> bool {
    match pre["type"].as_str() {
        Some("ByteLevel") => true,
        Some("Sequence") => pre["pretokenizers"]
            .as_array()
            .and_then(|all| all.last())
            .is_some_and(ends_in_bytes),
        _ => false,
    }
}

/// The two parts of an entry of `merges`, in either spelling.
pub(super) fn parts(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::Array(pair) => match pair.as_slice() {
            [left, right] => Some((left.as_str()?, right.as_str()?)),
            _ => None,
        },
        merge => merge.as_str()?.split_once(' '),
    }
}

/// The packed form of a `tokenizer.json`; `None` for any that is no plain byte-level BPE.
pub(super) fn pack(json: &[u8], fingerprint: &[u8; 32], vocab_size: usize) -> Option<Vec<u8>> {
    let mut rest: Value = serde_json::from_slice(json).ok()?;
    if !ends_in_bytes(&rest["pre_tokenizer"]) {
        return None;
    }
    let model = rest["model"].as_object_mut()?;
    let (vocab, merges) = (model.remove("vocab")?, model.remove("merges")?);
    let unset = |key: &str| match model.get(key) {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(other) => other.as_f64() == Some(0.0),
    };
    let plain = [
        "dropout",
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "byte_fallback",
    ];
    if model.get("type")? != "BPE" || !plain.into_iter().all(unset) {
        return None;
    }
    let mut by_id: BTreeMap<u32, &str> = BTreeMap::new();
    for (spelling, id) in vocab.as_object()? {
        let id = u32::try_from(id.as_u64()?).ok()?;
        if spelling.is_empty() || by_id.insert(id, spelling).is_some() {
            return None;
        }
    }
    let id_of = |spelling: &str| u32::try_from(vocab.get(spelling)?.as_u64()?).ok();
    if alphabet().iter().any(|c| id_of(c.encode_utf8(&mut [0; 4])).is_none()) {
        return None;
    }
    let mut pairs = BTreeMap::new();
    let merges = merges.as_array()?.iter();
    let merges = merges.filter(|merge| merge.as_str().is_none_or(|text| !text.starts_with("#version")));
    for (rank, merge) in merges.enumerate() {
        let (left, right) = parts(merge)?;
        let result = id_of(&format!("{left}{right}"))?;
        pairs.insert((id_of(left)?, id_of(right)?), (rank as u32, result));
    }
    let ids = by_id.last_key_value().map_or(0, |(&id, _)| id as usize + 1);
    let rest = rest.to_string();
    let strings: usize = by_id.values().map(|spelling| spelling.len()).sum();
    let sizes = [by_id.len(), ids, pairs.len(), vocab_size, strings, rest.len()];

    let mut out = MAGIC.to_vec();
    let word = |out: &mut Vec<u8>, word: usize| -> Option<()> {
        out.extend(u32::try_from(word).ok()?.to_le_bytes());
        Some(())
    };
    for size in sizes {
        word(&mut out, size)?;
    }
    out.extend(fingerprint);
    let mut at = 0;
    for id in 0..ids as u32 {
        word(&mut out, at)?;
        at += by_id.get(&id).map_or(0, |spelling| spelling.len());
    }
    word(&mut out, at)?;
    let mut sorted: Vec<(&str, u32)> = by_id.iter().map(|(&id, &spelling)| (spelling, id)).collect();
    sorted.sort_unstable();
    for (_, id) in sorted {
        word(&mut out, id as usize)?;
    }
    let mut at = 0;
    let mut lefts = pairs.keys().map(|&(left, _)| left).peekable();
    for id in 0..ids as u32 {
        word(&mut out, at)?;
        while lefts.next_if_eq(&id).is_some() {
            at += 1;
        }
    }
    word(&mut out, at)?;
    for ((_, right), (rank, result)) in pairs {
        for value in [right, rank, result] {
            word(&mut out, value as usize)?;
        }
    }
    by_id.values().for_each(|spelling| out.extend(spelling.as_bytes()));
    out.extend(rest.as_bytes());
    Some(out)
}
