//! A directory's weights: one file, or the shards of `model.safetensors.index.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Component, Path};

use serde_json::Value;

use super::{FileError, WEIGHTS_FILE, WEIGHTS_INDEX_FILE, Weights};

/// Largest index accepted, in bytes.
const MAX_INDEX_BYTES: u64 = 64 << 20;

impl Weights {
    /// Maps the weights of a model directory: `model.safetensors` if it is there, otherwise the shards that
    /// `model.safetensors.index.json` names. A shard's name must be a plain file name.
    ///
    /// # Errors
    /// [`FileError::Io`], [`FileError::Header`], or [`FileError::Json`] when index and shards disagree.
    pub fn open_dir(dir: &Path) -> Result<Self, FileError> {
        let (single, index) = (dir.join(WEIGHTS_FILE), dir.join(WEIGHTS_INDEX_FILE));
        if single.exists() || !index.exists() {
            return Self::open_file(&single);
        }
        let refuse = |message: String| FileError::Json {
            path: index.clone(),
            message,
        };
        let by_shard = read_index(&index)?;
        let mut weights = Self::default();
        for (shard, listed) in by_shard {
            let found: BTreeSet<String> = weights.add_file(&dir.join(&shard))?.into_iter().collect();
            if let Some(name) = listed.difference(&found).next() {
                return Err(refuse(format!(
                    "tensor {name} is not in {shard}; fetch index and shards again"
                )));
            }
            if let Some(name) = found.difference(&listed).next() {
                return Err(refuse(format!(
                    "tensor {name} of {shard} is not listed; fetch index and shards again"
                )));
            }
        }
        Ok(weights)
    }
}

/// The names in each shard, from `weight_map`.
fn read_index(path: &Path) -> Result<BTreeMap<String, BTreeSet<String>>, FileError> {
    let io = |source| FileError::Io {
        action: "read",
        path: path.to_path_buf(),
        source,
    };
    let refuse = |message: String| FileError::Json {
        path: path.to_path_buf(),
        message,
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(MAX_INDEX_BYTES + 1).read_to_string(&mut text).map_err(io)?;
    if text.len() as u64 > MAX_INDEX_BYTES {
        return Err(refuse(format!(
            "longer than {MAX_INDEX_BYTES} bytes; this is no index of a model"
        )));
    }
    let value: Value =
        serde_json::from_str(&text).map_err(|e| refuse(format!("not valid JSON: {e}; fetch it again")))?;
    let Some(map) = value.get("weight_map").and_then(Value::as_object) else {
        return Err(refuse(
            "`weight_map` is missing or no object; fetch it again".to_string(),
        ));
    };
    let mut shards: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, shard) in map {
        let Some(shard) = shard.as_str().filter(|shard| is_plain_name(shard)) else {
            let why = "is not the name of a file beside the index; do not use this model unless you know why";
            return Err(refuse(format!("the shard {shard} of tensor {name} {why}")));
        };
        shards.entry(shard.to_string()).or_default().insert(name.clone());
    }
    if shards.is_empty() {
        return Err(refuse("`weight_map` is empty; fetch it again".to_string()));
    }
    Ok(shards)
}

/// Whether the text is one component of a path, under the rules of every system: no separator, no drive, not `..`.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let one = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    one && !name.contains(['/', '\\', ':', '\0'])
}
