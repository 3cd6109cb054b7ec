//! Typed access to a JSON object: each getter names the key in its error.

use alloc::format;
use alloc::string::{String, ToString};

use serde_json::{Map, Value};

use crate::config::ConfigError;

/// A JSON object and where it stands in the file.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    section: &'a str,
}

/// The value as JSON, cut after 60 characters.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 {
        return text;
    }
    let head: String = text.chars().take(57).collect();
    format!("{head}...")
}

impl<'a> Fields<'a> {
    pub(super) fn new(value: &'a Value, section: &'a str) -> Result<Self, ConfigError> {
        match value {
            Value::Object(map) => Ok(Self { map, section }),
            other => Err(ConfigError::WrongType {
                key: section.to_string(),
                expected: "an object",
                found: shown(other),
            }),
        }
    }

    /// The key with its section, as errors print it.
    pub(super) fn path(&self, key: &str) -> String {
        if self.section.is_empty() {
            key.to_string()
        } else {
            format!("{}.{key}", self.section)
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.map.keys().map(String::as_str)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The value; `null` counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// `key`, or its other spelling; both may stand when they agree.
    pub(super) fn either(&self, key: &'a str, other: &'a str) -> Result<Option<(&'a str, &'a Value)>, ConfigError> {
        match (self.get(key), self.get(other)) {
            (Some(a), Some(b)) if a != b => Err(ConfigError::Contradiction {
                first: format!("`{}` = {}", self.path(key), shown(a)),
                second: format!("`{}` = {}", self.path(other), shown(b)),
            }),
            (Some(a), _) => Ok(Some((key, a))),
            (None, b) => Ok(b.map(|value| (other, value))),
        }
    }

    pub(super) fn wrong(&self, key: &str, expected: &'static str, found: &Value) -> ConfigError {
        ConfigError::WrongType {
            key: self.path(key),
            expected,
            found: shown(found),
        }
    }

    pub(super) fn unsupported(&self, key: &str, expected: &str, found: &Value) -> ConfigError {
        ConfigError::Unsupported {
            key: self.path(key),
            expected: expected.to_string(),
            found: shown(found),
        }
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let as_bool = |value: &Value| value.as_bool().ok_or_else(|| self.wrong(key, "true or false", value));
        self.get(key).map(as_bool).transpose()
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        self.get(key)
            .map(|value| value.as_str().ok_or_else(|| self.wrong(key, "a text", value)))
            .transpose()
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.get(key)
            .map(|value| value.as_f64().ok_or_else(|| self.wrong(key, "a number", value)))
            .transpose()
    }

    pub(super) fn object(&self, key: &'a str) -> Result<Option<Fields<'a>>, ConfigError> {
        self.get(key).map(|value| Fields::new(value, key)).transpose()
    }

    /// A size under one of two spellings.
    pub(super) fn size(&self, key: &'a str, other: &'a str) -> Result<Option<usize>, ConfigError> {
        let Some((at, value)) = self.either(key, other)? else {
            return Ok(None);
        };
        let whole = value.as_u64().and_then(|n| usize::try_from(n).ok());
        whole
            .map(Some)
            .ok_or_else(|| self.wrong(at, "a whole number, not negative", value))
    }

    /// A size that must be there.
    pub(super) fn required(
        &self,
        key: &'static str,
        other: &'static str,
        meaning: &'static str,
    ) -> Result<usize, ConfigError> {
        self.size(key, other)?.ok_or(ConfigError::MissingKey { key, meaning })
    }

    /// Refuses keys outside `known`, with the nearest of `known` and `also`.
    pub(super) fn refuse_unknown(&self, known: &[&[&'static str]]) -> Result<(), ConfigError> {
        for key in self.keys() {
            if known.iter().any(|list| list.contains(&key)) {
                continue;
            }
            let suggestion = nearest(key, known.iter().flat_map(|list| list.iter().copied()));
            return Err(ConfigError::UnknownKey {
                key: self.path(key),
                suggestion,
            });
        }
        Ok(())
    }
}

/// The candidate most like `word`, when one is alike enough to be what was meant. Without `std` none is sought: its errors name what is wrong, and nobody types there.
#[cfg(feature = "std")]
pub(crate) fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<String> {
    // The distance costs the product of the lengths: a key of a megabyte is nobody's slip of the finger.
    if word.len() > 100 {
        return None;
    }
    let score = |candidate: &str| strsim::jaro_winkler(&word.to_lowercase(), candidate);
    let best = candidates
        .map(|candidate| (score(candidate), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= 0.8).then(|| best.1.to_string())
}

#[cfg(not(feature = "std"))]
pub(crate) fn nearest<'c>(_: &str, _: impl Iterator<Item = &'c str>) -> Option<String> {
    None
}
