//! Training of a byte-level BPE vocabulary (Sennrich et al., "Neural Machine Translation of Rare Words with Subword
//! Units", 2016; over bytes as in GPT-2).
//!
//! The text is divided into pre-tokens (words with their leading space); the pair of neighbouring tokens that is most
//! frequent inside pre-tokens becomes a new token, again and again. Ids: the end-of-text token, the 256 bytes in the
//! order of their characters, then the merges in the order found. The result depends on the text's counts alone:
//! equal counts go to the pair with the smaller ids.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use rayon::prelude::*;
use serde_json::{Map, Value, json};
use tokenizers::utils::SysRegex;

use super::{Result, Tokenizer, TokenizerError, split};
use crate::bpe::byte_level::alphabet;
use crate::bpe::words::WORDS;

/// The token that stands between documents.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// The smallest BPE vocabulary: every byte and the end-of-text token.
pub const MIN_BPE_VOCAB: usize = 257;

/// Bytes of a pre-token that training looks at: longer ones are data, not words, and would cost time without end.
const LONGEST_WORD: usize = 128;

type Pair = (u32, u32);
type Counts = HashMap<Box<[u8]>, u64>;

/// Counts words, text by text, and then makes the vocabulary.
pub struct BpeTrainer {
    vocab_size: usize,
    words: SysRegex,
    counts: Counts,
}

/// Trains a byte-level BPE tokenizer of `vocab_size` tokens (fewer if the text has too few pairs that repeat).
///
/// # Errors
/// [`TokenizerError::VocabTooSmall`] below [`MIN_BPE_VOCAB`], [`TokenizerError::NoText`] if there are no words.
pub fn train_bpe<S: AsRef<str>>(texts: impl IntoIterator<Item = S>, vocab_size: usize) -> Result<Tokenizer> {
    let mut trainer = BpeTrainer::new(vocab_size)?;
    for text in texts {
        trainer.feed(text.as_ref());
    }
    trainer.finish()
}

/// Trains a byte-level tokenizer of whole words, for text of few words: the end-of-text token, the 256 bytes, and the most frequent words
/// of the text, each with its leading space, up to `vocab_size` tokens in all. Other words fall into bytes, so any text survives. Against
/// BPE it saves the tokens that only ever stand inside others.
///
/// # Errors
/// As [`train_bpe`].
pub fn train_whole_words<S: AsRef<str>>(texts: impl IntoIterator<Item = S>, vocab_size: usize) -> Result<Tokenizer> {
    let mut trainer = BpeTrainer::new(vocab_size)?;
    for text in texts {
        trainer.feed(text.as_ref());
    }
    trainer.finish_whole_words()
}

impl BpeTrainer {
    /// A trainer for `vocab_size` tokens.
    ///
    /// # Errors
    /// [`TokenizerError::VocabTooSmall`] below [`MIN_BPE_VOCAB`].
    pub fn new(vocab_size: usize) -> Result<BpeTrainer> {
        if vocab_size < MIN_BPE_VOCAB {
            let reason = "256 bytes and the end-of-text token";
            return Err(TokenizerError::VocabTooSmall {
                requested: vocab_size,
                minimum: MIN_BPE_VOCAB,
                reason,
            });
        }
        let words = SysRegex::new(WORDS).map_err(|e| TokenizerError::Encode { reason: e.to_string() })?;
        Ok(BpeTrainer {
            vocab_size,
            words,
            counts: HashMap::new(),
        })
    }

    /// Counts the words of one more text, on all threads.
    pub fn feed(&mut self, text: &str) {
        let pieces = pieces(text);
        let counted: Vec<Counts> = pieces.par_iter().map(|piece| self.count(piece)).collect();
        for (word, count) in counted.into_iter().flatten() {
            *self.counts.entry(word).or_default() += count;
        }
    }

    fn count(&self, text: &str) -> Counts {
        let mut counts: HashMap<&[u8], u64> = HashMap::new();
        // An end-of-text written out in the text is that token, not a word.
        for part in text.split(END_OF_TEXT) {
            for (start, end) in self.words.find_iter(part) {
                let word = &part.as_bytes()[start..end];
                *counts.entry(&word[..word.len().min(LONGEST_WORD)]).or_default() += 1;
            }
        }
        counts.into_iter().map(|(word, count)| (word.into(), count)).collect()
    }

    /// Makes the merges and the tokenizer.
    ///
    /// # Errors
    /// [`TokenizerError::NoText`] if no word was counted.
    pub fn finish(self) -> Result<Tokenizer> {
        if self.counts.is_empty() {
            return Err(TokenizerError::NoText);
        }
        let (mut vocab, id_of_byte) = byte_vocabulary();
        let words = self
            .counts
            .into_iter()
            .map(|(word, count)| Word {
                ids: word.iter().map(|&b| id_of_byte[b as usize]).collect(),
                count,
            })
            .collect();
        let merges = Merger::new(words).run(&mut vocab, self.vocab_size);
        Tokenizer::from_bytes(tokenizer_json(&vocab, &merges, false).to_string())
    }

    /// Makes a tokenizer of whole words instead: see [`train_whole_words`].
    fn finish_whole_words(self) -> Result<Tokenizer> {
        if self.counts.is_empty() {
            return Err(TokenizerError::NoText);
        }
        let (mut vocab, _) = byte_vocabulary();
        let chars = alphabet();
        // A word cut at LONGEST_WORD is no word, and one of a single byte is there.
        let mut words: Vec<(&[u8], u64)> = (self.counts.iter().map(|(word, &count)| (&**word, count)))
            .filter(|(word, _)| (2..LONGEST_WORD).contains(&word.len()))
            .collect();
        words.sort_unstable_by_key(|&(word, count)| (Reverse(count), word));
        words.truncate(self.vocab_size - vocab.len());
        vocab.extend(
            words
                .iter()
                .map(|(word, _)| word.iter().map(|&byte| chars[byte as usize]).collect()),
        );
        Tokenizer::from_bytes(tokenizer_json(&vocab, &[], true).to_string())
    }
}

/// The end-of-text token and the bytes in the order of their characters; and the id of each byte.
fn byte_vocabulary() -> (Vec<String>, [u32; 256]) {
    let chars = alphabet();
    let mut vocab = vec![END_OF_TEXT.to_owned()];
    let mut id_of_byte = [0u32; 256];
    let mut order: Vec<usize> = (0..256).collect();
    order.sort_unstable_by_key(|&byte| chars[byte]);
    for byte in order {
        id_of_byte[byte] = vocab.len() as u32;
        vocab.push(chars[byte].to_string());
    }
    (vocab, id_of_byte)
}

/// `text` in pieces at line borders, where no word of [`WORDS`] crosses.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut reach = split::PIECE;
    while rest.len() > reach {
        match split::line_borders(rest, reach).next() {
            Some(at) => {
                let (piece, after) = rest.split_at(at);
                pieces.push(piece);
                rest = after;
                reach = split::PIECE;
            }
            None => reach *= 2,
        }
    }
    pieces.push(rest);
    pieces
}

struct Word {
    ids: Vec<u32>,
    count: u64,
}

/// The state of the merge loop.
struct Merger {
    words: Vec<Word>,
    pairs: HashMap<Pair, u64>,
    /// Words that have, or had, the pair.
    places: HashMap<Pair, Vec<u32>>,
    /// By count, then smaller ids first; an entry may be out of date and is compared with `pairs` when it comes up.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

impl Merger {
    fn new(words: Vec<Word>) -> Merger {
        let mut merger = Merger {
            words,
            pairs: HashMap::new(),
            places: HashMap::new(),
            queue: BinaryHeap::new(),
        };
        for index in 0..merger.words.len() {
            for pair in merger.count_word(index) {
                merger.places.entry(pair).or_default().push(index as u32);
            }
        }
        merger.queue = merger
            .pairs
            .iter()
            .map(|(&pair, &count)| (count, Reverse(pair)))
            .collect();
        merger
    }

    /// Adds the pairs of a word to the counts and returns the distinct ones.
    fn count_word(&mut self, index: usize) -> HashSet<Pair> {
        let word = &self.words[index];
        let mut seen = HashSet::new();
        for pair in word.ids.windows(2) {
            *self.pairs.entry((pair[0], pair[1])).or_default() += word.count;
            seen.insert((pair[0], pair[1]));
        }
        seen
    }

    fn run(mut self, vocab: &mut Vec<String>, vocab_size: usize) -> Vec<(String, String)> {
        let mut by_text: HashMap<String, u32> = vocab.iter().cloned().zip(0..).collect();
        let mut done = HashSet::new();
        let mut merges = Vec::new();
        while vocab.len() < vocab_size {
            let Some((count, Reverse(pair))) = self.queue.pop() else {
                break;
            };
            let current = self.pairs.get(&pair).copied().unwrap_or(0);
            if current != count {
                // Too high: the count has fallen since. Too low: a later entry has the right one.
                if current < count && current > 0 {
                    self.queue.push((current, Reverse(pair)));
                }
                continue;
            }
            if count < 2 {
                break;
            }
            let (left, right) = (&vocab[pair.0 as usize], &vocab[pair.1 as usize]);
            let text = format!("{left}{right}");
            // A pair can come up again when another way of spelling one of its tokens is merged: its rule exists.
            if done.insert(pair) {
                merges.push((left.clone(), right.clone()));
            }
            let id = *by_text.entry(text.clone()).or_insert_with(|| {
                vocab.push(text);
                vocab.len() as u32 - 1
            });
            self.merge(pair, id);
        }
        merges
    }

    /// Replaces `pair` by `id` in every word, and updates counts, places and queue.
    fn merge(&mut self, pair: Pair, id: u32) {
        let mut grown = HashSet::new();
        for index in self.places.remove(&pair).unwrap_or_default() {
            let word = &mut self.words[index as usize];
            if !word.ids.windows(2).any(|w| (w[0], w[1]) == pair) {
                continue;
            }
            for w in word.ids.windows(2) {
                if let Some(count) = self.pairs.get_mut(&(w[0], w[1])) {
                    *count -= word.count;
                }
            }
            let mut merged = Vec::with_capacity(word.ids.len());
            let mut i = 0;
            while i < word.ids.len() {
                let hit = i + 1 < word.ids.len() && (word.ids[i], word.ids[i + 1]) == pair;
                merged.push(if hit { id } else { word.ids[i] });
                i += if hit { 2 } else { 1 };
            }
            word.ids = merged;
            for new in self.count_word(index as usize) {
                if new.0 == id || new.1 == id {
                    self.places.entry(new).or_default().push(index);
                    grown.insert(new);
                }
            }
        }
        self.pairs.remove(&pair);
        for pair in grown {
            self.queue.push((self.pairs[&pair], Reverse(pair)));
        }
    }
}

/// The Hugging Face `tokenizer.json` of a vocabulary and its merges; with `ignore_merges`, a word that is in the vocabulary is one token
/// even if no merges lead to it (as in Llama 3).
fn tokenizer_json(vocab: &[String], merges: &[(String, String)], ignore_merges: bool) -> Value {
    let ids: Map<String, Value> = vocab.iter().cloned().zip((0u32..).map(Value::from)).collect();
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let split = json!({"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": false});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{
            "id": 0, "content": END_OF_TEXT, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level(false)]},
        "post_processor": null,
        "decoder": byte_level(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignore_merges,
            "vocab": ids, "merges": merges,
        },
    })
}
