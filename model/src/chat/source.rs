//! Where a model directory keeps its template and the spelling of its special tokens.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::ChatError;

/// Largest file accepted, in bytes; real templates have a few thousand.
const MAX_BYTES: u64 = 8 << 20;

/// What was found in a directory.
pub(super) struct Found {
    /// The template and the file that it comes from.
    pub template: Option<(String, String)>,
    pub bos_token: String,
    pub eos_token: String,
}

/// Looks through `chat_template.jinja`, `chat_template.json` and `tokenizer_config.json`.
pub(super) fn read(dir: &Path) -> Result<Found, ChatError> {
    let config = json(&dir.join("tokenizer_config.json"))?;
    let mut template = None;
    let jinja = dir.join("chat_template.jinja");
    if let Some(text) = text(&jinja)? {
        template = Some((text, jinja.display().to_string()));
    }
    if template.is_none() {
        let path = dir.join("chat_template.json");
        template = in_json(json(&path)?.as_ref(), &path)?;
    }
    if template.is_none() {
        template = in_json(config.as_ref(), &dir.join("tokenizer_config.json"))?;
    }
    let token = |key: &str| spelling(config.as_ref().and_then(|config| config.get(key)));
    Ok(Found {
        template,
        bos_token: token("bos_token"),
        eos_token: token("eos_token"),
    })
}

/// The contents of a file, `None` if there is none.
fn text(path: &Path) -> Result<Option<String>, ChatError> {
    let failed = |source| ChatError::Read {
        path: path.to_path_buf(),
        source,
    };
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        let message = format!("longer than {MAX_BYTES} bytes");
        return Err(ChatError::Json {
            path: path.to_path_buf(),
            message,
        });
    }
    Ok(Some(text))
}

fn json(path: &Path) -> Result<Option<Value>, ChatError> {
    let Some(text) = text(path)? else { return Ok(None) };
    let failed = |message: String| ChatError::Json {
        path: path.to_path_buf(),
        message,
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|e| failed(format!("not valid JSON: {e}")))
}

/// `chat_template`: the text, or a list of named ones of which `default` counts.
fn in_json(value: Option<&Value>, path: &Path) -> Result<Option<(String, String)>, ChatError> {
    let failed = |message: &str| ChatError::Json {
        path: path.to_path_buf(),
        message: message.to_string(),
    };
    let found = match value.and_then(|value| value.get("chat_template")) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(named)) => {
            let default = named
                .iter()
                .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"));
            let text = default.and_then(|entry| entry.get("template")).and_then(Value::as_str);
            text.ok_or_else(|| failed("`chat_template` is a list without a template named `default`"))?
                .to_string()
        }
        Some(_) => return Err(failed("`chat_template` is neither a text nor a list of templates")),
    };
    Ok(Some((found, path.display().to_string())))
}

/// A special token: its text, or an object with `content`.
fn spelling(value: Option<&Value>) -> String {
    let text = match value {
        Some(Value::Object(token)) => token.get("content").and_then(Value::as_str),
        other => other.and_then(Value::as_str),
    };
    text.unwrap_or_default().to_string()
}
