//! From a conversation to the text that a model was trained to continue.
//!
//! A chat template is a Jinja program that comes with the model: `chat_template.jinja`, or `chat_template` in
//! `chat_template.json` or `tokenizer_config.json`, in that order, as `transformers` looks for it. It is rendered with
//! `messages` (each with `role` and `content`), `add_generation_prompt`, `bos_token` and `eos_token`, and with the functions
//! and the white-space rules that `transformers` has: `raise_exception`, `tojson`, the methods of Python's strings, lists and
//! dictionaries, blocks trimmed.
//!
//! A model without a template gets [`DEFAULT_TEMPLATE`]: the system's text, then `User: …` and `Assistant: …` by turns.
//! With it an answer ends where the model writes the next `User:` ([`ChatTemplate::stop_strings`]).

mod error;
mod source;
#[cfg(test)]
mod tests;

use std::path::Path;

use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, context};
use serde::Serialize;

pub use error::ChatError;

/// Used when the model has no template: plain text, one line a turn.
pub const DEFAULT_TEMPLATE: &str = "\
{%- for message in messages -%}
{%- if message.role == 'system' -%}{{ message.content }}{{ '\\n' }}
{%- elif message.role == 'user' -%}User: {{ message.content }}{{ '\\n' }}
{%- else -%}Assistant: {{ message.content }}{{ '\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}Assistant:{%- endif -%}";

/// Nested calls (macros, blocks) that a template may make.
const RECURSION_LIMIT: usize = 100;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions that stand before the conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
        }
    }
}

/// A model's chat template, checked when it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatTemplate {
    text: String,
    origin: String,
    bos_token: String,
    eos_token: String,
    is_default: bool,
}

impl ChatTemplate {
    /// The template of a model directory, or the default one if it has none.
    ///
    /// # Errors
    /// [`ChatError`] for a file that cannot be read, is no JSON where it should be, or holds no valid template.
    pub fn from_dir(dir: &Path) -> Result<Self, ChatError> {
        let found = source::read(dir)?;
        let template = match found.template {
            Some((text, origin)) => Self {
                text,
                origin,
                bos_token: found.bos_token,
                eos_token: found.eos_token,
                is_default: false,
            },
            None => Self {
                bos_token: found.bos_token,
                eos_token: found.eos_token,
                ..Self::fallback()
            },
        };
        template.check()?;
        Ok(template)
    }

    /// A template from its text; `origin` stands for its file in errors.
    ///
    /// # Errors
    /// [`ChatError::Template`] for a text that is no template.
    pub fn from_text(text: &str, origin: &str, bos_token: &str, eos_token: &str) -> Result<Self, ChatError> {
        let template = Self {
            text: text.to_string(),
            origin: origin.to_string(),
            bos_token: bos_token.to_string(),
            eos_token: eos_token.to_string(),
            is_default: false,
        };
        template.check()?;
        Ok(template)
    }

    /// Writes the template, unless it is the default one, and the spelling of its tokens where [`from_dir`](Self::from_dir) and `transformers`
    /// look for them: `chat_template.jinja` and `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`ChatError::Write`].
    pub fn save(&self, dir: &Path) -> Result<(), ChatError> {
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(|source| ChatError::Write { path, source })
        };
        let token = |text: &str| Some(text.to_string()).filter(|text| !text.is_empty());
        let config = serde_json::json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": token(&self.bos_token),
            "eos_token": token(&self.eos_token),
        });
        write("tokenizer_config.json", &format!("{config:#}\n"))?;
        match self.is_default {
            true => Ok(()),
            false => write("chat_template.jinja", &self.text),
        }
    }

    /// [`DEFAULT_TEMPLATE`].
    pub fn fallback() -> Self {
        Self {
            text: DEFAULT_TEMPLATE.to_string(),
            origin: "the default template".to_string(),
            bos_token: String::new(),
            eos_token: String::new(),
            is_default: true,
        }
    }

    /// Whether the model has no template of its own.
    pub fn is_default(&self) -> bool {
        self.is_default
    }

    /// The file that the template comes from, or "the default template".
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The template itself.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The spelling of the token that ends a text, empty if the model names none.
    pub fn eos_token(&self) -> &str {
        &self.eos_token
    }

    /// The spelling of the token that begins a text, empty if the model names none. Whether a rendered text begins with it is
    /// the template's affair.
    pub fn bos_token(&self) -> &str {
        &self.bos_token
    }

    /// Text at which an answer ends although the model gave no end token: only the default template needs it.
    pub fn stop_strings(&self) -> &'static [&'static str] {
        if self.is_default { &["\nUser:"] } else { &[] }
    }

    /// The text of a conversation; with `add_generation_prompt` it ends where the model's answer begins.
    ///
    /// # Errors
    /// [`ChatError::Template`] with what the template said, such as that roles must alternate.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
        let environment = environment();
        let template = environment
            .template_from_str(&self.text)
            .map_err(|e| self.refused(&e))?;
        let values = context! {
            messages => messages,
            add_generation_prompt => add_generation_prompt,
            bos_token => self.bos_token,
            eos_token => self.eos_token,
        };
        template.render(values).map_err(|e| self.refused(&e))
    }

    fn check(&self) -> Result<(), ChatError> {
        environment()
            .template_from_str(&self.text)
            .map(drop)
            .map_err(|e| self.refused(&e))
    }

    fn refused(&self, error: &minijinja::Error) -> ChatError {
        let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
        let line = error.line().map_or_else(String::new, |n| format!(" (line {n})"));
        ChatError::Template {
            origin: self.origin.clone(),
            message: format!("{what}{line}").replace('\n', " "),
        }
    }
}

/// Jinja as `transformers` sets it up.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_recursion_limit(RECURSION_LIMIT);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    environment.add_filter("tojson", |value: Value| -> Result<Value, minijinja::Error> {
        serde_json::to_string(&value)
            .map(Value::from_safe_string)
            .map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()))
    });
    environment
}
