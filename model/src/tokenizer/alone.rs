//! Text to token ids and back in a build without the `tokenizers` crate: a [`Tokenizer`] is the [`BpeTokenizer`] that lies packed in a `.1bit` file, and what
//! would need more is refused with the build that has it.

use crate::bpe::{BpeError, BpeTokenizer, Utf8Stream};
use crate::runtime::Values;

/// The end of a line in the tokenizers of closed vocabularies.
pub const END_OF_LINE: &str = "<eos>";

/// Result of a tokenizer operation.
pub type Result<T> = std::result::Result<T, TokenizerError>;

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The packed form.
    #[error(transparent)]
    Bpe(#[from] BpeError),
    /// A tokenizer in another form.
    #[error(
        "it is not packed, and this build has no tokenizers but byte-level BPE in .1bit files; use one with the feature `tokenizers`"
    )]
    NotPacked,
}

/// A byte-level BPE tokenizer, with the interface of the one over the `tokenizers` crate.
#[derive(Debug)]
pub struct Tokenizer {
    inner: BpeTokenizer,
}

impl Tokenizer {
    /// Takes a tokenizer in its packed form; `_json` is what it was made from, and not needed.
    ///
    /// # Errors
    /// [`TokenizerError::Bpe`].
    pub fn from_packed(packed: Values<u8>, _json: Values<u8>) -> Result<Tokenizer> {
        Ok(Self {
            inner: BpeTokenizer::new(packed)?,
        })
    }

    /// Refuses a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError::NotPacked`].
    pub fn from_bytes(_json: impl Into<Vec<u8>>) -> Result<Tokenizer> {
        Err(TokenizerError::NotPacked)
    }

    /// One more than the highest id.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }

    /// The id of a token by its spelling in the vocabulary.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.id_of(token)
    }

    /// The spelling of a token in the vocabulary.
    pub fn token_of(&self, id: u32) -> Option<String> {
        self.inner.token_of(id).map(str::to_owned)
    }

    /// Whether there is a token of this id.
    pub fn has_id(&self, id: u32) -> bool {
        self.inner.has_id(id)
    }

    /// Whether `id` is a control token.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.is_special(id)
    }

    /// The token that begins a text, if the tokenizer names one.
    pub fn bos(&self) -> Option<u32> {
        self.inner.bos()
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.inner.eos()
    }

    /// The ids of `text`.
    ///
    /// # Errors
    /// None: the interface is that of every tokenizer.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.inner.encode(text))
    }

    /// The exact bytes of `ids`, control tokens included.
    ///
    /// # Errors
    /// [`BpeError::UnknownId`].
    pub fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>> {
        Ok(self.inner.decode_bytes(ids)?)
    }

    /// A decoder that gives control tokens no text. What stands before it does not matter: each token has bytes of its own.
    pub fn stream_behind(&self, _before: &[u32]) -> TextStream<'_> {
        TextStream {
            tokenizer: &self.inner,
            stream: Utf8Stream::default(),
        }
    }
}

/// Turns ids into text as they come.
pub struct TextStream<'a> {
    tokenizer: &'a BpeTokenizer,
    stream: Utf8Stream,
}

impl TextStream<'_> {
    /// The text that `id` completes; empty while a character is incomplete, and for control tokens.
    ///
    /// # Errors
    /// [`BpeError::UnknownId`]; the stream stays as it was.
    pub fn push(&mut self, id: u32) -> Result<String> {
        Ok(self.tokenizer.push_token(id, &mut self.stream)?.to_owned())
    }

    /// What is left at the end: an incomplete character as U+FFFD.
    ///
    /// # Errors
    /// None: the interface is that of every tokenizer.
    pub fn finish(mut self) -> Result<String> {
        Ok(self.stream.finish().to_owned())
    }
}
