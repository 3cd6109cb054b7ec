//! A `tokenizer.json`, looked over before and after the library reads it.
//!
//! The library trusts the file: it takes memory by a table's length field, follows places without looking, fails on some settings when a text
//! comes, and gives added tokens other ids than the file says. What it would do wrong is an error here, each kind its own [`JsonError`].

mod error;
mod scan;
mod shapes;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use serde::Deserialize as _;
use serde_json::Value;

pub use error::JsonError;

use super::charsmap;
use super::vocabulary::Inner;

/// Reads the file; the JSON is returned beside the tokenizer. The library gets what was checked, not the text once more.
pub(super) fn read(json: &[u8]) -> Result<(Inner, Value), JsonError> {
    scan::scan(json)?;
    let library = |reason: String| JsonError::Library { reason };
    let value: Value = serde_json::from_slice(json).map_err(|e| library(e.to_string()))?;
    check_parts(&value)?;
    let mut inner = Inner::deserialize(&value).map_err(|e| library(e.to_string()))?;
    // A file may carry the truncation and padding of its last use; a corpus must lose and gain nothing.
    inner.with_truncation(None).map_err(|e| library(e.to_string()))?;
    inner.with_padding(None);
    check_added(&inner, &value["added_tokens"])?;
    Ok((inner, value))
}

/// The number of ids: one more than the highest.
pub(super) fn vocab_size(inner: &Inner) -> Result<usize, JsonError> {
    let vocab = inner.get_vocab(true);
    let Some((token, &id)) = vocab.iter().max_by_key(|(_, id)| **id) else {
        return Err(JsonError::Empty);
    };
    if u64::from(id) > scan::highest_id(vocab.len()) {
        return Err(JsonError::IdOutside {
            token: token.clone(),
            id: id.into(),
            tokens: vocab.len(),
        });
    }
    Ok(id as usize + 1)
}

/// Refuses settings on which the library fails later; the vocabulary is not looked at.
pub(super) fn check_parts(value: &Value) -> Result<(), JsonError> {
    let mut parts = ["normalizer", "pre_tokenizer", "decoder"].into_iter();
    parts.try_for_each(|part| check_part(part, &value[part]))
}

/// The settings of a part and of the steps inside it.
fn check_part(part: &str, step: &Value) -> Result<(), JsonError> {
    match (part, step["type"].as_str()) {
        ("normalizer", Some("Precompiled")) => {
            let damaged = |reason: String| JsonError::Charsmap { reason };
            let text = step["precompiled_charsmap"].as_str();
            let text = text.ok_or_else(|| damaged("it is no string".to_owned()))?;
            let table = base64::prelude::BASE64_STANDARD.decode(text);
            charsmap::check(&table.map_err(|error| damaged(error.to_string()))?).map_err(damaged)?;
        }
        ("pre_tokenizer", Some("FixedLength")) if step["length"] == 0 => {
            let setting = "its pre_tokenizer cuts pieces of length 0";
            return Err(JsonError::Setting { setting });
        }
        ("decoder", Some("Strip")) if step["stop"] != 0 => {
            let setting = "its decoder strips the end of each token";
            return Err(JsonError::Setting { setting });
        }
        _ => {}
    }
    let inside = [&step["normalizers"], &step["pretokenizers"], &step["decoders"]];
    let mut steps = inside.into_iter().filter_map(Value::as_array).flatten();
    steps.try_for_each(|step| check_part(part, step))
}

/// Whether the added tokens got the ids that the file gives them.
fn check_added(inner: &Inner, added: &Value) -> Result<(), JsonError> {
    for token in added.as_array().into_iter().flatten() {
        let (Some(content), Some(id)) = (token["content"].as_str(), token["id"].as_u64()) else {
            continue;
        };
        if let Some(found) = inner.token_to_id(content).filter(|&found| u64::from(found) != id) {
            return Err(JsonError::AddedId {
                token: content.to_owned(),
                id,
                found,
            });
        }
    }
    Ok(())
}
