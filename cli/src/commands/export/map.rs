//! The map of a search: which mode each matrix gets.

use std::path::Path;

use onebit_model::config::ModelConfig;
use serde_json::Value;

use crate::{CliError, Result};

/// Largest file that is taken for a map, in bytes: a front of a thousand maps of a model of a hundred layers.
const MOST_BYTES: u64 = 256 << 20;

/// `config` under the chosen map of the file `path`, or under map `point` of its front.
pub(super) fn read(path: &Path, point: Option<usize>, config: &ModelConfig) -> Result<ModelConfig> {
    let wrong = |what: String| {
        CliError::Failed(format!(
            "--map: {}: {what}; give a map.json of `onebit search`",
            path.display()
        ))
    };
    let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    if bytes > MOST_BYTES {
        return Err(wrong(format!("{bytes} bytes are more than a map has")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let root: Value = serde_json::from_str(&text).map_err(|e| wrong(format!("is no JSON: {e}")))?;
    let found = match point {
        None => root.get("chosen").ok_or_else(|| wrong("has no chosen map".into()))?,
        Some(at) => {
            let front = root
                .get("front")
                .and_then(Value::as_array)
                .map_or(&[][..], Vec::as_slice);
            let last = front.len().saturating_sub(1);
            front.get(at).ok_or_else(|| match front.is_empty() {
                true => wrong("has no front".into()),
                false => CliError::Usage(format!("--point: expected 0 to {last}, found {at}")),
            })?
        }
    };
    let map = found
        .get("layer_bit_map")
        .ok_or_else(|| wrong("has no layer_bit_map".into()))?;
    config.with_layer_bit_map(map).map_err(|e| wrong(e.to_string()))
}
