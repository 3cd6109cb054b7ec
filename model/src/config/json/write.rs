//! From a [`ModelConfig`] to the text of a `config.json`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Map, Value, json};

use crate::config::{FeedForward, LayerModes, LinearKind, LinearMode, ModelConfig, WeightStorage};

/// The shortest decimal of an f32, so that the file says 1e-05 and not 9.999999747378752e-06.
fn short(x: f32) -> Value {
    let wide = x.to_string().parse::<f64>().unwrap_or(f64::from(x));
    Value::from(if wide as f32 == x { wide } else { f64::from(x) })
}

fn layer_value(modes: &LayerModes) -> Value {
    if *modes == LayerModes::uniform(modes.q) {
        return Value::from(modes.q.name());
    }
    let entry = |kind: LinearKind| (kind.key().to_string(), Value::from(modes.get(kind).name()));
    Value::Object(LinearKind::ALL.into_iter().map(entry).collect())
}

/// Whether `quantization_config` alone cannot tell the modes.
fn needs_map(config: &ModelConfig) -> bool {
    let plain = |mode: LinearMode| matches!(mode, LinearMode::F16 | LinearMode::Ternary);
    let tables = [config.embedding_mode, config.head_mode];
    tables.iter().any(|&mode| mode != LinearMode::F16)
        || config.layer_modes.iter().any(|modes| {
            LinearKind::ALL.into_iter().any(|kind| !plain(modes.get(kind)))
                || (!config.feed_forward.has_gate() && modes.gate != modes.up)
        })
}

fn quantization(config: &ModelConfig) -> Option<Value> {
    if !config.uses_mode(LinearMode::Ternary) {
        return None;
    }
    let (class, mode) = match config.storage {
        WeightStorage::Master => ("autobitlinear", "online"),
        WeightStorage::PackedMultiply => ("autobitlinear", "offline"),
        WeightStorage::PackedDivide => ("bitlinear", "offline"),
    };
    // Full names only: how shorter ones match differs between versions of `transformers`.
    let mut excluded = Vec::new();
    for (layer, modes) in config.layer_modes.iter().enumerate() {
        for kind in LinearKind::ALL {
            if modes.get(kind) != LinearMode::Ternary {
                excluded.push(format!("model.layers.{layer}.{}", kind.module()));
            }
        }
    }
    // An explicit list replaces the default, which is the head.
    let excluded = match excluded.is_empty() {
        true => Value::Null,
        false => Value::from_iter(core::iter::once("lm_head".to_string()).chain(excluded)),
    };
    Some(json!({
        "quant_method": "bitnet",
        "linear_class": class,
        "quantization_mode": mode,
        "modules_to_not_convert": excluded,
    }))
}

/// The `layer_bit_map` of a configuration.
pub(super) fn map_value(config: &ModelConfig) -> Value {
    let modes: Vec<Value> = config.layer_modes.iter().map(layer_value).collect();
    json!({
        "embedding": config.embedding_mode.name(),
        "layer_modes": modes,
        "lm_head": config.head_mode.name(),
    })
}

pub(super) fn config_text(config: &ModelConfig, dtype: &str) -> String {
    let gated = config.feed_forward.has_gate();
    let plain = gated && !config.qk_norm && !config.residual_scaling;
    // With plain blocks and no sub-norms the network is Llama's, whatever the activation.
    let llama = plain && !config.sub_norms;
    let bitnet = plain && config.sub_norms && config.feed_forward == FeedForward::Relu2Gated;
    let map = needs_map(config);

    let mut root = Map::new();
    let mut put = |key: &str, value: Value| root.insert(key.to_string(), value);
    put(
        "architectures",
        json!([if llama { "LlamaForCausalLM" } else { "BitNetForCausalLM" }]),
    );
    put("model_type", Value::from(if llama { "llama" } else { "bitnet" }));
    put("vocab_size", Value::from(config.vocab_size));
    put("hidden_size", Value::from(config.hidden_size));
    put("intermediate_size", Value::from(config.intermediate_size));
    put("num_hidden_layers", Value::from(config.num_hidden_layers));
    put("num_attention_heads", Value::from(config.num_attention_heads));
    put("num_key_value_heads", Value::from(config.num_key_value_heads));
    put("head_dim", Value::from(config.head_dim));
    put("max_position_embeddings", Value::from(config.max_position_embeddings));
    put(
        "hidden_act",
        Value::from(if config.feed_forward == FeedForward::SwiGlu {
            "silu"
        } else {
            "relu2"
        }),
    );
    put("rms_norm_eps", short(config.rms_norm_eps));
    put("rope_theta", Value::from(config.rope_theta));
    // The spelling of transformers 5, beside that of transformers 4.
    put(
        "rope_parameters",
        json!({ "rope_theta": config.rope_theta, "rope_type": "default" }),
    );
    put("attention_bias", Value::Bool(false));
    put("attention_dropout", Value::from(0.0));
    if llama {
        put("mlp_bias", Value::Bool(false));
    }
    put("tie_word_embeddings", Value::Bool(config.tie_word_embeddings));
    if let Some(cap) = config.final_logit_softcapping {
        put("final_logit_softcapping", short(cap));
    }
    put("bos_token_id", config.bos_token_id.map_or(Value::Null, Value::from));
    put(
        "eos_token_id",
        match config.eos_token_ids.as_slice() {
            [] => Value::Null,
            [one] => Value::from(*one),
            many => Value::from(many),
        },
    );
    put("initializer_range", short(config.initializer_range));
    put("use_cache", Value::Bool(true));
    put("dtype", Value::from(dtype));
    put("torch_dtype", Value::from(dtype));
    if let Some(value) = quantization(config) {
        put("quantization_config", value);
    }
    if map || !(llama || bitnet) {
        let mut section = Map::new();
        section.insert("qk_norm".to_string(), Value::Bool(config.qk_norm));
        section.insert("residual_scaling".to_string(), Value::Bool(config.residual_scaling));
        section.insert("sub_norms".to_string(), Value::Bool(config.sub_norms));
        section.insert("feed_forward".to_string(), Value::from(config.feed_forward.name()));
        if map {
            section.insert("layer_bit_map".to_string(), map_value(config));
        }
        put("onebit", Value::Object(section));
    }
    let mut text = serde_json::to_string_pretty(&Value::Object(root)).unwrap_or_default();
    text.push('\n');
    text
}
