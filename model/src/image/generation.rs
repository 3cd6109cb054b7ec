//! The sampling settings that a model's maker recommends, from the text of a `generation_config.json`.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde_json::{Map, Value};

use super::object::Unique;
use crate::config::json::{nearest, shown};

/// Recommended sampling settings; `None` where the file is silent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Divides the logits; 0 takes the likeliest token (`do_sample: false` in the file).
    pub temperature: Option<f32>,
    /// How many of the likeliest tokens are kept; 0 keeps all.
    pub top_k: Option<u32>,
    /// Probability that the kept tokens reach together.
    pub top_p: Option<f32>,
    /// Smallest probability kept, as a share of the largest.
    pub min_p: Option<f32>,
    /// Divides (multiplies, if negative) the logits of tokens already there; 1 leaves them.
    pub repetition_penalty: Option<f32>,
    /// Most tokens to generate.
    pub max_new_tokens: Option<usize>,
    /// Token put before the prompt.
    pub bos_token_id: Option<u32>,
    /// Tokens that end the text.
    pub eos_token_ids: Vec<u32>,
    /// Tokens that are never generated.
    pub suppress_tokens: Vec<u32>,
}

const READ: &[&str] = &[
    "bos_token_id",
    "do_sample",
    "eos_token_id",
    "max_new_tokens",
    "min_p",
    "repetition_penalty",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
];

/// Keys of `transformers` that change nothing here.
const IGNORED: &[&str] = &[
    "_from_model_config",
    "cache_implementation",
    "max_length",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "return_dict_in_generate",
    "transformers_version",
    "use_cache",
];

/// A number inside `low..=high`.
fn number(map: &Map<String, Value>, key: &str, low: f64, high: f64) -> Result<Option<f32>, String> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(x) if (low..=high).contains(&x) => Ok(Some(x as f32)),
            _ => Err(format!(
                "`{key}`: expected a number from {low} to {high}, found {}; correct the value",
                shown(value)
            )),
        },
    }
}

fn whole(key: &str, value: &Value) -> Result<u32, String> {
    let n = value.as_u64().and_then(|n| u32::try_from(n).ok());
    n.ok_or_else(|| {
        let found = shown(value);
        format!("`{key}`: expected a whole number, not negative, found {found}; correct the value")
    })
}

/// The settings that a `generation_config.json` holds; else what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<GenerationConfig, String> {
    let Unique(map) =
        serde_json::from_str(text).map_err(|e| format!("not valid JSON, or no object: {e}; correct the file"))?;
    let map = &map;
    if let Some(key) = map
        .keys()
        .find(|key| !READ.contains(&key.as_str()) && !IGNORED.contains(&key.as_str()))
    {
        let hint =
            nearest(key, READ.iter().copied()).map_or(String::new(), |k| format!("did you mean `{k}`? Otherwise "));
        return Err(format!("unknown key `{key}`; {hint}remove it"));
    }
    let integer = |key: &str| match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => whole(key, value).map(Some),
    };
    let greedy = match map.get("do_sample") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(sample)) => !sample,
        Some(other) => {
            return Err(format!(
                "`do_sample`: expected true or false, found {}; correct the value",
                shown(other)
            ));
        }
    };
    let temperature = number(map, "temperature", 0.0, 100.0)?;
    let ids = |key: &str| match map.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(|v| whole(key, v)).collect(),
        Some(value) => Ok(vec![whole(key, value)?]),
    };
    Ok(GenerationConfig {
        temperature: if greedy { Some(0.0) } else { temperature },
        top_k: integer("top_k")?,
        top_p: number(map, "top_p", 0.0, 1.0)?,
        min_p: number(map, "min_p", 0.0, 1.0)?,
        repetition_penalty: number(map, "repetition_penalty", 0.01, 100.0)?,
        max_new_tokens: integer("max_new_tokens")?.map(|n| n as usize),
        bos_token_id: integer("bos_token_id")?,
        eos_token_ids: ids("eos_token_id")?,
        suppress_tokens: ids("suppress_tokens")?,
    })
}
