//! Packing a `tokenizer.json` into the tables of [`bpe`](crate::bpe), and words by these tables as the `tokenizers` crate has them.

use std::collections::BTreeMap;

use serde_json::Value;
use tokenizers::Token;

use crate::bpe::byte_level::alphabet;
use crate::bpe::tables::{MAGIC, Tables};

/// The tokens of one word of the pre-tokeniser: the library's own result, and the same on words that no merge reaches.
pub(super) fn tokenize(tables: &Tables, word: &str) -> Vec<Token> {
    let token = |id: u32, start: usize, end: usize| {
        let spelling = tables.spelling(id).unwrap_or_default().to_owned();
        Token::new(id, spelling, (start, end))
    };
    tables
        .symbols(word)
        .iter()
        .map(|s| token(s.id, s.start, s.end))
        .collect()
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
