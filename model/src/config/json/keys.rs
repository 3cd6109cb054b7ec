//! Which keys of a `config.json` are read, which are harmless, and which are harmless at one value only.

use alloc::format;

use serde_json::Value;

use super::fields::Fields;
use crate::config::ConfigError;

/// Keys that are read, under Hugging Face's names.
pub(super) const READ: &[&str] = &[
    "architectures",
    "bos_token_id",
    "eos_token_id",
    "final_logit_softcapping",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "onebit",
    "quantization_config",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "vocab_size",
];

/// Keys of `transformers` that change nothing about the network.
pub(super) const IGNORED: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_name_or_path",
    "auto_map",
    "dtype",
    "id2label",
    "is_bitnet_config",
    "is_decoder",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "return_dict",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "unk_token_id",
    "use_cache",
];

/// Keys that would change the network, accepted at the value that leaves it alone.
const NEUTRAL: &[(&str, Neutral)] = &[
    ("add_cross_attention", Neutral::False),
    ("attention_bias", Neutral::False),
    ("attention_dropout", Neutral::Number(0.0)),
    ("chunk_size_feed_forward", Neutral::Number(0.0)),
    ("hidden_dropout", Neutral::Number(0.0)),
    ("input_bits", Neutral::Number(8.0)),
    ("is_encoder_decoder", Neutral::False),
    ("mlp_bias", Neutral::False),
    ("partial_rotary_factor", Neutral::Number(1.0)),
    ("pretraining_tp", Neutral::Number(1.0)),
    ("rope_interleaved", Neutral::False),
    ("sliding_window", Neutral::Null),
    ("use_sliding_window", Neutral::False),
    ("weight_bits", Neutral::Number(1.0)),
];

pub(super) const NEUTRAL_KEYS: [&str; NEUTRAL.len()] = {
    let mut keys = [""; NEUTRAL.len()];
    let mut i = 0;
    while i < keys.len() {
        keys[i] = NEUTRAL[i].0;
        i += 1;
    }
    keys
};

#[derive(Clone, Copy)]
enum Neutral {
    False,
    Null,
    Number(f64),
}

/// Keys of `quantization_config`.
pub(super) const QUANTIZATION: &[&str] = &[
    "linear_class",
    "modules_to_not_convert",
    "quant_method",
    "quantization_mode",
    "rms_norm_eps",
    "use_rms_norm",
];

/// Keys of `onebit`.
pub(super) const ONEBIT: &[&str] = &[
    "feed_forward",
    "layer_bit_map",
    "qk_norm",
    "residual_scaling",
    "sub_norms",
];

/// Keys of `layer_bit_map`.
pub(super) const LAYER_BIT_MAP: &[&str] = &["embedding", "layer_modes", "lm_head"];

/// Keys of `rope_parameters` and `rope_scaling`; `type` is the older spelling of `rope_type`.
pub(super) const ROPE: &[&str] = &["partial_rotary_factor", "rope_theta", "rope_type", "type"];

/// Checks that each neutral key that is present has its neutral value.
pub(super) fn check_neutral(fields: &Fields<'_>) -> Result<(), ConfigError> {
    for (key, neutral) in NEUTRAL {
        let Some(value) = fields.get(key) else { continue };
        let (ok, expected) = match neutral {
            Neutral::False => (value == &Value::Bool(false), "false".into()),
            Neutral::Null => (false, "null".into()),
            Neutral::Number(n) => (value.as_f64() == Some(*n), format!("{n}")),
        };
        if !ok {
            return Err(fields.unsupported(key, &expected, value));
        }
    }
    Ok(())
}
