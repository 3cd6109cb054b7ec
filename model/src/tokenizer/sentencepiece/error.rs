//! What can be wrong with a SentencePiece model file.

/// An error of [`Tokenizer::from_sentencepiece`](crate::tokenizer::Tokenizer::from_sentencepiece).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SentencePieceError {
    /// The bytes end inside a field.
    #[error(
        "the file ends inside the field at byte {offset}: {needed} bytes are needed and {left} left; download it again"
    )]
    Truncated {
        /// Where the field begins.
        offset: usize,
        /// The bytes that its length says.
        needed: u64,
        /// The bytes that are there.
        left: usize,
    },
    /// A number of more than 64 bits.
    #[error(
        "the number at byte {offset} does not end within 10 bytes; this is no SentencePiece model, or a damaged one"
    )]
    Varint {
        /// Where the number begins.
        offset: usize,
    },
    /// A field that protobuf does not have.
    #[error(
        "byte {offset} begins a field of number {field} and wire type {wire_type}, which protobuf does not have; this is no SentencePiece model"
    )]
    Tag {
        /// Where the field begins.
        offset: usize,
        /// Its number.
        field: u64,
        /// Its wire type.
        wire_type: u8,
    },
    /// A field whose value is of another type than SentencePiece's.
    #[error(
        "{field} at byte {offset} is {found}, expected {expected}; this is no SentencePiece model, or a damaged one"
    )]
    Type {
        /// The field, by its name.
        field: &'static str,
        /// Where it begins.
        offset: usize,
        /// The type found.
        found: &'static str,
        /// The type expected.
        expected: &'static str,
    },
    /// A string that is no UTF-8.
    #[error("{field} at byte {offset} is not UTF-8; the file is damaged: download it again")]
    Utf8 {
        /// The field, by its name.
        field: &'static str,
        /// Where it begins.
        offset: usize,
    },
    /// There are no pieces.
    #[error("the model has no pieces; this is no SentencePiece model")]
    Empty,
    /// A piece without a spelling.
    #[error("piece {id} is empty; the file is damaged: download it again")]
    EmptyPiece {
        /// The piece.
        id: usize,
    },
    /// A type of piece that does not exist.
    #[error("piece {id} has type {code}; types are 1 to 6; the file is damaged: download it again")]
    UnknownType {
        /// The piece.
        id: usize,
        /// The code found.
        code: u64,
    },
    /// Two pieces of one spelling.
    #[error("pieces {first} and {second} are both {piece:?}; the file is damaged: download it again")]
    Duplicate {
        /// The lower id.
        first: usize,
        /// The higher id.
        second: usize,
        /// Their spelling.
        piece: String,
    },
    /// A score that orders nothing.
    #[error("the score of piece {id} is {score}; the file is damaged: download it again")]
    Score {
        /// The piece.
        id: usize,
        /// The score.
        score: f32,
    },
    /// A byte piece that names no byte.
    #[error(
        "piece {id} has the type of a byte and is spelled {piece:?}, expected <0x00> to <0xFF>; download the file again"
    )]
    Byte {
        /// The piece.
        id: usize,
        /// Its spelling.
        piece: String,
    },
    /// A piece that no trainer makes.
    #[error("piece {id} has {length} bytes, and at most {limit} are read; the file is damaged: download it again")]
    TooLong {
        /// The piece.
        id: usize,
        /// Its bytes.
        length: usize,
        /// The most allowed.
        limit: usize,
    },
    /// Not exactly one piece for what is not in the vocabulary.
    #[error("{found} pieces have the type of the unknown piece, expected one; the file is damaged: download it again")]
    Unknown {
        /// How many there are.
        found: usize,
    },
    /// The table that rewrites characters leads outside itself.
    #[error("normalizer_spec.precompiled_charsmap is damaged: {reason}; download the file again")]
    Charsmap {
        /// What is wrong with it.
        reason: String,
    },
    /// A setting that a `tokenizer.json` cannot say.
    #[error("the model uses {what}, which is not supported; give a tokenizer.json instead")]
    Unsupported {
        /// The setting.
        what: &'static str,
    },
}
