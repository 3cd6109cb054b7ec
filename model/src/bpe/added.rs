//! Tokens that stand beside the vocabulary, such as `<|endoftext|>`: found in a text before it is divided into words.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::Value;

use super::{BpeError, Tables};

/// One of them.
#[derive(Debug)]
pub(super) struct Added {
    pub content: String,
    pub id: u32,
    /// A control token.
    pub special: bool,
    /// Looked for after those that are not.
    normalized: bool,
    /// Takes the white space before it.
    lstrip: bool,
    /// Takes the white space behind it.
    rstrip: bool,
}

/// All of a tokenizer.
#[derive(Debug)]
pub(super) struct AddedTokens(pub Vec<Added>);

impl AddedTokens {
    /// Those of a `tokenizer.json`; what they are called must not be another token in the `tables`.
    pub fn read(list: &Value, tables: &Tables) -> Result<AddedTokens, BpeError> {
        let mut all: Vec<Added> = Vec::new();
        for entry in list.as_array().into_iter().flatten() {
            let unknown = || BpeError::unknown("added token", entry);
            let flag = |key: &str| entry[key].as_bool().ok_or_else(unknown);
            let content = entry["content"].as_str().filter(|content| !content.is_empty());
            let content = content.ok_or_else(unknown)?;
            let id = entry["id"].as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(unknown)?;
            let vocab_size = u32::try_from(tables.vocab_size()).unwrap_or(u32::MAX);
            let same = tables.find(content).is_none_or(|found| found == id);
            let twice = all.iter().any(|other| other.content == content || other.id == id);
            if !same || twice || id >= vocab_size || flag("single_word")? {
                return Err(unknown());
            }
            all.push(Added {
                content: content.to_owned(),
                id,
                special: flag("special")?,
                normalized: flag("normalized")?,
                lstrip: flag("lstrip")?,
                rstrip: flag("rstrip")?,
            });
        }
        Ok(AddedTokens(all))
    }

    pub fn by_id(&self, id: u32) -> Option<&Added> {
        self.0.iter().find(|added| added.id == id)
    }

    pub fn by_content(&self, content: &str) -> Option<&Added> {
        self.0.iter().find(|added| added.content == content)
    }

    /// Calls `each` with the id of every added token in `text`, and with the text before, between and behind them.
    pub fn divide(&self, text: &str, each: &mut dyn FnMut(Piece<'_>)) {
        self.find_all(text, false, &mut |piece| match piece {
            Piece::Text(text) => self.find_all(text, true, each),
            token => each(token),
        });
    }

    /// The same of those that are normalised, or of the others alone.
    fn find_all(&self, text: &str, normalized: bool, each: &mut dyn FnMut(Piece<'_>)) {
        // What is before `taken` was given to `each`; the next token is looked for from `from` on.
        let (mut taken, mut from) = (0, 0);
        while let Some((found, start)) = self.first(text, from, normalized) {
            let end = start.saturating_add(found.content.len());
            let before = text.get(taken..start).unwrap_or_default();
            let before = if found.lstrip { before.trim_end() } else { before };
            if !before.is_empty() {
                each(Piece::Text(before));
            }
            each(Piece::Token(found.id));
            let behind = text.get(end..).unwrap_or_default();
            let stripped = if found.rstrip { behind.trim_start() } else { behind };
            taken = text.len().saturating_sub(stripped.len());
            from = end;
        }
        match text.get(taken..) {
            Some(rest) if !rest.is_empty() => each(Piece::Text(rest)),
            _ => {}
        }
    }

    /// The leftmost token from byte `from` on, the longest of those that begin there, and where it begins.
    fn first(&self, text: &str, from: usize, normalized: bool) -> Option<(&Added, usize)> {
        let mut all = self.0.iter().filter(|added| added.normalized == normalized).peekable();
        all.peek()?;
        let rest = text.get(from..)?;
        rest.char_indices().find_map(|(at, _)| {
            let here = rest.get(at..)?;
            let found = self.0.iter().filter(|added| added.normalized == normalized);
            let found = found.filter(|added| here.starts_with(added.content.as_str()));
            Some((found.max_by_key(|added| added.content.len())?, from.saturating_add(at)))
        })
    }
}

/// A part of a text.
pub(super) enum Piece<'t> {
    /// An added token.
    Token(u32),
    /// What is no added token.
    Text(&'t str),
}
