//! The mode of every linear, from `quantization_config` and from `layer_bit_map`.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::Value;

use super::fields::{Fields, shown};
use super::keys;
use crate::config::{ConfigError, LayerModes, LinearKind, LinearMode, WeightStorage};

/// What `quantization_config` says.
pub(super) struct Quantization {
    pub(super) storage: WeightStorage,
    /// Names, or runs of whole components of names, of modules that stay float.
    excluded: BTreeSet<String>,
}

impl Quantization {
    pub(super) fn read(fields: Fields<'_>) -> Result<Self, ConfigError> {
        fields.refuse_unknown(&[keys::QUANTIZATION])?;
        match fields.text("quant_method")? {
            Some("bitnet") => {}
            Some(other) => return Err(fields.unsupported("quant_method", "\"bitnet\"", &Value::from(other))),
            None => {
                let meaning = "\"bitnet\" is the one supported";
                return Err(ConfigError::MissingKey {
                    key: "quantization_config.quant_method",
                    meaning,
                });
            }
        }
        if fields.bool("use_rms_norm")? == Some(true) {
            return Err(fields.unsupported("use_rms_norm", "false", &Value::Bool(true)));
        }
        let online = match fields.text("quantization_mode")? {
            None | Some("offline") => false,
            Some("online") => true,
            Some(other) => {
                return Err(fields.unsupported("quantization_mode", "\"online\" or \"offline\"", &Value::from(other)));
            }
        };
        let storage = match (fields.text("linear_class")?, online) {
            (Some("autobitlinear"), true) => WeightStorage::Master,
            (Some("autobitlinear"), false) => WeightStorage::PackedMultiply,
            (None | Some("bitlinear"), false) => WeightStorage::PackedDivide,
            (None | Some("bitlinear"), true) => {
                return Err(ConfigError::Contradiction {
                    first: "`quantization_config.quantization_mode` = \"online\" (float weights)".into(),
                    second: "`linear_class` = \"bitlinear\", the default, which is always packed".into(),
                });
            }
            (Some(other), _) => {
                let expected = "\"autobitlinear\" or \"bitlinear\"";
                return Err(fields.unsupported("linear_class", expected, &Value::from(other)));
            }
        };
        let mut excluded = BTreeSet::new();
        if let Some(list) = fields.get("modules_to_not_convert") {
            let wrong = || fields.wrong("modules_to_not_convert", "a list of module names", list);
            for name in list.as_array().ok_or_else(wrong)? {
                excluded.insert(String::from(name.as_str().ok_or_else(wrong)?));
            }
        }
        Ok(Self { storage, excluded })
    }

    /// Float when `modules_to_not_convert` names the module, or a run of whole components of its name
    /// (`q_proj`, `model.layers.3`, `mlp`); otherwise ternary.
    pub(super) fn mode(&self, layer: usize, kind: LinearKind) -> LinearMode {
        if self.excluded.is_empty() {
            return LinearMode::Ternary;
        }
        let name = format!("model.layers.{layer}.{}", kind.module());
        let dots = || name.match_indices('.').map(|(at, _)| at);
        for start in core::iter::once(0).chain(dots().map(|at| at + 1)) {
            for end in dots().chain(core::iter::once(name.len())).filter(|&end| end > start) {
                if self.excluded.contains(&name[start..end]) {
                    return LinearMode::F16;
                }
            }
        }
        LinearMode::Ternary
    }
}

fn one_mode(path: String, value: &Value) -> Result<LinearMode, ConfigError> {
    let Some(word) = value.as_str() else {
        return Err(ConfigError::WrongType {
            key: path,
            expected: "the name of a mode",
            found: shown(value),
        });
    };
    LinearMode::by_name(word).ok_or_else(|| ConfigError::Unsupported {
        key: path,
        expected: "\"f16\", \"int8\", \"int4\", \"ternary\" or \"binary\"".into(),
        found: shown(value),
    })
}

fn layer(path: String, value: &Value) -> Result<LayerModes, ConfigError> {
    let Value::Object(map) = value else {
        return Ok(LayerModes::uniform(one_mode(path, value)?));
    };
    let fields = Fields::new(value, &path)?;
    const KEYS: &[&str] = &["q", "k", "v", "o", "gate", "up", "down"];
    fields.refuse_unknown(&[KEYS])?;
    let mut modes = LayerModes::default();
    for kind in LinearKind::ALL {
        let found = match map.get(kind.key()) {
            Some(found) => found,
            // Blocks without a gate need not name it.
            None if kind == LinearKind::Gate => map.get("up").unwrap_or(&Value::Null),
            None => &Value::Null,
        };
        modes.set(kind, one_mode(fields.path(kind.key()), found)?);
    }
    Ok(modes)
}

/// What a `layer_bit_map` says.
pub(super) struct Modes {
    /// One entry per block.
    pub(super) layers: Vec<LayerModes>,
    pub(super) embedding: LinearMode,
    /// If it is named.
    pub(super) head: Option<LinearMode>,
}

/// `layer_bit_map`. What a file of the replaced system says of embedding and head never had an effect: it gets a note.
pub(super) fn layer_bit_map(
    fields: Fields<'_>,
    layers: usize,
    legacy: bool,
    notes: &mut Vec<String>,
) -> Result<Modes, ConfigError> {
    fields.refuse_unknown(&[keys::LAYER_BIT_MAP])?;
    let mut table = |key: &str| -> Result<Option<LinearMode>, ConfigError> {
        let Some(value) = fields.get(key) else { return Ok(None) };
        let mode = one_mode(fields.path(key), value)?;
        if legacy && mode != LinearMode::F16 {
            notes.push(format!(
                "`layer_bit_map.{key}` = {} is ignored: it stays high precision",
                shown(value)
            ));
            return Ok(None);
        }
        Ok(Some(mode))
    };
    let (embedding, head) = (table("embedding")?.unwrap_or(LinearMode::F16), table("lm_head")?);
    let Some(list) = fields.get("layer_modes") else {
        let meaning = "one mode for each block";
        return Err(ConfigError::MissingKey {
            key: "layer_bit_map.layer_modes",
            meaning,
        });
    };
    let list = list
        .as_array()
        .ok_or_else(|| fields.wrong("layer_modes", "a list", list))?;
    if list.len() != layers {
        return Err(ConfigError::Invalid {
            field: "layer_bit_map.layer_modes",
            expected: format!("one entry for each of {layers} layers (num_hidden_layers)"),
            found: format!("{} entries", list.len()),
        });
    }
    let layers = list
        .iter()
        .enumerate()
        .map(|(i, value)| layer(format!("layer_bit_map.layer_modes[{i}]"), value))
        .collect::<Result<_, _>>()?;
    Ok(Modes {
        layers,
        embedding,
        head,
    })
}
