//! Borders at which a text can be cut without changing its ids, so that one long text is read and encoded in pieces.
//!
//! Pre-tokenisers split text into words, and no token crosses a word's edge. Two places are such an edge in every scheme
//! that keeps a leading space with its word (GPT-2, Llama 3, SentencePiece) or splits at white space:
//! ```text
//! …\n␣Letter      the run of white space before the cut ends where it ends without what follows
//! x\nLetter       a single newline after a visible character (a longer run would be divided differently at its end)
//! ```
//! and, where a text has no such line end, `letter␣Letter`. A place that looks like an edge is then tried on the tokenizer itself: the
//! text around it must have the same ids cut and uncut. Without a pre-tokeniser no place is an edge.

use super::Tokenizer;

/// Size in bytes of the pieces that are encoded in parallel.
pub(super) const PIECE: usize = 128 * 1024;
/// Bytes on each side of a cut that are encoded to try it.
const AROUND: usize = 256;
/// Places of each kind that are tried before giving up.
const TRIES: usize = 32;

impl Tokenizer {
    /// The last border of `text` at or before byte `limit`: `encode(text)` equals `encode(&text[..border])` followed by
    /// `encode(&text[border..])`. `None` if no safe one was found. The character after the border must be in `text`.
    pub fn border(&self, text: &str, limit: usize) -> Option<usize> {
        self.inner.get_pre_tokenizer()?;
        let fits = |&at: &usize| self.same_ids(text, at);
        let (lines, words) = (line_borders(text, limit), word_borders(text, limit));
        lines.take(TRIES).find(fits).or_else(|| words.take(TRIES).find(fits))
    }

    /// `text` in pieces of about `size` bytes (longer where there is no border), cut at borders.
    pub fn split<'a>(&self, text: &'a str, size: usize) -> Vec<&'a str> {
        let mut pieces = Vec::new();
        let mut rest = text;
        // Each failed search doubles the stretch, so that a text without borders is searched only log2 times.
        let mut reach = size;
        while rest.len() > reach {
            match self.border(rest, reach).filter(|&at| at > 0) {
                Some(at) => {
                    let (piece, after) = rest.split_at(at);
                    pieces.push(piece);
                    rest = after;
                    reach = size;
                }
                None => reach *= 2,
            }
        }
        if !rest.is_empty() {
            pieces.push(rest);
        }
        pieces
    }

    fn same_ids(&self, text: &str, at: usize) -> bool {
        let start = text.floor_char_boundary(at.saturating_sub(AROUND));
        let end = text.floor_char_boundary((at + AROUND).min(text.len()));
        let ids = |part| self.encode_whole(part).ok();
        match (ids(&text[start..at]), ids(&text[at..end]), ids(&text[start..end])) {
            (Some(mut left), Some(right), Some(both)) => {
                left.extend(right);
                left == both
            }
            _ => false,
        }
    }
}

fn letter_at(text: &str, at: usize) -> bool {
    text.get(at..)
        .and_then(|rest| rest.chars().next())
        .is_some_and(char::is_alphabetic)
}

/// Places after a newline that look like an edge, last first.
pub(super) fn line_borders(text: &str, limit: usize) -> impl Iterator<Item = usize> + '_ {
    let bytes = text.as_bytes();
    (1..=limit.min(bytes.len())).rev().filter(move |&at| {
        bytes[at - 1] == b'\n' && {
            let before = text[..at - 1].chars().next_back();
            let single = before.is_some_and(|c| !c.is_whitespace());
            (bytes.get(at) == Some(&b' ') && letter_at(text, at + 1)) || (single && letter_at(text, at))
        }
    })
}

/// Places between two words, before the space, last first.
fn word_borders(text: &str, limit: usize) -> impl Iterator<Item = usize> + '_ {
    let bytes = text.as_bytes();
    (1..=limit.min(bytes.len())).rev().filter(move |&at| {
        bytes.get(at) == Some(&b' ')
            && letter_at(text, at + 1)
            && text[..at].chars().next_back().is_some_and(char::is_alphabetic)
    })
}
