//! `generation_config.json`: the sampling settings that a model's maker recommends.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{FileError, GENERATION_FILE, read_text};
use crate::image::GenerationConfig;
use crate::image::generation::parse;

/// Largest file accepted, in bytes.
const MAX_BYTES: u64 = 1 << 20;

impl GenerationConfig {
    /// Reads `generation_config.json` of a model directory; `None` when there is none.
    ///
    /// # Errors
    /// [`FileError::Io`], or [`FileError::Json`] for an unknown key or a value out of range.
    pub fn read(dir: &Path) -> Result<Option<Self>, FileError> {
        let path = dir.join(GENERATION_FILE);
        let text = match read_text(&path, MAX_BYTES) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                let action = "read";
                return Err(FileError::Io { action, path, source });
            }
            Ok(text) => text,
        };
        parse(&text)
            .map(Some)
            .map_err(|message| FileError::Json { path, message })
    }

    /// Reads the text of a `generation_config.json`.
    ///
    /// # Errors
    /// [`FileError::Json`].
    pub fn from_json(text: &str) -> Result<Self, FileError> {
        parse(text).map_err(|message| FileError::Json {
            path: PathBuf::from(GENERATION_FILE),
            message,
        })
    }

    /// The text of a `generation_config.json`, ending with a newline.
    pub fn to_json(&self) -> String {
        let mut map = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(key.to_string(), value);
            }
        };
        put("bos_token_id", self.bos_token_id.map(Value::from));
        let eos = match self.eos_token_ids.as_slice() {
            [] => None,
            [one] => Some(Value::from(*one)),
            many => Some(Value::from(many)),
        };
        put("eos_token_id", eos);
        // The f32's own digits: 0.8 and not 0.800000011920929.
        let number = |x: f32| Value::from(x.to_string().parse::<f64>().unwrap_or(f64::from(x)));
        put("do_sample", self.temperature.map(|t| Value::from(t > 0.0)));
        // `transformers` has no temperature of 0 and says so by `do_sample`.
        put("temperature", self.temperature.filter(|t| *t > 0.0).map(number));
        put("top_k", self.top_k.map(Value::from));
        put("top_p", self.top_p.map(number));
        put("min_p", self.min_p.map(number));
        put("repetition_penalty", self.repetition_penalty.map(number));
        put("max_new_tokens", self.max_new_tokens.map(Value::from));
        let suppressed = Some(&self.suppress_tokens).filter(|ids| !ids.is_empty());
        put("suppress_tokens", suppressed.map(|ids| Value::from(ids.as_slice())));
        let mut text = serde_json::to_string_pretty(&Value::Object(map)).unwrap_or_default();
        text.push('\n');
        text
    }
}
