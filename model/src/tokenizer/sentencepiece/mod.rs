//! SentencePiece model files (`tokenizer.model`), as Llama 1 and 2, Mistral and T5 have them.
//!
//! The file is a protobuf message `ModelProto` (`sentencepiece_model.proto`): pieces with scores, how they were trained, and how text is
//! prepared. It becomes the `tokenizer.json` that says the same: BPE with the merges of [`pieces`](super::pieces), or Unigram; normalisers
//! for the table of characters, for extra spaces and for the space at the start; byte fallback. Some things are as in the conversion of
//! `transformers`, and another than in SentencePiece itself: control pieces written out in a text are recognised; the text after one, or
//! after a user-defined piece, gets a space at its start like the whole text; that space is not part of a user-defined piece; and a `▁` in
//! the text itself is not taken for a space at its end.

mod error;
#[cfg(test)]
mod tests;
mod wire;

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Value, json};
use tokenizers::normalizers::precompiled::Precompiled;

pub use error::SentencePieceError;

use super::kind::{TokenKind, byte_of};
use super::pieces::{self, Frame, LONGEST_PIECE, Piece, SPACE};
use super::{Result, Tokenizer, TokenizerError, charsmap};
use wire::Message;

type Read<T> = std::result::Result<T, SentencePieceError>;

/// How a text is divided into pieces.
#[derive(Clone, Copy, PartialEq)]
enum Algorithm {
    /// The most likely division.
    Unigram,
    /// The best neighbours first.
    Bpe,
}

/// What of a model file is used.
struct Model<'a> {
    pieces: Vec<Piece<'a>>,
    algorithm: Algorithm,
    bos: Option<u32>,
    eos: Option<u32>,
    padding: Option<u32>,
    /// The table that rewrites characters; empty for none.
    charsmap: &'a [u8],
    /// Whether a space is put before a text.
    prefix: bool,
    /// Whether spaces at both ends are taken away, and runs of spaces become one.
    single_spaces: bool,
    /// Whether spaces are written as [`SPACE`].
    visible_space: bool,
}

impl Tokenizer {
    /// Makes a tokenizer of a SentencePiece model file. A template that puts the beginning of the text before it is part of a BPE tokenizer,
    /// as every model with one expects it.
    ///
    /// # Errors
    /// [`TokenizerError::SentencePiece`], for each kind of damage another [`SentencePieceError`].
    pub fn from_sentencepiece(file: &[u8]) -> Result<Tokenizer> {
        let model = Model::read(file)?;
        let (bos, eos, padding) = (model.bos, model.eos, model.padding);
        let mut tokenizer = Self::from_bytes(model.json()?.to_string())?;
        tokenizer.bos = bos;
        tokenizer.eos = eos;
        tokenizer.padding = padding;
        Ok(tokenizer)
    }
}

impl<'a> Model<'a> {
    fn read(file: &'a [u8]) -> Read<Self> {
        let mut model = Model {
            pieces: Vec::new(),
            algorithm: Algorithm::Unigram,
            bos: Some(1),
            eos: Some(2),
            padding: None,
            charsmap: &[],
            prefix: true,
            single_spaces: true,
            visible_space: true,
        };
        let mut places = HashMap::new();
        let mut fields = Message::new(file);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => {
                    let id = model.pieces.len();
                    let (text, score, kind) = piece(id, field.message("a piece")?)?;
                    // Texts are searched for user-defined pieces before their spaces are replaced.
                    let text = match kind {
                        TokenKind::UserDefined if text.contains(SPACE) => Cow::Owned(text.replace(SPACE, " ")),
                        _ => Cow::Borrowed(text),
                    };
                    if let Some(first) = places.insert(text.clone(), id) {
                        return Err(SentencePieceError::Duplicate {
                            first,
                            second: id,
                            piece: text.into_owned(),
                        });
                    }
                    model.pieces.push(Piece { text, score, kind });
                }
                2 => model.trainer(field.message("trainer_spec")?)?,
                3 => model.normalizer(field.message("normalizer_spec")?)?,
                5 => denormalizer(field.message("denormalizer_spec")?)?,
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err(SentencePieceError::Empty);
        }
        let found = model
            .pieces
            .iter()
            .filter(|piece| piece.kind == TokenKind::Unknown)
            .count();
        if found != 1 {
            return Err(SentencePieceError::Unknown { found });
        }
        // The ids are defaults where the file does not say: only a control piece can be meant.
        let pieces = &model.pieces;
        let control = |id: &u32| {
            pieces
                .get(*id as usize)
                .is_some_and(|piece| piece.kind == TokenKind::Control)
        };
        model.bos = model.bos.filter(control);
        model.eos = model.eos.filter(control);
        model.padding = model.padding.filter(control);
        Ok(model)
    }

    /// `TrainerSpec`.
    fn trainer(&mut self, mut fields: Message<'a>) -> Read<()> {
        // Negative: there is none.
        let id = |number: u64| u32::try_from(number).ok();
        while let Some(field) = fields.next()? {
            match field.number {
                3 => {
                    self.algorithm = match field.number("trainer_spec.model_type")? {
                        1 => Algorithm::Unigram,
                        2 => Algorithm::Bpe,
                        3 => {
                            return Err(SentencePieceError::Unsupported {
                                what: "model_type WORD",
                            });
                        }
                        4 => {
                            return Err(SentencePieceError::Unsupported {
                                what: "model_type CHAR",
                            });
                        }
                        _ => {
                            return Err(SentencePieceError::Unsupported {
                                what: "a model_type other than UNIGRAM and BPE",
                            });
                        }
                    }
                }
                24 if field.number("trainer_spec.treat_whitespace_as_suffix")? != 0 => {
                    return Err(SentencePieceError::Unsupported {
                        what: "treat_whitespace_as_suffix",
                    });
                }
                41 => self.bos = id(field.number("trainer_spec.bos_id")?),
                42 => self.eos = id(field.number("trainer_spec.eos_id")?),
                43 => self.padding = id(field.number("trainer_spec.pad_id")?),
                _ => {}
            }
        }
        Ok(())
    }

    /// `NormalizerSpec`.
    fn normalizer(&mut self, mut fields: Message<'a>) -> Read<()> {
        while let Some(field) = fields.next()? {
            match field.number {
                2 => self.charsmap = field.message("normalizer_spec.precompiled_charsmap")?.bytes,
                3 => self.prefix = field.number("normalizer_spec.add_dummy_prefix")? != 0,
                4 => self.single_spaces = field.number("normalizer_spec.remove_extra_whitespaces")? != 0,
                5 => self.visible_space = field.number("normalizer_spec.escape_whitespaces")? != 0,
                _ => {}
            }
        }
        Ok(())
    }

    /// The `tokenizer.json` that says the same.
    fn json(self) -> Read<Value> {
        let mut normalizers = Vec::new();
        if !self.charsmap.is_empty() {
            let damaged = |reason| SentencePieceError::Charsmap { reason };
            charsmap::check(self.charsmap).map_err(damaged)?;
            let table = Precompiled::from(self.charsmap).map_err(|error| damaged(error.to_string()))?;
            normalizers.push(serde_json::to_value(table).map_err(|error| damaged(error.to_string()))?);
        }
        if self.single_spaces {
            normalizers.extend(pieces::single_spaces());
        }
        let model = match self.algorithm {
            Algorithm::Bpe => pieces::bpe_model(&self.pieces),
            Algorithm::Unigram => unigram_model(&self.pieces),
        };
        let begin = self.bos.filter(|_| self.algorithm == Algorithm::Bpe);
        let frame = Frame {
            normalizers,
            prefix: self.prefix,
            visible_space: self.visible_space,
            begin: begin.and_then(|id| Some((self.pieces.get(id as usize)?.text.to_string(), id))),
            end: None,
        };
        Ok(frame.json(&self.pieces, model))
    }
}

/// `ModelProto.SentencePiece`.
fn piece<'a>(id: usize, mut fields: Message<'a>) -> Read<(&'a str, f32, TokenKind)> {
    let (mut text, mut score, mut kind) = ("", 0.0, TokenKind::Normal);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => text = field.string("the spelling of a piece")?,
            2 => score = field.float("the score of a piece")?,
            3 => {
                let code = field.number("the type of a piece")?;
                let found = i32::try_from(code).ok().and_then(TokenKind::from_code);
                kind = found.ok_or(SentencePieceError::UnknownType { id, code })?;
            }
            _ => {}
        }
    }
    let length = text.len();
    if text.is_empty() {
        Err(SentencePieceError::EmptyPiece { id })
    } else if !score.is_finite() {
        Err(SentencePieceError::Score { id, score })
    } else if length > LONGEST_PIECE {
        Err(SentencePieceError::TooLong {
            id,
            length,
            limit: LONGEST_PIECE,
        })
    } else if kind == TokenKind::Byte && byte_of(text).is_none() {
        Err(SentencePieceError::Byte {
            id,
            piece: text.to_owned(),
        })
    } else {
        Ok((text, score, kind))
    }
}

/// A second table that rewrites what is decoded, which a `tokenizer.json` has no place for.
fn denormalizer(mut fields: Message) -> Read<()> {
    while let Some(field) = fields.next()? {
        if field.number == 2
            && !field
                .message("denormalizer_spec.precompiled_charsmap")?
                .bytes
                .is_empty()
        {
            return Err(SentencePieceError::Unsupported { what: "a denormalizer" });
        }
    }
    Ok(())
}

/// The Unigram model over pieces (Kudo, "Subword Regularization", 2018).
fn unigram_model(pieces: &[Piece]) -> Value {
    let vocab: Vec<Value> = pieces
        .iter()
        .map(|piece| json!([piece.text, f64::from(piece.score)]))
        .collect();
    json!({
        "type": "Unigram",
        "unk_id": pieces.iter().position(|piece| piece.kind == TokenKind::Unknown),
        "vocab": vocab,
        "byte_fallback": pieces::has_bytes(pieces),
    })
}

impl From<SentencePieceError> for TokenizerError {
    fn from(error: SentencePieceError) -> TokenizerError {
        TokenizerError::SentencePiece(error)
    }
}
