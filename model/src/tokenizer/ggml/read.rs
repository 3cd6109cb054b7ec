//! A tokenizer from the vocabulary of a GGUF file.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::{Value, json};

use super::pre::{self, Pre};
use super::{DEFAULT_PRE, GgmlError, GgmlVocabulary, SENTENCEPIECE};
use crate::tokenizer::kind::{TokenKind, byte_of};
use crate::tokenizer::pieces::{self, Frame, LONGEST_PIECE, Piece};
use crate::tokenizer::{Result, Tokenizer};

type Checked<T> = std::result::Result<T, GgmlError>;

/// The tokenizer of a vocabulary.
pub(super) fn tokenizer(vocabulary: &GgmlVocabulary) -> Result<Tokenizer> {
    let kinds = kinds(vocabulary)?;
    let spellings = spellings(vocabulary);
    let pieces: Vec<Piece> = (spellings.iter().zip(kinds).enumerate())
        .map(|(id, (text, kind))| Piece {
            text: Cow::Borrowed(text),
            score: vocabulary.scores.get(id).copied().unwrap_or_default(),
            kind: if text.is_empty() { TokenKind::Unused } else { kind },
        })
        .collect();
    check_pieces(&pieces, vocabulary.model == SENTENCEPIECE)?;
    let special = Special::new(vocabulary, &pieces);
    let json = match vocabulary.model == SENTENCEPIECE {
        true => sentencepiece(vocabulary, &pieces, &special)?,
        false => byte_level(vocabulary, &pieces, &special)?,
    };
    let mut tokenizer = Tokenizer::from_bytes(json.to_string())?;
    // A tokenizer.json has no place for these; a file that names them knows better than their usual spellings.
    tokenizer.bos = special.bos.or(tokenizer.bos);
    tokenizer.eos = special.eos.or(tokenizer.eos);
    tokenizer.unknown = special.unknown.or(tokenizer.unknown);
    tokenizer.padding = vocabulary.padding.or(tokenizer.padding);
    Ok(tokenizer)
}

/// The kinds of the tokens; told from spellings where an old file has none.
fn kinds(vocabulary: &GgmlVocabulary) -> Checked<Vec<TokenKind>> {
    let mut kinds = vocabulary.checked()?;
    if vocabulary.token_types.is_empty() {
        if vocabulary.model == SENTENCEPIECE {
            for (kind, token) in kinds.iter_mut().zip(&vocabulary.tokens) {
                if byte_of(token).is_some() {
                    *kind = TokenKind::Byte;
                }
            }
        }
        let special = [
            (vocabulary.bos, TokenKind::Control),
            (vocabulary.eos, TokenKind::Control),
            (vocabulary.unknown, TokenKind::Unknown),
        ];
        for (id, special) in special {
            if let Some(kind) = id.and_then(|id| kinds.get_mut(id as usize)) {
                *kind = special;
            }
        }
    }
    Ok(kinds)
}

/// The spellings; a token without one gets a name, as in llama.cpp.
fn spellings(vocabulary: &GgmlVocabulary) -> Vec<Cow<'_, str>> {
    let tokens = vocabulary.tokens.iter().enumerate();
    tokens
        .map(|(id, token)| match token.is_empty() {
            true => Cow::Owned(format!("[EMPTY_{id}]")),
            false => Cow::Borrowed(token.as_str()),
        })
        .collect()
}

fn check_pieces(pieces: &[Piece], sentencepiece: bool) -> Checked<()> {
    for (id, piece) in pieces.iter().enumerate() {
        if piece.kind == TokenKind::Byte && byte_of(&piece.text).is_none() {
            return Err(GgmlError::Byte {
                id,
                token: piece.text.to_string(),
            });
        }
        let length = piece.text.len();
        if sentencepiece && piece.kind == TokenKind::Normal && length > LONGEST_PIECE {
            return Err(GgmlError::TooLong {
                id,
                length,
                limit: LONGEST_PIECE,
            });
        }
    }
    Ok(())
}

/// The ids of special tokens: those of the file, else llama.cpp's for SentencePiece where the tokens of those ids are such.
struct Special {
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
}

impl Special {
    fn new(vocabulary: &GgmlVocabulary, pieces: &[Piece]) -> Special {
        let usual = |id: u32, kind: TokenKind| {
            let piece = pieces.get(id as usize)?;
            (vocabulary.model == SENTENCEPIECE && piece.kind == kind).then_some(id)
        };
        Special {
            bos: vocabulary.bos.or_else(|| usual(1, TokenKind::Control)),
            eos: vocabulary.eos.or_else(|| usual(2, TokenKind::Control)),
            unknown: vocabulary.unknown.or_else(|| usual(0, TokenKind::Unknown)),
        }
    }

    /// Spelling and id of a token that is put around each text, if one is.
    fn around(
        what: &'static str,
        id: Option<u32>,
        wanted: Option<bool>,
        usual: bool,
        pieces: &[Piece],
    ) -> Checked<Option<(String, u32)>> {
        let token = id.and_then(|id| Some((pieces.get(id as usize)?.text.to_string(), id)));
        match wanted {
            Some(true) if token.is_none() => Err(GgmlError::SpecialMissing { what }),
            Some(wanted) => Ok(token.filter(|_| wanted)),
            None => Ok(token.filter(|_| usual)),
        }
    }
}

fn sentencepiece(vocabulary: &GgmlVocabulary, pieces: &[Piece], special: &Special) -> Checked<Value> {
    let frame = Frame {
        normalizers: Vec::new(),
        prefix: vocabulary.add_space_prefix.unwrap_or(true),
        visible_space: true,
        begin: Special::around("bos", special.bos, vocabulary.add_bos, true, pieces)?,
        end: Special::around("eos", special.eos, vocabulary.add_eos, false, pieces)?,
    };
    Ok(frame.json(pieces, pieces::bpe_model(pieces)))
}

fn byte_level(vocabulary: &GgmlVocabulary, pieces: &[Piece], special: &Special) -> Checked<Value> {
    let name = vocabulary.pre.as_deref().unwrap_or(DEFAULT_PRE);
    let pre: &Pre = pre::find(name).ok_or_else(|| GgmlError::UnknownPre { found: name.to_owned() })?;
    let begin = Special::around("bos", special.bos, vocabulary.add_bos, pre.add_bos, pieces)?;
    let end = Special::around("eos", special.eos, vocabulary.add_eos, false, pieces)?;
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": pieces::added_tokens(pieces),
        "normalizer": null,
        "pre_tokenizer": pre.json(),
        "post_processor": pieces::template(begin.as_ref(), end.as_ref()),
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": pre.ignore_merges,
            "vocab": pieces::vocab(pieces), "merges": merges(vocabulary)?,
        },
    }))
}

/// The merges as pairs of tokens. Of two that say the same the first counts.
fn merges(vocabulary: &GgmlVocabulary) -> Checked<Vec<(&str, &str)>> {
    let tokens: HashSet<&str> = vocabulary.tokens.iter().map(String::as_str).collect();
    let mut seen = HashSet::with_capacity(vocabulary.merges.len());
    let mut pairs = Vec::with_capacity(vocabulary.merges.len());
    for (index, merge) in vocabulary.merges.iter().enumerate() {
        // A token may begin with a space, so the first character is not looked at.
        let first = merge.chars().next().map_or(0, char::len_utf8);
        let space = merge.get(first..).and_then(|rest| rest.find(' ')).map(|at| at + first);
        let pair = space.map(|at| (&merge[..at], &merge[at + 1..]));
        let Some((left, right)) = pair.filter(|(_, right)| !right.is_empty()) else {
            return Err(GgmlError::MergeForm {
                index,
                merge: merge.clone(),
            });
        };
        let missing = |token: &str| GgmlError::MergeToken {
            index,
            merge: merge.clone(),
            token: token.to_owned(),
        };
        if let Some(token) = [left, right].into_iter().find(|token| !tokens.contains(token)) {
            return Err(missing(token));
        }
        let joint = format!("{left}{right}");
        if !tokens.contains(joint.as_str()) {
            return Err(missing(&joint));
        }
        if seen.insert((left, right)) {
            pairs.push((left, right));
        }
    }
    Ok(pairs)
}
