//! From the text of a `config.json` to a [`ModelConfig`].

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;

use super::fields::{Fields, shown};
use super::modes::{Modes, Quantization, layer_bit_map};
use super::{Parsed, keys, legacy};
use crate::config::{ConfigError, FeedForward, LayerModes, LinearKind, LinearMode, ModelConfig, WeightStorage, limits};

/// Whose defaults apply to absent keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    BitNet,
    Llama,
    Legacy,
}

pub(super) fn parse(text: &str) -> Result<Parsed, ConfigError> {
    let value: Value = serde_json::from_str(text).map_err(|e| ConfigError::Syntax { message: e.to_string() })?;
    let root = match &value {
        Value::Object(_) => Fields::new(&value, "")?,
        other => {
            return Err(ConfigError::Syntax {
                message: format!("expected an object, found {}", shown(other)),
            });
        }
    };
    root.refuse_unknown(&[
        keys::READ,
        keys::IGNORED,
        &keys::NEUTRAL_KEYS,
        legacy::READ,
        legacy::TRAINING,
    ])?;
    keys::check_neutral(&root)?;
    let family = family(&root)?;
    let mut notes = Vec::new();
    legacy::check(&root, family == Family::Legacy, &mut notes)?;
    let onebit = root.object("onebit")?;
    if let Some(section) = &onebit {
        section.refuse_unknown(&[keys::ONEBIT])?;
    }

    let hidden_size = root.required("hidden_size", "hidden_size", "width of the residual stream")?;
    let heads = root.required("num_attention_heads", "num_heads", "query heads")?;
    let layers = root.required("num_hidden_layers", "num_layers", "number of blocks")?;
    // Checked here as well as in `validate`, because one entry of `layer_modes` is allocated for each.
    if layers > limits::LAYERS {
        let expected = format!("1 to {}", limits::LAYERS);
        return Err(ConfigError::Invalid {
            field: "num_hidden_layers",
            expected,
            found: layers.to_string(),
        });
    }
    let head_dim = match root.size("head_dim", "head_dim")? {
        Some(dim) => dim,
        None if heads == 0 || hidden_size % heads != 0 => {
            return Err(ConfigError::Invalid {
                field: "num_attention_heads",
                expected: format!("a divisor of hidden_size = {hidden_size}, or an explicit head_dim"),
                found: heads.to_string(),
            });
        }
        None => hidden_size / heads,
    };
    let legacy = family == Family::Legacy;
    let flag = |ours: &'static str, theirs: &'static str, default: bool| -> Result<bool, ConfigError> {
        let new = onebit.as_ref().map(|section| section.bool(ours)).transpose()?.flatten();
        match (new, root.bool(theirs)?) {
            (Some(a), Some(b)) if a != b => Err(ConfigError::Contradiction {
                first: format!("`onebit.{ours}` = {a}"),
                second: format!("`{theirs}` = {b}"),
            }),
            (a, b) => Ok(a.or(b).unwrap_or(default)),
        }
    };
    let (modes, storage) = modes(&root, onebit.as_ref(), layers, legacy, &mut notes)?;
    let tie_word_embeddings = root.bool("tie_word_embeddings")?.unwrap_or(legacy);
    let eps_default = if family == Family::Llama { 1e-6 } else { 1e-5 };
    let eps_key = root
        .either("rms_norm_eps", "layer_norm_eps")?
        .map_or("rms_norm_eps", |(key, _)| key);
    let positions = "longest context in tokens";
    let config = ModelConfig {
        vocab_size: root.required("vocab_size", "vocab_size", "number of token ids")?,
        hidden_size,
        intermediate_size: root.required(
            "intermediate_size",
            "intermediate_size",
            "width inside the feed-forward",
        )?,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: root
            .size("num_key_value_heads", "num_key_value_heads")?
            .unwrap_or(heads),
        head_dim,
        max_position_embeddings: root.required("max_position_embeddings", "max_seq_len", positions)?,
        rms_norm_eps: root.number(eps_key)?.unwrap_or(eps_default) as f32,
        rope_theta: rope_theta(&root)?.unwrap_or(if family == Family::BitNet { 500_000.0 } else { 10_000.0 }),
        feed_forward: feed_forward(&root, onebit.as_ref(), family)?,
        tie_word_embeddings,
        sub_norms: flag(
            "sub_norms",
            "use_subln",
            family == Family::BitNet || is_one_bit_llm(&root),
        )?,
        qk_norm: flag("qk_norm", "use_qk_norm", legacy)?,
        residual_scaling: flag("residual_scaling", "use_residual_scaling", legacy)?,
        final_logit_softcapping: root.number("final_logit_softcapping")?.map(|cap| cap as f32),
        layer_modes: modes.layers,
        embedding_mode: modes.embedding,
        head_mode: head_mode(&modes.head, modes.embedding, tie_word_embeddings),
        bos_token_id: root
            .get("bos_token_id")
            .map(|value| token(&root, "bos_token_id", value))
            .transpose()?,
        eos_token_ids: eos(&root)?,
        initializer_range: root.number("initializer_range")?.unwrap_or(0.02) as f32,
        storage,
    };
    config.validate()?;
    Ok(Parsed { config, notes })
}

fn family(root: &Fields<'_>) -> Result<Family, ConfigError> {
    match root.text("model_type")? {
        Some("bitnet") => Ok(Family::BitNet),
        Some("llama") => Ok(Family::Llama),
        Some(other) => Err(root.unsupported("model_type", "\"bitnet\" or \"llama\"", &Value::from(other))),
        None if legacy::is_legacy(root) => Ok(Family::Legacy),
        None => Ok(Family::BitNet),
    }
}

/// The 1bitLLM reproductions call themselves `llama`, keep float weights, and announce BitNet by `weight_bits: 1` or
/// by the architecture's name with a small n.
fn is_one_bit_llm(root: &Fields<'_>) -> bool {
    let named = |list: &Value| {
        list.as_array()
            .is_some_and(|names| names.iter().any(|n| n == "BitnetForCausalLM"))
    };
    root.get("weight_bits").is_some() || root.get("architectures").is_some_and(named)
}

fn feed_forward(root: &Fields<'_>, onebit: Option<&Fields<'_>>, family: Family) -> Result<FeedForward, ConfigError> {
    let act = match root.text("hidden_act")? {
        None => None,
        Some("relu2") => Some(FeedForward::Relu2Gated),
        Some("silu" | "swish") => Some(FeedForward::SwiGlu),
        Some(other) => return Err(root.unsupported("hidden_act", "\"relu2\" or \"silu\"", &Value::from(other))),
    };
    let named = match onebit.and_then(|section| section.get("feed_forward")) {
        None => None,
        Some(value) => match value.as_str().and_then(FeedForward::by_name) {
            Some(kind) => Some(kind),
            None => {
                let expected = "\"relu2_gated\", \"swiglu\" or \"relu2\"".into();
                let key = "onebit.feed_forward".into();
                return Err(ConfigError::Unsupported {
                    key,
                    expected,
                    found: shown(value),
                });
            }
        },
    };
    let chosen = match named {
        Some(kind) => Some(kind),
        None => legacy::feed_forward(root, family == Family::Legacy && act.is_none())?,
    };
    match (chosen, act) {
        (Some(kind), Some(act)) if (kind == FeedForward::SwiGlu) != (act == FeedForward::SwiGlu) => {
            Err(ConfigError::Contradiction {
                first: format!("feed-forward {}", kind.name()),
                second: format!("`hidden_act` = {:?}", root.text("hidden_act")?.unwrap_or_default()),
            })
        }
        (Some(kind), _) => Ok(kind),
        (None, Some(act)) => Ok(act),
        (None, None) if family == Family::Llama => Ok(FeedForward::SwiGlu),
        (None, None) => Ok(FeedForward::Relu2Gated),
    }
}

/// The modes of all blocks and the storage. `layer_bit_map` wins, but must agree with `quantization_config` about which
/// linears are ternary, because that is what says which tensors are packed.
fn modes(
    root: &Fields<'_>,
    onebit: Option<&Fields<'_>>,
    layers: usize,
    legacy: bool,
    notes: &mut Vec<String>,
) -> Result<(Modes, WeightStorage), ConfigError> {
    let quantization = root
        .object("quantization_config")?
        .map(Quantization::read)
        .transpose()?;
    let storage = quantization.as_ref().map_or(WeightStorage::Master, |q| q.storage);
    let map = match (
        onebit.and_then(|section| section.get("layer_bit_map")),
        root.get("layer_bit_map"),
    ) {
        (Some(a), Some(b)) if a != b => {
            return Err(ConfigError::Contradiction {
                first: "`onebit.layer_bit_map`".into(),
                second: "`layer_bit_map`".into(),
            });
        }
        (a, b) => a.or(b),
    };
    let fallback = match () {
        () if legacy => legacy::mode(root, notes)?,
        () if is_one_bit_llm(root) => LinearMode::Ternary,
        () => LinearMode::F16,
    };
    let Some(map) = map else {
        let of_layer = |layer| match &quantization {
            None => LayerModes::uniform(fallback),
            Some(quantization) => {
                let mut modes = LayerModes::default();
                LinearKind::ALL
                    .into_iter()
                    .for_each(|kind| modes.set(kind, quantization.mode(layer, kind)));
                modes
            }
        };
        let modes = Modes {
            layers: (0..layers).map(of_layer).collect(),
            embedding: LinearMode::F16,
            head: None,
        };
        return Ok((modes, storage));
    };
    let all = layer_bit_map(Fields::new(map, "layer_bit_map")?, layers, legacy, notes)?;
    if let Some(quantization) = &quantization {
        for (layer, modes) in all.layers.iter().enumerate() {
            for kind in LinearKind::ALL.into_iter().filter(|&kind| kind != LinearKind::Gate) {
                let (ours, theirs) = (modes.get(kind), quantization.mode(layer, kind));
                if (ours == LinearMode::Ternary) != (theirs == LinearMode::Ternary) {
                    return Err(ConfigError::Contradiction {
                        first: format!(
                            "`layer_bit_map` ({} of layer {layer} is {})",
                            kind.module(),
                            ours.name()
                        ),
                        second: format!("`quantization_config.modules_to_not_convert` (it is {})", theirs.name()),
                    });
                }
            }
        }
    }
    Ok((all, storage))
}

/// `config` with the modes of a `layer_bit_map`.
pub(super) fn with_map(config: &ModelConfig, map: &Value) -> Result<ModelConfig, ConfigError> {
    let fields = Fields::new(map, "layer_bit_map")?;
    let modes = layer_bit_map(fields, config.num_hidden_layers, false, &mut Vec::new())?;
    let config = ModelConfig {
        layer_modes: modes.layers,
        embedding_mode: modes.embedding,
        head_mode: head_mode(&modes.head, modes.embedding, config.tie_word_embeddings),
        storage: WeightStorage::Master,
        ..config.clone()
    };
    config.validate()?;
    Ok(config)
}

/// The mode of the head: one that nobody names is as the embedding where the two are one.
fn head_mode(named: &Option<LinearMode>, embedding: LinearMode, tied: bool) -> LinearMode {
    match named {
        Some(head) => *head,
        None if tied => embedding,
        None => LinearMode::F16,
    }
}

/// `rope_theta` in either spelling, after refusing every scaling.
fn rope_theta(root: &Fields<'_>) -> Result<Option<f64>, ConfigError> {
    let mut theta = root.number("rope_theta")?;
    for key in ["rope_parameters", "rope_scaling"] {
        let Some(rope) = root.object(key)? else { continue };
        for kind in ["rope_type", "type"] {
            if let Some(value) = rope.get(kind).filter(|value| *value != "default") {
                return Err(rope.unsupported(kind, "\"default\": rotary scaling is not implemented", value));
            }
        }
        rope.refuse_unknown(&[keys::ROPE])?;
        if let Some(part) = rope.number("partial_rotary_factor")?.filter(|part| *part != 1.0) {
            return Err(rope.unsupported("partial_rotary_factor", "1", &Value::from(part)));
        }
        match (theta, rope.number("rope_theta")?) {
            (Some(a), Some(b)) if a != b => {
                return Err(ConfigError::Contradiction {
                    first: format!("`rope_theta` = {a}"),
                    second: format!("`{key}.rope_theta` = {b}"),
                });
            }
            (a, b) => theta = a.or(b),
        }
    }
    Ok(theta)
}

fn token(root: &Fields<'_>, key: &str, value: &Value) -> Result<u32, ConfigError> {
    let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| root.wrong(key, "a token id", value))
}

fn eos(root: &Fields<'_>) -> Result<Vec<u32>, ConfigError> {
    match root.get("eos_token_id") {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => {
            let ids = list.iter().take(limits::EOS_TOKENS + 1);
            ids.map(|value| token(root, "eos_token_id", value)).collect()
        }
        Some(value) => Ok(Vec::from([token(root, "eos_token_id", value)?])),
    }
}
