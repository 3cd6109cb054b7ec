//! Metadata by key, typed: what a key must be, and which keys there are.

use super::container::Gguf;
use super::error::GgufError;
use super::value::{Array, Value, ValueType};

/// Keys of the graph, after `<architecture>.`.
pub(super) const CONTEXT_LENGTH: &str = "context_length";
pub(super) const EMBEDDING_LENGTH: &str = "embedding_length";
pub(super) const BLOCK_COUNT: &str = "block_count";
pub(super) const FEED_FORWARD_LENGTH: &str = "feed_forward_length";
pub(super) const VOCAB_SIZE: &str = "vocab_size";
pub(super) const HEAD_COUNT: &str = "attention.head_count";
pub(super) const HEAD_COUNT_KV: &str = "attention.head_count_kv";
pub(super) const EPSILON: &str = "attention.layer_norm_rms_epsilon";
pub(super) const KEY_LENGTH: &str = "attention.key_length";
pub(super) const VALUE_LENGTH: &str = "attention.value_length";
pub(super) const ROPE_DIMENSION: &str = "rope.dimension_count";
pub(super) const ROPE_BASE: &str = "rope.freq_base";
pub(super) const ROPE_SCALING: &str = "rope.scaling.type";
pub(super) const ROPE_FACTOR: &str = "rope.scaling.factor";
/// Keys that are accepted at the value that leaves the network as it is.
pub(super) const CAUSAL: &str = "attention.causal";
pub(super) const EXPERTS: &str = "expert_count";
pub(super) const EXPERTS_USED: &str = "expert_used_count";

const GRAPH_KEYS: [&str; 17] = [
    CONTEXT_LENGTH,
    EMBEDDING_LENGTH,
    BLOCK_COUNT,
    FEED_FORWARD_LENGTH,
    VOCAB_SIZE,
    HEAD_COUNT,
    HEAD_COUNT_KV,
    EPSILON,
    KEY_LENGTH,
    VALUE_LENGTH,
    ROPE_DIMENSION,
    ROPE_BASE,
    ROPE_SCALING,
    ROPE_FACTOR,
    CAUSAL,
    EXPERTS,
    EXPERTS_USED,
];

/// γ of each linear in the order of a forward pass, exactly, where the blocks hold it as f16; 0 for one that is not ternary.
pub(super) const LINEAR_SCALES: &str = "onebit.linear_scales";
/// All tokens that end a text, where the three of ggml do not tell them.
pub(super) const EOS_IDS: &str = "onebit.eos_token_ids";
/// `generation_config.json`.
pub(super) const GENERATION: &str = "onebit.generation_config";

const OWN_KEYS: [&str; 3] = [LINEAR_SCALES, EOS_IDS, GENERATION];

/// Reads keys of one file.
#[derive(Clone, Copy)]
pub(super) struct Keys<'g> {
    pub gguf: &'g Gguf,
}

impl<'g> Keys<'g> {
    fn wrong(key: &str, expected: &'static str, found: &Value) -> GgufError {
        GgufError::WrongType {
            key: key.to_string(),
            expected,
            found: found.type_name(),
        }
    }

    /// An unsigned integer, whatever its width.
    pub fn unsigned(self, key: &str) -> Result<Option<u64>, GgufError> {
        match self.gguf.metadata().get(key) {
            None => Ok(None),
            Some(&Value::Unsigned(n)) => Ok(Some(n)),
            // Some writers have no unsigned type.
            Some(&Value::Signed(n)) if n >= 0 => Ok(Some(n as u64)),
            Some(other) => Err(Self::wrong(key, "an unsigned integer", other)),
        }
    }

    /// A size: an unsigned integer that fits.
    pub fn size(self, key: &str) -> Result<usize, GgufError> {
        let Some(found) = self.unsigned(key)? else {
            return Err(GgufError::MissingKey { key: key.to_string() });
        };
        u32::try_from(found)
            .ok()
            .filter(|&n| n > 0)
            .map(|n| n as usize)
            .ok_or_else(|| GgufError::Value {
                key: key.to_string(),
                expected: "1 to 4294967295".to_string(),
                found: found.to_string(),
            })
    }

    /// A token id.
    pub fn id(self, key: &str) -> Result<Option<u32>, GgufError> {
        let Some(found) = self.unsigned(key)? else {
            return Ok(None);
        };
        u32::try_from(found).map(Some).map_err(|_| GgufError::Value {
            key: key.to_string(),
            expected: "a token id".to_string(),
            found: found.to_string(),
        })
    }

    /// A finite f32.
    pub fn f32(self, key: &str) -> Result<Option<f32>, GgufError> {
        match self.gguf.metadata().get(key) {
            None => Ok(None),
            Some(&Value::F32(x)) if x.is_finite() => Ok(Some(x)),
            Some(&Value::F32(x)) => Err(GgufError::Value {
                key: key.to_string(),
                expected: "a finite number".to_string(),
                found: x.to_string(),
            }),
            Some(other) => Err(Self::wrong(key, "an f32", other)),
        }
    }

    /// An f32 that must be there.
    pub fn required_f32(self, key: &str) -> Result<f32, GgufError> {
        self.f32(key)?
            .ok_or_else(|| GgufError::MissingKey { key: key.to_string() })
    }

    /// A truth value.
    pub fn bool(self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.gguf.metadata().get(key) {
            None => Ok(None),
            Some(&Value::Bool(x)) => Ok(Some(x)),
            Some(other) => Err(Self::wrong(key, "a bool", other)),
        }
    }

    /// A text.
    pub fn text(self, key: &str) -> Result<Option<&'g str>, GgufError> {
        match self.gguf.metadata().get(key) {
            None => Ok(None),
            Some(Value::Text(x)) => Ok(Some(x)),
            Some(other) => Err(Self::wrong(key, "a text", other)),
        }
    }

    fn array(self, key: &str, element: ValueType, expected: &'static str) -> Result<Option<&'g Array>, GgufError> {
        match self.gguf.metadata().get(key) {
            None => Ok(None),
            Some(Value::Array(array)) if array.element == element => Ok(Some(array)),
            Some(other) => Err(Self::wrong(key, expected, other)),
        }
    }

    fn words(self, array: &Array) -> impl Iterator<Item = [u8; 4]> + 'g {
        self.gguf.at(&array.place).as_chunks::<4>().0.iter().copied()
    }

    /// An array of f32.
    pub fn f32s(self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        let array = self.array(key, ValueType::F32, "an array of f32")?;
        Ok(array.map(|array| self.words(array).map(f32::from_le_bytes).collect()))
    }

    /// An array of i32.
    pub fn i32s(self, key: &str) -> Result<Option<Vec<i32>>, GgufError> {
        let array = self.array(key, ValueType::I32, "an array of i32")?;
        Ok(array.map(|array| self.words(array).map(i32::from_le_bytes).collect()))
    }

    /// An array of u32.
    pub fn u32s(self, key: &str) -> Result<Option<Vec<u32>>, GgufError> {
        let array = self.array(key, ValueType::U32, "an array of u32")?;
        Ok(array.map(|array| self.words(array).map(u32::from_le_bytes).collect()))
    }

    /// An array of texts.
    pub fn texts(self, key: &str) -> Result<Option<Vec<String>>, GgufError> {
        let Some(array) = self.array(key, ValueType::Text, "an array of texts")? else {
            return Ok(None);
        };
        let mut cursor = super::cursor::Cursor {
            bytes: self.gguf.at(&array.place),
            at: 0,
        };
        let mut texts = Vec::new();
        for _ in 0..array.count {
            texts.push(cursor.text(&|| format!("a text of key {key}"))?.to_string());
        }
        Ok(Some(texts))
    }

    /// Refuses keys that could mean something for the network of architecture `graph` and are not read.
    pub fn refuse_unknown(self, graph: &str) -> Result<(), GgufError> {
        for key in self.gguf.metadata().keys() {
            let unknown = |prefix: &str, known: &[&str]| {
                let supported: Vec<String> = known.iter().map(|name| format!("{prefix}{name}")).collect();
                Err(GgufError::UnknownKey {
                    key: key.clone(),
                    supported: supported.join(", "),
                })
            };
            // Descriptions: who made the model, from what, how it was quantised.
            if ["general.", "quantize.", "imatrix."]
                .iter()
                .any(|prefix| key.starts_with(prefix))
            {
                continue;
            }
            if let Some(rest) = key.strip_prefix(graph).and_then(|rest| rest.strip_prefix('.')) {
                if !GRAPH_KEYS.contains(&rest) {
                    return unknown(&format!("{graph}."), &GRAPH_KEYS);
                }
            } else if key.starts_with("onebit.") {
                if !OWN_KEYS.contains(&key.as_str()) {
                    return unknown("", &OWN_KEYS);
                }
            } else if key.starts_with("tokenizer.") {
                if !super::vocabulary::is_known(key) {
                    return unknown("", &super::vocabulary::KEYS);
                }
            } else if key.starts_with("split.") {
                self.refuse_split()?;
            } else {
                return unknown("", &["general.*", &format!("{graph}.*"), "tokenizer.*", "onebit.*"]);
            }
        }
        Ok(())
    }

    /// One file of several is no model.
    fn refuse_split(self) -> Result<(), GgufError> {
        match self.unsigned("split.count")? {
            Some(found) if found > 1 => Err(GgufError::Value {
                key: "split.count".to_string(),
                expected: "1: join the files first, with llama.cpp's llama-gguf-split --merge".to_string(),
                found: found.to_string(),
            }),
            _ => Ok(()),
        }
    }
}
