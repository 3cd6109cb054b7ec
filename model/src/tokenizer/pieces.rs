//! Vocabularies of scored pieces (SentencePiece) in the form of a `tokenizer.json`.
//!
//! SentencePiece's BPE joins, of all neighbours whose joint spelling is a piece, those of the highest score. A `tokenizer.json` has no
//! scores but a list of merges, so every way of dividing a piece into two pieces becomes a merge, in the order of the scores. The two differ
//! only where one piece can be made at two overlapping places in two different ways (`aa` + `a` and `a` + `aa`): SentencePiece takes the
//! left place, a list of merges the earlier merge. The same list is made by `transformers`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};

use super::kind::TokenKind;

/// SentencePiece's visible space.
pub(super) const SPACE: &str = "\u{2581}";
/// Longer pieces are divided into no merges: SentencePiece itself makes pieces of 16 characters.
pub(super) const LONGEST_PIECE: usize = 1024;

/// A token of a vocabulary, by its place the one of that id.
pub(super) struct Piece<'a> {
    /// Its spelling, spaces as [`SPACE`].
    pub text: Cow<'a, str>,
    /// Pieces of higher score are made first.
    pub score: f32,
    /// What it stands for.
    pub kind: TokenKind,
}

/// The merges of normal pieces, first to last. Of the ways to make one piece the longest left part is first.
pub(super) fn merges<'a>(pieces: &'a [Piece]) -> Vec<(&'a str, &'a str)> {
    let normal = |piece: &&Piece| piece.kind == TokenKind::Normal && piece.text.len() <= LONGEST_PIECE;
    let mut order: Vec<&Piece> = pieces.iter().filter(normal).collect();
    let spellings: HashSet<&str> = order.iter().map(|piece| &*piece.text).collect();
    // A stable sort: pieces of the same score stay in the order of their ids.
    order.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut merges = Vec::new();
    for piece in order {
        let cuts = piece.text.char_indices().map(|(at, _)| at).skip(1);
        let parts = cuts.map(|at| piece.text.split_at(at));
        let found = merges.len();
        merges.extend(parts.filter(|(left, right)| spellings.contains(left) && spellings.contains(right)));
        merges[found..].reverse();
    }
    merges
}

/// The normalisers that take away spaces at both ends and make one of a run of spaces.
pub(super) fn single_spaces() -> [Value; 2] {
    [(r"\A +| +\z", ""), (" {2,}", " ")]
        .map(|(regex, content)| json!({"type": "Replace", "pattern": {"Regex": regex}, "content": content}))
}

/// The parts of a `tokenizer.json` around a vocabulary of pieces.
pub(super) struct Frame {
    /// Normalisers before the space becomes visible.
    pub normalizers: Vec<Value>,
    /// Whether a space is put before a text.
    pub prefix: bool,
    /// Whether spaces are written as [`SPACE`].
    pub visible_space: bool,
    /// Spelling and id of what begins each text.
    pub begin: Option<(String, u32)>,
    /// Spelling and id of what ends each text.
    pub end: Option<(String, u32)>,
}

impl Frame {
    /// The whole `tokenizer.json`.
    pub(super) fn json(self, pieces: &[Piece], model: Value) -> Value {
        let mut normalizers = self.normalizers;
        if self.prefix {
            normalizers.push(json!({"type": "Prepend", "prepend": if self.visible_space { SPACE } else { " " }}));
        }
        let mut decoders = Vec::new();
        if self.visible_space {
            normalizers.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE}));
            decoders.push(json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}));
        }
        decoders.extend([json!({"type": "ByteFallback"}), json!({"type": "Fuse"})]);
        if self.prefix {
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added_tokens(pieces),
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": null,
            "post_processor": template(self.begin.as_ref(), self.end.as_ref()),
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": model,
        })
    }
}

/// The BPE model over pieces.
pub(super) fn bpe_model(pieces: &[Piece]) -> Value {
    let unknown = pieces.iter().find(|piece| piece.kind == TokenKind::Unknown);
    json!({
        "type": "BPE", "dropout": null, "unk_token": unknown.map(|piece| &piece.text), "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": has_bytes(pieces), "ignore_merges": false,
        "vocab": vocab(pieces), "merges": merges(pieces),
    })
}

/// Whether characters outside the vocabulary are spelled by bytes.
pub(super) fn has_bytes(pieces: &[Piece]) -> bool {
    pieces.iter().any(|piece| piece.kind == TokenKind::Byte)
}

/// Spellings with their ids.
pub(super) fn vocab(pieces: &[Piece]) -> Map<String, Value> {
    pieces
        .iter()
        .zip(0u32..)
        .map(|(piece, id)| (piece.text.to_string(), Value::from(id)))
        .collect()
}

/// The tokens that a text is searched for, in the order of their ids.
pub(super) fn added_tokens(pieces: &[Piece]) -> Vec<Value> {
    let added = pieces.iter().zip(0u32..).filter(|(piece, _)| piece.kind.is_added());
    added
        .map(|(piece, id)| {
            json!({
                "id": id, "content": piece.text, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": piece.kind != TokenKind::UserDefined,
            })
        })
        .collect()
}

/// The post-processor that puts `begin` before a text and `end` after it; null where there is neither.
pub(super) fn template(begin: Option<&(String, u32)>, end: Option<&(String, u32)>) -> Value {
    if begin.is_none() && end.is_none() {
        return Value::Null;
    }
    let sequence = |name: &str, type_id: u32| json!({"Sequence": {"id": name, "type_id": type_id}});
    let around = |name: &str, type_id: u32| {
        let mark = |(token, _): &(String, u32)| json!({"SpecialToken": {"id": token, "type_id": type_id}});
        let mut parts: Vec<Value> = begin.map(mark).into_iter().collect();
        parts.push(sequence(name, type_id));
        parts.extend(end.map(mark));
        parts
    };
    let tokens: BTreeMap<&str, u32> = [begin, end].into_iter().flatten().map(|(t, id)| (&**t, *id)).collect();
    let special: Map<String, Value> = tokens
        .into_iter()
        .map(|(token, id)| (token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]})))
        .collect();
    let pair = [around("A", 0), around("B", 1)].concat();
    json!({
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": pair,
        "special_tokens": special,
    })
}
