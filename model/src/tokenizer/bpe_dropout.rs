//! BPE-dropout: the same text in many divisions into tokens (Provilkov, Emelianenko and Voita, "BPE-Dropout: Simple and Effective Subword
//! Regularization", ACL 2020).
//!
//! ```text
//! tokens of a word ← its bytes
//! repeat: all merges of neighbours that are possible; each is left out with probability P; the best of the rest is done
//! until none is left
//! ```
//! So a model sees that "un·related" and "unre·lat·ed" are one word, and trains the tokens that otherwise stand only inside others. What is
//! not divided into words, such as a special token, stays whole. `P = 0` gives the ids of [`Tokenizer::encode`], `P = 1` bytes.
//!
//! The library drops merges too, but by a generator of the thread that nothing can seed. Here a merge's draw is a pure function of the seed,
//! the pass over the corpus, the byte of the corpus where the word begins, and the number of the draw within the word, so the tokens do not
//! depend on threads, on how a text is cut into pieces, or on what was encoded before. The draws are made lazily, best merge first up to the
//! one that is done: the draws behind it decide nothing, and are independent of all others.

use onebit_kernels_cpu::rng::Key;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizer as _};

use super::{Result, Tokenizer, TokenizerError, packed};
use crate::bpe::tables::Tables;

pub(super) const PURPOSE: u32 = 0x6270_6564;
/// Bits of a step of [`Key`] that are the place of a word; the rest is the pass.
const PLACE_BITS: u32 = 48;

/// Where a text stands in a corpus that is gone through several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The pass over the corpus, from 0.
    pub pass: u16,
    /// Bytes of the corpus before the text; the high 16 bits are not looked at.
    pub byte: u64,
}

/// A byte-level BPE tokenizer that leaves out merges by chance.
pub struct BpeDropout<'a> {
    tokenizer: &'a Tokenizer,
    tables: Tables,
    p: f32,
    seed: u64,
}

impl<'a> BpeDropout<'a> {
    /// Leaves each merge out with probability `p`.
    ///
    /// # Errors
    /// [`TokenizerError::DropoutRate`] unless `0 ≤ p ≤ 1`; [`TokenizerError::NoBpeDropout`] for a tokenizer without merges, or one that is no
    /// plain byte-level BPE with a token for each byte.
    pub fn new(tokenizer: &'a Tokenizer, p: f32, seed: u64) -> Result<BpeDropout<'a>> {
        if !(0.0..=1.0).contains(&p) {
            return Err(TokenizerError::DropoutRate { found: p });
        }
        let refuse = |reason| TokenizerError::NoBpeDropout { reason };
        // The same test as for packing: what has tables is merged by them with the library's ids.
        let packed = packed::pack(&tokenizer.json, &tokenizer.fingerprint, tokenizer.vocab_size);
        let tables = packed.and_then(|bytes| Tables::open(bytes.into()).ok());
        let (tables, _) =
            tables.ok_or_else(|| refuse("the tokenizer is not a plain byte-level BPE with a token for each byte"))?;
        if tables.merges() == 0 {
            return Err(refuse(
                "the tokenizer has whole words and bytes, and no merges to leave out",
            ));
        }
        Ok(BpeDropout {
            tokenizer,
            tables,
            p,
            seed,
        })
    }

    /// The ids of `text`, which stands at `place`. As by [`Tokenizer::encode`], no token is added that the text does not hold, and special
    /// tokens written out in it are recognised. A text may be cut at [borders](Tokenizer::border) between words, each part with its place.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode(&self, text: &str, place: Place) -> Result<Vec<u32>> {
        let inner = &self.tokenizer.inner;
        let added = inner.get_added_vocabulary();
        let mut words = added.extract_and_normalize(inner.get_normalizer(), text);
        if let Some(pre_tokenizer) = inner.get_pre_tokenizer() {
            pre_tokenizer
                .pre_tokenize(&mut words)
                .map_err(|e| TokenizerError::Encode { reason: e.to_string() })?;
        }
        let mut ids = Vec::with_capacity(text.len() / 2);
        for (word, (start, _), tokens) in words.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            match tokens {
                // An added token, found before the text was divided into words.
                Some(tokens) => ids.extend(tokens.iter().map(|token| token.id)),
                None => ids.extend(self.encode_word(word, place.pass, place.byte.wrapping_add(start as u64))),
            }
        }
        Ok(ids)
    }

    /// A word, in the alphabet of bytes, that begins at `byte` of the corpus.
    fn encode_word(&self, word: &str, pass: u16, byte: u64) -> Vec<u32> {
        let step = u64::from(pass) << PLACE_BITS | byte & ((1 << PLACE_BITS) - 1);
        let key = Key::new(self.seed, PURPOSE, step);
        let mut draws = 0..;
        self.tables
            .symbols_dropping(word, || draws.next().is_some_and(|draw| key.uniform(draw) < self.p))
            .iter()
            .map(|symbol| symbol.id)
            .collect()
    }
}
