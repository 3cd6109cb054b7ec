//! What clients send, and what it asks for.
//!
//! Fields of OpenAI's API that would change the answer and are not known here are refused by name: an option that does nothing misleads. Those that change nothing (`user`, `store`, `metadata` and the like) are
//! passed over, as are the default values of the others.

use onebit_model::chat::{Message, Role};
use onebit_model::sampling::{SamplingParams, StopStrings};
use serde::Deserialize;
use serde_json::Value;

use super::error::{ApiError, ApiResult};

/// Stop strings of a request.
const MOST_STOPS: usize = 16;
/// Alternatives of a token.
const MOST_LOGPROBS: usize = 20;

/// One text or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// How an answer is drawn: the same for both kinds of requests.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Drawing {
    pub model: Option<String>,
    pub max_tokens: Option<u64>,
    pub max_completion_tokens: Option<u64>,
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<i64>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub seed: Option<i64>,
    pub n: Option<u64>,
    pub stop: Option<OneOrMany>,
    #[serde(default)]
    pub stream: bool,
    pub stream_options: Option<StreamOptions>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    logit_bias: Option<Value>,
    response_format: Option<Value>,
    tools: Option<Value>,
    functions: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct StreamOptions {
    #[serde(default)]
    pub include_usage: bool,
}

/// `POST /v1/chat/completions`.
#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest {
    pub messages: Vec<ChatMessage>,
    #[serde(default)]
    pub logprobs: bool,
    pub top_logprobs: Option<u64>,
    #[serde(flatten)]
    pub drawing: Drawing,
}

#[derive(Debug, Deserialize)]
pub(super) struct ChatMessage {
    role: String,
    content: Option<Content>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

/// `POST /v1/completions`.
#[derive(Debug, Deserialize)]
pub(super) struct CompletionRequest {
    pub prompt: Prompt,
    pub logprobs: Option<u64>,
    #[serde(default)]
    pub echo: bool,
    suffix: Option<String>,
    best_of: Option<u64>,
    #[serde(flatten)]
    pub drawing: Drawing,
}

/// Texts or tokens.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Ids(Vec<u32>),
    ManyIds(Vec<Vec<u32>>),
}

/// Reads a body.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> ApiResult<T> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(None, format!("the body is not what it should be: {error}")))
}

/// Whether a value asks for anything.
fn asks(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Array(all)) => !all.is_empty(),
        Some(Value::Object(all)) => !all.is_empty(),
        Some(_) => true,
    }
}

impl Drawing {
    /// Refuses what is not done here.
    pub fn check(&self) -> ApiResult<()> {
        let format = self.response_format.as_ref().filter(|format| format["type"] != "text");
        let wanted = [
            ("frequency_penalty", self.frequency_penalty.is_some_and(|x| x != 0.0)),
            ("presence_penalty", self.presence_penalty.is_some_and(|x| x != 0.0)),
            ("logit_bias", asks(self.logit_bias.as_ref())),
            ("response_format", asks(format)),
            ("tools", asks(self.tools.as_ref())),
            ("functions", asks(self.functions.as_ref())),
        ];
        match wanted.into_iter().find(|(_, wanted)| *wanted) {
            Some((name, _)) => Err(ApiError::invalid(
                Some(name),
                format!("{name} is not supported; leave it out"),
            )),
            None => Ok(()),
        }
    }

    /// The sampling, the model's own where the request says nothing; without a seed a new one.
    pub fn sampling(&self, default: SamplingParams, new_seed: impl FnOnce() -> u64) -> ApiResult<SamplingParams> {
        let top_k = match self.top_k {
            None => default.top_k,
            // -1 is what some clients write for no limit.
            Some(-1) => 0,
            Some(k) => usize::try_from(k).map_err(|_| ApiError::invalid(Some("top_k"), "top_k: expected 0 or more"))?,
        };
        let params = SamplingParams {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            top_k,
            seed: self.seed.map_or_else(new_seed, |seed| seed as u64),
        };
        params
            .validate()
            .map_err(|error| ApiError::invalid(None, error.to_string()))?;
        Ok(params)
    }

    /// Stop strings of the request and the template's.
    pub fn stops(&self, template: &[&str]) -> ApiResult<StopStrings> {
        let given = match &self.stop {
            None => &[][..],
            Some(OneOrMany::One(one)) => std::slice::from_ref(one),
            Some(OneOrMany::Many(many)) => many,
        };
        if given.len() > MOST_STOPS || given.iter().any(|stop| stop.len() > 1024) {
            let message = format!("stop: expected at most {MOST_STOPS} texts of at most 1024 bytes");
            return Err(ApiError::invalid(Some("stop"), message));
        }
        let all = template
            .iter()
            .map(|stop| (*stop).to_string())
            .chain(given.iter().cloned());
        StopStrings::new(all).map_err(|_| ApiError::invalid(Some("stop"), "stop: an empty text would end at once"))
    }

    /// Answers to each prompt.
    pub fn samples(&self, most: usize) -> ApiResult<usize> {
        match self.n {
            None => Ok(1),
            Some(n) if (1..=most as u64).contains(&n) => Ok(n as usize),
            Some(_) => Err(ApiError::invalid(Some("n"), format!("n: expected 1 to {most}"))),
        }
    }

    /// Tokens of an answer at most.
    pub fn tokens(&self, default: usize) -> ApiResult<usize> {
        match self.max_completion_tokens.or(self.max_tokens) {
            None => Ok(default.max(1)),
            Some(0) => Err(ApiError::invalid(Some("max_tokens"), "max_tokens: expected 1 or more")),
            Some(n) => Ok(usize::try_from(n).unwrap_or(usize::MAX)),
        }
    }
}

impl ChatRequest {
    /// The conversation.
    pub fn conversation(&self) -> ApiResult<Vec<Message>> {
        let invalid = |message: String| ApiError::invalid(Some("messages"), message);
        if self.messages.is_empty() {
            return Err(invalid("messages: expected at least one".into()));
        }
        self.messages
            .iter()
            .map(|message| {
                let role = match message.role.as_str() {
                    "system" | "developer" => Role::System,
                    "user" => Role::User,
                    "assistant" => Role::Assistant,
                    other => return Err(invalid(format!("role {other:?}: expected system, user or assistant"))),
                };
                let content = match &message.content {
                    None => String::new(),
                    Some(Content::Text(text)) => text.clone(),
                    Some(Content::Parts(parts)) => {
                        let texts = parts.iter().map(|part| match (part.kind.as_str(), &part.text) {
                            ("text", Some(text)) => Ok(text.as_str()),
                            (kind, _) => Err(invalid(format!("a part of type {kind:?}: expected text"))),
                        });
                        texts.collect::<ApiResult<Vec<&str>>>()?.concat()
                    }
                };
                Ok(Message::new(role, content))
            })
            .collect()
    }

    /// Alternatives that are told of each token.
    pub fn alternatives(&self) -> ApiResult<Option<usize>> {
        match (self.logprobs, self.top_logprobs) {
            (false, None | Some(0)) => Ok(None),
            (false, Some(_)) => Err(ApiError::invalid(
                Some("top_logprobs"),
                "top_logprobs needs logprobs: true",
            )),
            (true, count) => alternatives("top_logprobs", count.unwrap_or(0)).map(Some),
        }
    }
}

fn alternatives(name: &'static str, count: u64) -> ApiResult<usize> {
    match usize::try_from(count) {
        Ok(count) if count <= MOST_LOGPROBS => Ok(count),
        _ => Err(ApiError::invalid(
            Some(name),
            format!("{name}: expected 0 to {MOST_LOGPROBS}"),
        )),
    }
}

impl CompletionRequest {
    /// Refuses what is not done here.
    pub fn check(&self) -> ApiResult<()> {
        let wanted = [
            ("suffix", self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty())),
            (
                "best_of",
                self.best_of.is_some_and(|best| best != self.drawing.n.unwrap_or(1)),
            ),
        ];
        match wanted.into_iter().find(|(_, wanted)| *wanted) {
            Some((name, _)) => Err(ApiError::invalid(
                Some(name),
                format!("{name} is not supported; leave it out"),
            )),
            None => self.drawing.check(),
        }
    }

    /// Alternatives that are told of each token.
    pub fn alternatives(&self) -> ApiResult<Option<usize>> {
        self.logprobs.map(|count| alternatives("logprobs", count)).transpose()
    }
}
