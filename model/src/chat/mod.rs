//! From a conversation to the text that a model was trained to continue.
//!
//! A chat template is a Jinja program that comes with the model: `chat_template.jinja`, or `chat_template` in
//! `chat_template.json` or `tokenizer_config.json`, in that order, as `transformers` looks for it, or a text from another file
//! ([`ChatTemplate::from_text`]). It is rendered with `messages` (each with `role` and `content`), `add_generation_prompt`, `bos_token`, `eos_token`,
//! `tools` and `documents` (both none), and to the same bytes as by `transformers` (`model/tests/chat_formats.rs` compares).
//!
//! A template is a stranger's program, so what it can reach, make and take is bounded for certain: see [`jinja`].
//!
//! A model without a template gets [`DEFAULT_TEMPLATE`]: the system's text, then `User: …` and `Assistant: …` by turns.
//! With it an answer ends where the model writes the next `User:` ([`ChatTemplate::stop_strings`]).

mod error;
mod jinja;
mod source;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::SystemTime;

use chrono::{DateTime, Local};
use serde::Serialize;

use jinja::Given;
use jinja::fault::Fault;

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

impl Role {
    /// What templates call it.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
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
    /// [`ChatError::Template`] for a text that is no template, [`ChatError::Limit`] for one that is too long or nested too deep.
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
    /// [`ChatError::Template`] with what the template said, such as that roles must alternate; [`ChatError::Limit`] for one that
    /// would take too much memory or time.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
        self.render_at(messages, add_generation_prompt, SystemTime::now())
    }

    /// As [`render`](Self::render) at another time, for templates that write today's date. It is written in the local time zone.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn render_at(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        now: SystemTime,
    ) -> Result<String, ChatError> {
        let given = Given {
            messages,
            add_generation_prompt,
            bos_token: &self.bos_token,
            eos_token: &self.eos_token,
            now: DateTime::<Local>::from(now).naive_local(),
        };
        jinja::render(&self.text, &given).map_err(|fault| self.refused(fault))
    }

    fn check(&self) -> Result<(), ChatError> {
        jinja::check(&self.text).map_err(|fault| self.refused(fault))
    }

    fn refused(&self, fault: Fault) -> ChatError {
        let origin = self.origin.clone();
        match fault {
            Fault::Wrong(message) => ChatError::Template { origin, message },
            Fault::Limit(message) => ChatError::Limit { origin, message },
        }
    }
}
