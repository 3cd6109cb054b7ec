//! Merging the symbols of one word: the lowest rank first, and of equal ranks the leftmost.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::tables::Tables;

/// A token of a word: its id and its bytes there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symbol {
    pub id: u32,
    pub start: usize,
    pub end: usize,
    /// Its neighbours, as places in the list: a doubly linked list over the symbols. What is no place is no neighbour.
    next: usize,
    before: usize,
}

impl Symbol {
    /// Whether it was merged into its left neighbour.
    fn is_gone(&self) -> bool {
        self.start == self.end
    }
}

impl Tables {
    /// The tokens of one word of the pre-tokeniser, spelled in the byte-level alphabet, with their places in that spelling.
    pub(crate) fn symbols(&self, word: &str) -> Vec<Symbol> {
        match self.whole(word) {
            Some(symbol) => [symbol].into(),
            None => self.merge_all(self.characters(word), || false),
        }
    }

    /// The ids of one word under BPE-dropout ([`merge_all`](Self::merge_all)). A word of which nothing was left out is that of
    /// [`symbols`](Self::symbols), also where it is looked up whole before any merge.
    #[cfg(feature = "std")]
    pub(crate) fn symbols_dropping(&self, word: &str, mut drops: impl FnMut() -> bool) -> Vec<Symbol> {
        let mut dropped = false;
        let merged = self.merge_all(self.characters(word), || {
            let drop = drops();
            dropped |= drop;
            drop
        });
        match self.whole(word).filter(|_| !dropped) {
            Some(symbol) => [symbol].into(),
            None => merged,
        }
    }

    /// A word that is a token whatever the merges.
    fn whole(&self, word: &str) -> Option<Symbol> {
        let id = self.ignores_merges().then(|| self.find(word)).flatten()?;
        let (start, end) = (0, word.len());
        let (next, before) = (usize::MAX, usize::MAX);
        Some(Symbol {
            id,
            start,
            end,
            next,
            before,
        })
    }

    /// The characters of a word, each the token of its byte.
    fn characters(&self, word: &str) -> Vec<Symbol> {
        let known = word
            .char_indices()
            .filter_map(|(start, c)| Some((start, c, self.id_of(c)?)));
        let symbols = known.enumerate().map(|(place, (start, c, id))| Symbol {
            id,
            start,
            end: start.saturating_add(c.len_utf8()),
            next: place.saturating_add(1),
            before: place.wrapping_sub(1),
        });
        symbols.collect()
    }

    /// Merges neighbours, the lowest rank first and of equal ranks the leftmost, until none can be merged.
    ///
    /// Before each merge, `drops` says of one possible merge after another, best first, whether it is left out this time; the first that is
    /// not is done, and if all are left out the word stays as it is. So it is asked of every merge that its definition draws for, but for
    /// those behind the one that is done, whose draws would decide nothing.
    fn merge_all(&self, mut symbols: Vec<Symbol>, mut drops: impl FnMut() -> bool) -> Vec<Symbol> {
        let candidate = |symbols: &[Symbol], left: usize, right: usize| {
            let (rank, result) = self.merge(symbols.get(left)?.id, symbols.get(right)?.id)?;
            Some(Reverse((rank, left, result)))
        };
        let pairs = (0..symbols.len()).zip(1..symbols.len());
        let mut queue: BinaryHeap<_> = pairs
            .filter_map(|(left, right)| candidate(&symbols, left, right))
            .collect();
        // Left out of the merge that is sought, and possible again at the next one.
        let mut left_out = Vec::new();
        while let Some(entry) = queue.pop() {
            let Reverse((_, at, result)) = entry;
            let Some(&left) = symbols.get(at).filter(|left| !left.is_gone()) else {
                continue;
            };
            let Some(&right) = symbols.get(left.next) else {
                continue;
            };
            // An entry from before one of the two was merged with something else.
            if self.merge(left.id, right.id).is_none_or(|(_, now)| now != result) {
                continue;
            }
            if drops() {
                left_out.push(entry);
                continue;
            }
            queue.extend(left_out.drain(..));
            if let Some(right) = symbols.get_mut(left.next) {
                right.end = right.start;
            }
            if let Some(left) = symbols.get_mut(at) {
                (left.id, left.end, left.next) = (result, right.end, right.next);
            }
            if let Some(after) = symbols.get_mut(right.next) {
                after.before = at;
            }
            queue.extend(candidate(&symbols, left.before, at));
            queue.extend(candidate(&symbols, at, right.next));
        }
        symbols.retain(|symbol| !symbol.is_gone());
        symbols
    }
}
