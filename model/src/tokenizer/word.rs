//! Closed-vocabulary word level, for corpora that are tokenised already, such as WikiText and Penn Treebank.
//!
//! A token is a word between white space; the end of a line is the word [`END_OF_LINE`], a blank line too; a word
//! outside the vocabulary is [`UNKNOWN`]. In the `tokenizer.json` a normaliser writes the end of a line as its word,
//! and the decoder joins words by single spaces and turns that word into a newline again.

use std::collections::HashMap;

use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::{Result, Tokenizer, TokenizerError};

/// The token of any word outside the vocabulary; its id is 0.
pub const UNKNOWN: &str = "<unk>";
/// The token at the end of each line; its id is 1.
pub const END_OF_LINE: &str = "<eos>";
/// The smallest word vocabulary: the two tokens above and one word.
const MIN_WORD_VOCAB: usize = 3;

/// Counts words, text by text, and then makes the vocabulary.
pub struct WordTrainer {
    vocab_size: Option<usize>,
    counts: HashMap<String, u64>,
}

/// Trains a word-level tokenizer on all words of `texts`, or on the `vocab_size` most frequent.
///
/// # Errors
/// [`TokenizerError::VocabTooSmall`] below 3, [`TokenizerError::NoText`] if there are no words.
pub fn train_word<S: AsRef<str>>(texts: impl IntoIterator<Item = S>, vocab_size: Option<usize>) -> Result<Tokenizer> {
    let mut trainer = WordTrainer::new(vocab_size)?;
    for text in texts {
        trainer.feed(text.as_ref());
    }
    trainer.finish()
}

impl WordTrainer {
    /// A trainer for at most `vocab_size` tokens; `None` takes every word.
    ///
    /// # Errors
    /// [`TokenizerError::VocabTooSmall`] below 3.
    pub fn new(vocab_size: Option<usize>) -> Result<WordTrainer> {
        match vocab_size {
            Some(requested) if requested < MIN_WORD_VOCAB => Err(TokenizerError::VocabTooSmall {
                requested,
                minimum: MIN_WORD_VOCAB,
                reason: "the unknown word, the end of a line and one word",
            }),
            _ => Ok(WordTrainer {
                vocab_size,
                counts: HashMap::new(),
            }),
        }
    }

    /// Counts the words of one more text, on all threads. Texts end between words.
    pub fn feed(&mut self, text: &str) {
        let counted = text.par_lines().fold(HashMap::<&str, u64>::new, |mut counts, line| {
            for word in line.split_whitespace() {
                *counts.entry(word).or_default() += 1;
            }
            counts
        });
        for counts in counted.collect::<Vec<_>>() {
            for (word, count) in counts {
                match self.counts.get_mut(word) {
                    Some(total) => *total += count,
                    None => {
                        self.counts.insert(word.to_owned(), count);
                    }
                }
            }
        }
    }

    /// Makes the tokenizer: the two special words, then words by falling frequency, equal ones in byte order.
    ///
    /// # Errors
    /// [`TokenizerError::NoText`] if no word was counted.
    pub fn finish(self) -> Result<Tokenizer> {
        let mut words: Vec<(String, u64)> = self
            .counts
            .into_iter()
            .filter(|(word, _)| word != UNKNOWN && word != END_OF_LINE)
            .collect();
        if words.is_empty() {
            return Err(TokenizerError::NoText);
        }
        words.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        words.truncate(self.vocab_size.map_or(usize::MAX, |n| n - 2));
        let special = [UNKNOWN.to_owned(), END_OF_LINE.to_owned()];
        let vocab: Map<String, Value> = special
            .into_iter()
            .chain(words.into_iter().map(|w| w.0))
            .zip((0u32..).map(Value::from))
            .collect();
        let json = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [],
            "normalizer": {"type": "Replace", "pattern": {"String": "\n"}, "content": format!(" {END_OF_LINE} ")},
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": null,
            // WordPiece puts a space before each word but the first (no word begins with its prefix, a space); the
            // space on either side of an end of line goes with it.
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "WordPiece", "prefix": " ", "cleanup": false},
                {"type": "Fuse"},
                {"type": "Replace", "pattern": {"Regex": format!("(?:^| |(?<= )){END_OF_LINE}(?: |$)")}, "content": "\n"},
            ]},
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": UNKNOWN},
        });
        Tokenizer::from_bytes(json.to_string())
    }
}
