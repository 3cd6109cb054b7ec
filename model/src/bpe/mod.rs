//! A byte-level BPE tokenizer over the packed tables of a `.1bit` file, where they lie: `no_std + alloc`, for boards.
//!
//! ```text
//! text ─ added tokens found ─ words (words.rs) ─ bytes in their alphabet ─ merges (merge.rs) ─→ ids
//! ids ─ spellings ─ bytes ─ Utf8Stream ─→ text
//! ```
//!
//! The ids are those of `Tokenizer`, which has the same tables and merges below the `tokenizers` crate, and takes any other tokenizer besides. What
//! this one does not know (a normaliser, a pre-tokeniser of other expressions than [`words`] has, an added token that must be a single word) is
//! refused when it is opened, by name: there are no wrong ids.
//!
//! Opening reads the settings behind the tables, about a kilobyte of JSON, and none of the tables; what stays in memory is 1 KiB and the added
//! tokens. Encoding takes some 40 bytes of memory for each byte of the longest word.
//!
//! No call panics, whatever the bytes: the lints below let nothing by that could, but for a lack of memory.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unreachable,
    clippy::unwrap_used
)]

mod added;
pub(crate) mod byte_level;
mod error;
mod merge;
pub(crate) mod names;
pub(crate) mod tables;
mod utf8;
pub(crate) mod words;

use alloc::string::String;
use alloc::vec::Vec;

pub use error::BpeError;
pub use utf8::Utf8Stream;
#[cfg(feature = "std")]
pub(crate) use utf8::take_complete;

use crate::runtime::Values;
use added::{AddedTokens, Piece};
use names::at;
use tables::Tables;
use words::Step;

/// A byte-level BPE tokenizer in packed tables.
pub struct BpeTokenizer {
    tables: Tables,
    steps: Vec<Step>,
    added: AddedTokens,
    bos: Option<u32>,
    eos: Option<u32>,
}

impl core::fmt::Debug for BpeTokenizer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("BpeTokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .finish()
    }
}

impl BpeTokenizer {
    /// Takes a tokenizer in the form that `Tokenizer::pack` gives; the entries of its tables are looked up where they lie.
    ///
    /// # Errors
    /// [`BpeError`]: bytes that are no tables, settings that are none or that are not known here.
    pub fn new(packed: Values<u8>) -> Result<Self, BpeError> {
        let (tables, rest) = Tables::open(packed)?;
        if let Some(byte) = tables.missing_byte() {
            return Err(BpeError::NoByte { byte });
        }
        let part = |name| at(&rest, name);
        if !part("/normalizer").is_null() {
            return Err(BpeError::unknown("normalizer", part("/normalizer")));
        }
        if *part("/decoder/type") != "ByteLevel" {
            return Err(BpeError::unknown("decoder", part("/decoder")));
        }
        let steps = words::steps(part("/pre_tokenizer"))?;
        let added = AddedTokens::read(part("/added_tokens"), &tables)?;
        let mut tokenizer = Self {
            tables,
            steps,
            added,
            bos: None,
            eos: None,
        };
        let named = |names: &[&str]| names.iter().find_map(|name| tokenizer.id_of(name));
        let start = names::template_start(&rest).and_then(|name| tokenizer.id_of(name));
        (tokenizer.bos, tokenizer.eos) = (start.or_else(|| named(&names::BOS)), named(&names::EOS));
        Ok(tokenizer)
    }

    /// One more than the highest id.
    pub fn vocab_size(&self) -> usize {
        self.tables.vocab_size()
    }

    /// The id of a token by its spelling in the vocabulary.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        let added = self.added.by_content(token).map(|added| added.id);
        added.or_else(|| self.tables.find(token))
    }

    /// The spelling of a token in the vocabulary (in the printable alphabet of byte-level tokenizers).
    pub fn token_of(&self, id: u32) -> Option<&str> {
        let added = self.added.by_id(id).map(|added| added.content.as_str());
        added.or_else(|| self.tables.spelling(id))
    }

    /// Whether there is a token of this id.
    pub fn has_id(&self, id: u32) -> bool {
        self.token_of(id).is_some()
    }

    /// Whether `id` is a control token.
    pub fn is_special(&self, id: u32) -> bool {
        self.added.by_id(id).is_some_and(|added| added.special)
    }

    /// The token that begins a text, if the tokenizer names one (its post-processor's template, or a usual name).
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, by its usual name.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The ids of `text`. No token is added that the text does not hold; added tokens written out in it are recognised.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut spelling = String::new();
        self.added.divide(text, &mut |piece| match piece {
            Piece::Token(id) => ids.push(id),
            Piece::Text(text) => words::divide(&self.steps, text, &mut |word| {
                spelling.clear();
                byte_level::spell(word.as_bytes(), &mut spelling);
                ids.extend(self.tables.symbols(&spelling).iter().map(|symbol| symbol.id));
            }),
        });
        ids
    }

    /// Appends the bytes of one token.
    ///
    /// # Errors
    /// [`BpeError::UnknownId`].
    pub fn push_bytes(&self, id: u32, out: &mut Vec<u8>) -> Result<(), BpeError> {
        let vocab_size = self.vocab_size();
        let spelling = self.token_of(id).ok_or(BpeError::UnknownId { id, vocab_size })?;
        byte_level::push(spelling, out);
        Ok(())
    }

    /// The exact bytes of `ids`, control tokens included.
    ///
    /// # Errors
    /// [`BpeError::UnknownId`].
    pub fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>, BpeError> {
        let mut out = Vec::new();
        ids.iter().try_for_each(|&id| self.push_bytes(id, &mut out))?;
        Ok(out)
    }

    /// The text of `ids`, control tokens included; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`BpeError::UnknownId`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, BpeError> {
        let bytes = self.decode_bytes(ids)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The text that `id` completes in a `stream` of tokens; empty while a character is incomplete, and for a control token.
    ///
    /// # Errors
    /// [`BpeError::UnknownId`]; the stream stays as it was.
    pub fn push_token<'s>(&self, id: u32, stream: &'s mut Utf8Stream) -> Result<&'s str, BpeError> {
        stream.push(|bytes| match self.is_special(id) {
            true => Ok(()),
            false => self.push_bytes(id, bytes),
        })
    }
}
