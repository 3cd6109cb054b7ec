//! The vocabulary of a tokenizer as GGUF files hold it.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use tokenizers::Model as _;

use super::pre::{self, Pre};
use super::{BYTE_LEVEL, GgmlError, GgmlVocabulary, SENTENCEPIECE, UNUSED_SCORE, unused_name};
use crate::bpe::byte_level;
use crate::tokenizer::Tokenizer;
use crate::tokenizer::decoding::Decoding;
use crate::tokenizer::kind::{TokenKind, byte_of};
use crate::tokenizer::packed::parts;
use crate::tokenizer::pieces::{self, Piece, SPACE};

type Checked<T> = std::result::Result<T, GgmlError>;

fn no_form<T>(reason: impl Into<String>) -> Checked<T> {
    Err(GgmlError::NoForm { reason: reason.into() })
}

/// The vocabulary of a tokenizer.
pub(super) fn vocabulary(tokenizer: &Tokenizer) -> Checked<GgmlVocabulary> {
    let json: Value = match serde_json::from_slice(tokenizer.json()) {
        Ok(json) => json,
        Err(error) => return no_form(format!("its tokenizer.json is not there whole ({error})")),
    };
    check_model(&json["model"])?;
    if let Some(found) = pre::matching_but_for_tags(&json["pre_tokenizer"]) {
        let made = byte_level_vocabulary(tokenizer, &json, &found)?;
        let normal = made
            .tokens
            .iter()
            .zip(&made.token_types)
            .filter(|(_, kind)| **kind == TokenKind::Normal.code());
        return match normal.map(|(token, _)| token).find(|token| pre::joins_in_tags(token)) {
            None => Ok(made),
            Some(token) => no_form(format!(
                "its token {token:?} is part of a tag such as <unk>, which no tokenizer.ggml.pre keeps whole"
            )),
        };
    }
    match pre::matching(&json["pre_tokenizer"]) {
        Some(found) => byte_level_vocabulary(tokenizer, &json, &found),
        None if json["pre_tokenizer"].is_null() => sentencepiece_vocabulary(tokenizer, &json),
        None => no_form(format!(
            "its pre-tokenizer {} divides text in a way that tokenizer.ggml.pre has no name for",
            short(&json["pre_tokenizer"])
        )),
    }
}

/// The beginning of a JSON value, for messages.
fn short(value: &Value) -> String {
    let text = value.to_string();
    let end = text.floor_char_boundary(300);
    if end < text.len() {
        format!("{}…", &text[..end])
    } else {
        text
    }
}

fn check_model(model: &Value) -> Checked<()> {
    if model["type"].as_str().is_some_and(|kind| kind != "BPE") || !model["merges"].is_array() {
        let kind = model["type"].as_str().unwrap_or("unnamed");
        return no_form(format!("its model is of type {kind}, and only BPE has one"));
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if model[key].as_str().is_some_and(|text| !text.is_empty()) {
            return no_form(format!("its model has a {key}"));
        }
    }
    if model["dropout"].as_f64().is_some_and(|dropout| dropout > 0.0) {
        return no_form("its model drops merges at random");
    }
    Ok(())
}

fn byte_level_vocabulary(tokenizer: &Tokenizer, json: &Value, found: &[&Pre]) -> Checked<GgmlVocabulary> {
    let normalizer = &json["normalizer"];
    let left_out = normalizer["type"] == "NFC" && found.iter().any(|pre| pre.composes);
    if !normalizer.is_null() && !left_out {
        return no_form(format!("its normalizer {} changes the text", short(normalizer)));
    }
    if !matches!(tokenizer.decoding, Decoding::ByteLevel) {
        return no_form(format!("its decoder {} is not byte-level", short(&json["decoder"])));
    }
    let mut alphabet = byte_level::alphabet().into_iter();
    if !json["model"]["unk_token"].is_null() && alphabet.any(|c| tokenizer.id_of(c.encode_utf8(&mut [0; 4])).is_none())
    {
        return no_form("some bytes have no token and become the unknown token; in llama.cpp they would be left out");
    }
    let (merges, made) = merges(&json["model"])?;
    let (tokens, kinds) = tokens(tokenizer, &made, false)?;
    let pre = choose(tokenizer, json, found, &tokens, &kinds)?;
    if let Some(merge) = merges.iter().find(|(left, _)| left.chars().skip(1).any(|c| c == ' ')) {
        return no_form(format!("the merge {merge:?} holds a space"));
    }
    let around = Around::new(tokenizer, &json["post_processor"])?;
    Ok(GgmlVocabulary {
        model: BYTE_LEVEL.to_owned(),
        pre: pre.names.first().map(|&name| name.to_owned()),
        merges: merges.iter().map(|(left, right)| format!("{left} {right}")).collect(),
        scores: Vec::new(),
        add_space_prefix: None,
        ..around.vocabulary(tokenizer, tokens, &kinds)
    })
}

/// The name whose treatment of whole words is the tokenizer's, or one where it makes no difference.
fn choose<'p>(
    tokenizer: &Tokenizer,
    json: &Value,
    found: &[&'p Pre],
    tokens: &[String],
    kinds: &[TokenKind],
) -> Checked<&'p Pre> {
    let ignores = json["model"]["ignore_merges"] == true;
    if let Some(pre) = found.iter().find(|pre| pre.ignore_merges == ignores) {
        return Ok(pre);
    }
    let merging = match ignores {
        false => None,
        true => {
            let mut json = json.clone();
            json["model"]["ignore_merges"] = false.into();
            match Tokenizer::from_bytes(json.to_string()) {
                Ok(tokenizer) => Some(tokenizer),
                Err(error) => return no_form(error.to_string()),
            }
        }
    };
    let model = merging.as_ref().unwrap_or(tokenizer).inner.get_model();
    let alone = |id: usize, token: &String| {
        let ids = model.tokenize(token).unwrap_or_default();
        matches!(ids.as_slice(), [only] if only.id as usize == id)
    };
    let normal = tokens
        .iter()
        .enumerate()
        .filter(|(id, _)| kinds.get(*id) == Some(&TokenKind::Normal));
    for (id, token) in normal {
        if !alone(id, token) {
            return no_form(format!(
                "its token {token:?} is made by no merges, and tokenizer.ggml.pre has no name that goes with ignore_merges: {ignores}"
            ));
        }
    }
    match found.first() {
        Some(pre) => Ok(pre),
        None => no_form("its pre-tokenizer has no name"),
    }
}

fn sentencepiece_vocabulary(tokenizer: &Tokenizer, json: &Value) -> Checked<GgmlVocabulary> {
    let Some(prefix) = space_prefix(&json["normalizer"]) else {
        return no_form(format!(
            "it has no pre-tokenizer, and its normalizer {} is not SentencePiece's",
            short(&json["normalizer"])
        ));
    };
    if !matches!(tokenizer.decoding, Decoding::Pieces { strip } if strip == usize::from(prefix)) {
        return no_form(format!(
            "its decoder {} is not SentencePiece's",
            short(&json["decoder"])
        ));
    }
    let bytes = json["model"]["byte_fallback"] == true
        && (0..=255u8).all(|byte| tokenizer.id_of(&format!("<0x{byte:02X}>")).is_some());
    if !bytes {
        return no_form("it does not spell unknown characters by bytes, and llama.cpp always does");
    }
    if json["model"]["ignore_merges"] == true {
        return no_form("its model has ignore_merges: true");
    }
    let (merges, made) = merges(&json["model"])?;
    let (tokens, mut kinds) = tokens(tokenizer, &made, true)?;
    let unknown = json["model"]["unk_token"]
        .as_str()
        .and_then(|token| tokenizer.id_of(token));
    if let Some(kind) = unknown.and_then(|id| kinds.get_mut(id as usize)) {
        *kind = TokenKind::Unknown;
    }
    let scores = scores(&tokens, &kinds, &merges)?;
    let around = Around::new(tokenizer, &json["post_processor"])?;
    Ok(GgmlVocabulary {
        model: SENTENCEPIECE.to_owned(),
        pre: Some("default".to_owned()),
        merges: Vec::new(),
        scores,
        add_space_prefix: Some(prefix),
        ..around.vocabulary(tokenizer, tokens, &kinds)
    })
}

/// Whether SentencePiece's normaliser puts a space before a text; `None` for any other normaliser.
fn space_prefix(normalizer: &Value) -> Option<bool> {
    let all = match normalizer["type"].as_str()? {
        "Sequence" => normalizer["normalizers"].as_array()?.as_slice(),
        _ => std::slice::from_ref(normalizer),
    };
    let replaces =
        |step: &Value| step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == SPACE;
    let prepends = |step: &Value| step["type"] == "Prepend" && (step["prepend"] == SPACE || step["prepend"] == " ");
    // What the removal of extra spaces does has no key: llama.cpp leaves them all.
    let extra = pieces::single_spaces();
    let all: Vec<&Value> = all.iter().filter(|step| !extra.contains(step)).collect();
    match all.as_slice() {
        [replace] if replaces(replace) => Some(false),
        [prepend, replace] if prepends(prepend) && replaces(replace) => Some(true),
        _ => None,
    }
}

/// The merges, and the spellings that they make.
fn merges(model: &Value) -> Checked<(Vec<(&str, &str)>, HashSet<String>)> {
    let listed = model["merges"].as_array().map(Vec::as_slice).unwrap_or_default();
    let header = |merge: &&Value| merge.as_str().is_some_and(|text| text.starts_with("#version"));
    let mut merges = Vec::with_capacity(listed.len());
    for merge in listed.iter().filter(|merge| !header(merge)) {
        match parts(merge) {
            Some(pair) => merges.push(pair),
            None => return no_form(format!("the merge {} is not two tokens", short(merge))),
        }
    }
    let made = merges.iter().map(|(left, right)| format!("{left}{right}")).collect();
    Ok((merges, made))
}

/// Spellings and kinds of all ids.
fn tokens(
    tokenizer: &Tokenizer,
    made: &HashSet<String>,
    sentencepiece: bool,
) -> Checked<(Vec<String>, Vec<TokenKind>)> {
    let added = tokenizer.inner.get_added_vocabulary().get_added_tokens_decoder();
    let mut tokens = Vec::with_capacity(tokenizer.vocab_size);
    let mut kinds = Vec::with_capacity(tokenizer.vocab_size);
    for id in 0..tokenizer.vocab_size {
        let of_id = u32::try_from(id).ok();
        let spelling = of_id.and_then(|id| tokenizer.token_of(id));
        let kind = match (&spelling, of_id.and_then(|id| added.get(&id))) {
            (None, _) => TokenKind::Unused,
            (_, Some(token)) if token.lstrip || token.rstrip || token.single_word => {
                return no_form(format!(
                    "its token {:?} takes the spaces beside it, or only whole words",
                    token.content
                ));
            }
            (_, Some(token)) if !token.special => TokenKind::UserDefined,
            (_, Some(_)) => TokenKind::Control,
            (Some(token), None) if sentencepiece && byte_of(token).is_some() => TokenKind::Byte,
            (Some(token), None) if *token == unused_name(id) && !made.contains(token) => TokenKind::Unused,
            _ => TokenKind::Normal,
        };
        tokens.push(spelling.unwrap_or_else(|| unused_name(id)));
        kinds.push(kind);
    }
    let mut seen = HashSet::with_capacity(tokens.len());
    match tokens.iter().find(|token| !seen.insert(token.as_str())) {
        Some(token) => no_form(format!("two of its ids are {token:?}")),
        None => Ok((tokens, kinds)),
    }
}

/// Scores that put the merges in the order they have: the earlier a token is made, the higher its score.
fn scores(tokens: &[String], kinds: &[TokenKind], merges: &[(&str, &str)]) -> Checked<Vec<f32>> {
    let normal: HashMap<&str, usize> = (tokens.iter().zip(kinds).enumerate())
        .filter(|(_, (_, kind))| **kind == TokenKind::Normal)
        .map(|(id, (token, _))| (token.as_str(), id))
        .collect();
    let mut ranks: HashMap<usize, usize> = HashMap::new();
    let mut wanted = Vec::with_capacity(merges.len());
    for &(left, right) in merges {
        // A merge with an added token never happens: such a token is taken out of the text before.
        let joint = format!("{left}{right}");
        let Some(&id) = normal.get(joint.as_str()) else {
            continue;
        };
        if !normal.contains_key(left) || !normal.contains_key(right) {
            continue;
        }
        let next = ranks.len();
        let rank = *ranks.entry(id).or_insert(next);
        if rank + 1 != ranks.len() {
            return no_form(format!(
                "the merges into {joint:?} are not one after the other, which no scores can say"
            ));
        }
        wanted.push((rank, left, right));
    }
    let mut last = ranks.len();
    let scores: Vec<f32> = (0..tokens.len())
        .map(|id| match (ranks.get(&id), kinds.get(id)) {
            (Some(&rank), _) => -(rank as f32),
            (None, Some(TokenKind::Normal)) => {
                last += 1;
                -(last as f32)
            }
            (None, Some(TokenKind::Unused)) => UNUSED_SCORE,
            _ => 0.0,
        })
        .collect();
    // Scores allow every way of dividing a token, so each must be among the merges.
    let pieces: Vec<Piece> = (tokens.iter().zip(kinds).zip(&scores))
        .map(|((text, &kind), &score)| Piece {
            text: text.into(),
            score,
            kind,
        })
        .collect();
    let rank_of = |(left, right): (&str, &str)| {
        let id = normal.get(format!("{left}{right}").as_str());
        id.and_then(|id| ranks.get(id)).copied().unwrap_or(usize::MAX)
    };
    let mut said: Vec<_> = pieces::merges(&pieces)
        .into_iter()
        .map(|pair| (rank_of(pair), pair.0, pair.1))
        .collect();
    said.sort_unstable();
    wanted.sort_unstable();
    wanted.dedup();
    let mut extra = said.iter().filter(|merge| wanted.binary_search(merge).is_err());
    match extra.next() {
        Some((_, left, right)) => no_form(format!(
            "{left:?} and {right:?} are not merged, though their joint spelling is a token"
        )),
        None if said.len() < wanted.len() => no_form("merges make tokens that are longer than GGUF readers take"),
        None => Ok(scores),
    }
}

/// The tokens that the post-processor puts around a text.
struct Around {
    begin: Option<u32>,
    end: Option<u32>,
}

impl Around {
    fn new(tokenizer: &Tokenizer, post: &Value) -> Checked<Around> {
        let mut around = Around { begin: None, end: None };
        let all = match post["type"].as_str() {
            None => return Ok(around),
            Some("Sequence") => post["processors"].as_array().map(Vec::as_slice).unwrap_or_default(),
            Some(_) => std::slice::from_ref(post),
        };
        for step in all {
            match step["type"].as_str() {
                Some("ByteLevel") => {}
                Some("TemplateProcessing") => {
                    let id = |part: &Value| {
                        let name = part["SpecialToken"]["id"].as_str()?;
                        tokenizer.id_of(name)
                    };
                    let parts = step["single"].as_array().map(Vec::as_slice).unwrap_or_default();
                    let (begin, end) = match parts {
                        [text] if text["Sequence"].is_object() => (None, None),
                        [begin, text] if text["Sequence"].is_object() => (Some(id(begin)), None),
                        [text, end] if text["Sequence"].is_object() => (None, Some(id(end))),
                        [begin, text, end] if text["Sequence"].is_object() => (Some(id(begin)), Some(id(end))),
                        _ => return no_form("its template puts more than one token before or after a text"),
                    };
                    if begin == Some(None) || end == Some(None) {
                        return no_form("its template names a token that is not in the vocabulary");
                    }
                    around = Around {
                        begin: begin.flatten(),
                        end: end.flatten(),
                    };
                }
                _ => return no_form(format!("its post-processor {} is no template", short(step))),
            }
        }
        Ok(around)
    }

    /// Tokens, kinds and special tokens; the rest is the scheme's.
    fn vocabulary(&self, tokenizer: &Tokenizer, tokens: Vec<String>, kinds: &[TokenKind]) -> GgmlVocabulary {
        GgmlVocabulary {
            tokens,
            token_types: kinds.iter().map(|kind| kind.code()).collect(),
            bos: self.begin.or(tokenizer.bos),
            eos: self.end.or(tokenizer.eos),
            unknown: tokenizer.unknown,
            padding: tokenizer.padding,
            add_bos: Some(self.begin.is_some()),
            add_eos: Some(self.end.is_some()),
            ..GgmlVocabulary::default()
        }
    }
}
