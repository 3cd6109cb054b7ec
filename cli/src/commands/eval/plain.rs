//! The text to score in a build without the trainer: one file of plain text.

use std::path::Path;

use onebit_model::evaluation::count_words;
use onebit_model::tokenizer::Tokenizer;

use super::{Corpus, Eval};
use crate::commands::no_trainer;
use crate::{CliError, Result};

/// Ends of the names of files that are no plain text.
const OTHERS: [&str; 7] = ["tokens", "jsonl", "ndjson", "json", "parquet", "gz", "zst"];

impl Eval {
    /// Refuses what needs the trainer.
    pub(super) fn check_plain(&self) -> Result<()> {
        let given = [
            ("--stories", self.stories),
            ("--seed", self.seed.is_some()),
            ("--cache", self.cache.is_some()),
            ("--cache-theta", self.cache_theta.is_some()),
            ("--cache-weight", self.cache_weight.is_some()),
            ("--dynamic", self.dynamic.is_some()),
            ("--dynamic-lr", self.dynamic_lr.is_some()),
            ("--dynamic-decay", self.dynamic_decay.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(no_trainer(option)),
            None => Ok(()),
        }
    }
}

/// The text at `path` as tokens.
pub(super) fn read(path: &Path, tokenizer: &Tokenizer, _vocab_size: usize) -> Result<Corpus> {
    let other = |end: &str| OTHERS.contains(&end);
    if path.is_dir() || path.extension().and_then(|end| end.to_str()).is_some_and(other) {
        return Err(no_trainer(&format!(
            "--data: expected a file of plain text, found {}",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|e| CliError::io(path, "read the file of --data,", &e, "give a file of UTF-8 text"))?;
    // What precedes a text is the end of another, and each is ended by one end token.
    let mut ids: Vec<u32> = tokenizer.eos().into_iter().collect();
    ids.extend(tokenizer.encode(&text)?);
    if let Some(eos) = tokenizer.eos()
        && ids.last() != Some(&eos)
    {
        ids.push(eos);
    }
    Ok(Corpus {
        ids,
        words: Some(count_words(&text)),
        bytes: Some(text.len() as u64),
    })
}
