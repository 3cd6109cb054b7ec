//! `config.json`, read and written with Hugging Face's keys.
//!
//! * Sizes and options that `transformers` knows stand at the top level under its names; `quantization_config` says how
//!   the weights are stored; what `transformers` has no word for stands under `"onebit"`.
//! * A model that `transformers` can run is written so that it does: `BitNetForCausalLM` with sub-norms and gated ReLU²,
//!   `LlamaForCausalLM` without sub-norms. Other combinations keep `model_type: "bitnet"` and describe themselves under
//!   `"onebit"`: `{qk_norm, residual_scaling, sub_norms, feed_forward, layer_bit_map}`.
//! * A soft-cap of the logits stands under the name that `transformers` has for it, `final_logit_softcapping`, though its BitNet and Llama do not cap.
//! * `layer_bit_map` is `{"embedding": MODE, "layer_modes": [MODE or {q, k, v, o, gate, up, down}, …], "lm_head": MODE}`
//!   with one entry per block, each mode `f16`, `int8`, `int4`, `ternary` or `binary`.
//! * The replaced system's keys (`num_heads`, `use_ternary`, …) are read as what they meant; what only its training used is
//!   ignored with a note.
//! * A key that is not known is refused with the nearest known one. Of a key given twice the last counts, because a
//!   published model has `quantization_config` twice.
//!
//! Writing a valid configuration and reading it back gives the same configuration.

mod fields;
mod keys;
mod legacy;
mod modes;
mod read;
mod write;

pub(crate) use fields::{nearest, shown};

use alloc::string::String;
use alloc::vec::Vec;
#[cfg(feature = "std")]
use std::path::Path;

use super::{ConfigError, FeedForward, LinearMode, ModelConfig};

/// Largest `config.json` accepted, in bytes. The longest that we write has 4096 blocks with seven modes each, about
/// 1 MiB; a parsed value takes up to fifty times the memory of its text.
pub const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// A configuration with what the reader wants said about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The configuration, validated.
    pub config: ModelConfig,
    /// One sentence for each key that was read in a way the writer of the file may not expect.
    pub notes: Vec<String>,
}

/// Reads the text of a `config.json`.
///
/// # Errors
/// [`ConfigError`] for text that is no JSON object, an unknown or contradictory key, an unsupported option, an
/// impossible shape.
pub fn parse(text: &str) -> Result<Parsed, ConfigError> {
    read::parse(text)
}

/// Reads a `config.json` from a file.
///
/// # Errors
/// [`ConfigError::Io`] when the file cannot be read, is longer than [`MAX_CONFIG_BYTES`] or is no UTF-8; otherwise as
/// [`parse`].
#[cfg(feature = "std")]
pub fn read_file(path: &Path) -> Result<Parsed, ConfigError> {
    let text = crate::files::read_text(path, MAX_CONFIG_BYTES).map_err(|error| ConfigError::Io {
        path: path.display().to_string(),
        message: error.to_string(),
    })?;
    parse(&text)
}

impl ModelConfig {
    /// Reads the text of a `config.json`; [`parse`] also returns the reader's notes.
    ///
    /// # Errors
    /// As [`parse`].
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        Ok(parse(text)?.config)
    }

    /// The text of a `config.json` whose float tensors are f32. Ends with a newline; the same configuration gives the
    /// same bytes.
    pub fn to_json(&self) -> String {
        self.to_json_with_dtype("float32")
    }

    /// As [`to_json`](Self::to_json) for float tensors of another type: `float32`, `float16` or `bfloat16`.
    pub fn to_json_with_dtype(&self, dtype: &str) -> String {
        write::config_text(self, dtype)
    }

    /// Its `layer_bit_map`, whatever the modes are.
    pub fn layer_bit_map(&self) -> serde_json::Value {
        write::map_value(self)
    }

    /// The same model under another `layer_bit_map`, its weights as floats.
    ///
    /// # Errors
    /// [`ConfigError`] for a map that is none, or of another number of layers.
    pub fn with_layer_bit_map(&self, map: &serde_json::Value) -> Result<Self, ConfigError> {
        read::with_map(self, map)
    }

    /// What of this model `transformers` has no words for, so that it would open the directory as another network. Empty: it opens it as it is.
    pub fn beyond_transformers(&self) -> Vec<&'static str> {
        let mode = |mode| self.uses_mode(mode);
        [
            (self.qk_norm, "qk_norm"),
            (
                self.embedding_mode != LinearMode::F16 || self.head_mode != LinearMode::F16,
                "the mode of embedding and head",
            ),
            (self.residual_scaling, "residual_scaling"),
            (self.final_logit_softcapping.is_some(), "final_logit_softcapping"),
            (self.feed_forward == FeedForward::Relu2, "a feed-forward without a gate"),
            (
                self.sub_norms && self.query_size() != self.hidden_size,
                "sub_norms of another width than hidden_size",
            ),
            (mode(LinearMode::Int8), "linears in mode int8"),
            (mode(LinearMode::Int4), "linears in mode int4"),
            (mode(LinearMode::Binary), "linears in mode binary"),
        ]
        .into_iter()
        .filter_map(|(there, what)| there.then_some(what))
        .collect()
    }
}
