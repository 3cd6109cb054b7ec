//! The two forms of a vocabulary, as the tokenizers library takes them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::{ModelWrapper, TrainerWrapper};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{AddedToken, Model, Token, TokenizerBuilder, TokenizerImpl};

use super::packed::tokenize;
use crate::bpe::tables::Tables;

/// The library's tokenizer over either form.
pub(super) type Inner =
    TokenizerImpl<Vocabulary, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// A vocabulary with its merges.
pub(super) enum Vocabulary {
    /// Any model of the library's, read from JSON.
    Library(Box<ModelWrapper>),
    /// Byte-level BPE in tables.
    Packed(Tables),
}

impl Vocabulary {
    /// Whether there is a token of this id.
    pub(super) fn has_id(&self, id: u32) -> bool {
        match self {
            Self::Library(model) => model.id_to_token(id).is_some(),
            Self::Packed(tables) => tables.spelling(id).is_some(),
        }
    }
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ModelWrapper::deserialize(deserializer).map(|model| Self::Library(Box::new(model)))
    }
}

impl Model for Vocabulary {
    type Trainer = TrainerWrapper;

    fn tokenize(&self, sequence: &str) -> tokenizers::Result<Vec<Token>> {
        match self {
            Self::Library(model) => model.tokenize(sequence),
            Self::Packed(tables) => Ok(tokenize(tables, sequence)),
        }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        match self {
            Self::Library(model) => model.token_to_id(token),
            Self::Packed(tables) => tables.find(token),
        }
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        match self {
            Self::Library(model) => model.id_to_token(id),
            Self::Packed(tables) => tables.spelling(id).map(str::to_owned),
        }
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        match self {
            Self::Library(model) => model.get_vocab(),
            Self::Packed(tables) => tables.iter().map(|(id, token)| (token.to_owned(), id)).collect(),
        }
    }

    fn get_vocab_size(&self) -> usize {
        match self {
            Self::Library(model) => model.get_vocab_size(),
            Self::Packed(tables) => tables.tokens(),
        }
    }

    fn save(&self, folder: &Path, prefix: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        match self {
            Self::Library(model) => model.save(folder, prefix),
            Self::Packed(_) => Err("a packed vocabulary is saved with its tokenizer.json".into()),
        }
    }

    fn get_trainer(&self) -> TrainerWrapper {
        match self {
            Self::Library(model) => model.get_trainer(),
            Self::Packed(_) => TrainerWrapper::BpeTrainer(Default::default()),
        }
    }
}

/// The library's tokenizer over tables; `rest` is the JSON without the vocabulary.
pub(super) fn over_tables(tables: Tables, rest: &serde_json::Value) -> Result<Inner, String> {
    fn part<T: serde::de::DeserializeOwned>(rest: &serde_json::Value, key: &str) -> Result<T, String> {
        T::deserialize(&rest[key]).map_err(|e| format!("{key}: {e}"))
    }
    let mut inner: Inner = TokenizerBuilder::new()
        .with_model(Vocabulary::Packed(tables))
        .with_normalizer(part(rest, "normalizer")?)
        .with_pre_tokenizer(part(rest, "pre_tokenizer")?)
        .with_post_processor(part(rest, "post_processor")?)
        .with_decoder(part(rest, "decoder")?)
        .build()
        .map_err(|e| e.to_string())?;
    let added: Option<Vec<AddedToken>> = part(rest, "added_tokens")?;
    inner.add_tokens(&added.unwrap_or_default());
    Ok(inner)
}
