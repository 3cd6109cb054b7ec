//! A directory's weights: one file, or the shards of `model.safetensors.index.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::{FileError, WEIGHTS_FILE, WEIGHTS_INDEX_FILE, Weights, read_text};
use crate::config::json::shown;
use crate::image::object::{Object, Unique};

/// Largest index accepted, in bytes: that of 4096 blocks has about 8 MiB.
const MAX_INDEX_BYTES: u64 = 16 << 20;

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
        let text = read_text(&index, MAX_INDEX_BYTES).map_err(|source| FileError::Io {
            action: "read",
            path: index.clone(),
            source,
        })?;
        let by_shard = ShardIndex::parse(&text).map_err(refuse)?.0;
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

/// Which shard holds which tensor: `weight_map` of `model.safetensors.index.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardIndex(BTreeMap<String, BTreeSet<String>>);

impl ShardIndex {
    /// Reads the text of an index. Keys beside `weight_map` say nothing that the shards do not say.
    ///
    /// # Errors
    /// [`FileError::Json`] with what is wrong and what to do: no JSON, no or an empty `weight_map`, a tensor named twice, a shard whose name
    /// could lead out of the directory.
    pub fn from_json(text: &str) -> Result<Self, FileError> {
        Self::parse(text).map_err(|message| FileError::Json {
            path: PathBuf::from(WEIGHTS_INDEX_FILE),
            message,
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: Unique,
        }
        let Object(Index {
            weight_map: Unique(map),
        }) = serde_json::from_str(text).map_err(|e| format!("no index of a model: {e}; fetch it again"))?;
        let mut shards: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, shard) in map {
            let Some(file) = shard.as_str().filter(|file| is_plain_name(file)) else {
                let why = "is not the name of a file beside the index; do not use this model unless you know why";
                return Err(format!("the shard {} of tensor {name} {why}", shown(&shard)));
            };
            shards.entry(file.to_string()).or_default().insert(name);
        }
        if shards.is_empty() {
            return Err("`weight_map` is empty; fetch it again".to_string());
        }
        Ok(Self(shards))
    }

    /// The shards' file names, sorted, and the names of the tensors in each, sorted.
    pub fn shards(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &str>)> {
        self.0
            .iter()
            .map(|(shard, names)| (shard.as_str(), names.iter().map(String::as_str)))
    }
}

/// Whether the text is one component of a path, under the rules of every system: no separator, no drive, not `..`.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let one = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    one && !name.contains(['/', '\\', ':', '\0'])
}
