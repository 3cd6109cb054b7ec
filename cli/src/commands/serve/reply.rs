//! Answers as OpenAI's API tells them: whole, or piece by piece as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse, Response, Sse as Stream};
use onebit_model::generation::{Finish, Logprobs, TokenLogprob};
use onebit_model::serving::{End, Event, Piece};
use serde_json::{Map, Value, json};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::app::{Answers, App, now};
use super::error::{ApiError, ApiResult, Wrapped};

/// Which of the two kinds an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Text,
}

/// What is the same in every part of an answer.
pub(super) struct Reply {
    pub app: Arc<App>,
    pub kind: Kind,
    id: String,
    created: u64,
    /// Whether the last event of a stream tells how many tokens there were.
    pub usage: bool,
    /// What each answer of a text request begins with: its prompt, if that was asked for.
    pub echo: Vec<String>,
}

/// One answer as it grows.
#[derive(Default)]
struct Answer {
    text: String,
    logprobs: Vec<Logprobs>,
    /// Whether any text was told: what a chat's answer begins with, spaces and line ends, is not for the reader.
    begun: bool,
    told: Option<Instant>,
    end: Option<End>,
}

/// OpenAI's word for why an answer ended.
fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::EndToken | Finish::StopString => "stop",
        _ => "length",
    }
}

impl Reply {
    pub fn new(app: Arc<App>, kind: Kind, usage: bool) -> Self {
        let prefix = match kind {
            Kind::Chat => "chatcmpl",
            Kind::Text => "cmpl",
        };
        Self {
            id: app.fresh.id(prefix),
            app,
            kind,
            created: now(),
            usage,
            echo: Vec::new(),
        }
    }

    /// All answers at once.
    ///
    /// # Errors
    /// The first failure of an answer; the others then end.
    pub async fn whole(self, mut answers: Answers) -> ApiResult<Response> {
        let mut all: Vec<Answer> = (0..answers.count).map(|_| Answer::default()).collect();
        while all.iter().any(|answer| answer.end.is_none()) {
            let (number, event) = answers.told.recv().await.ok_or_else(ApiError::ending)?;
            let answer = &mut all[number];
            match event {
                Event::Piece(piece) => {
                    self.time(answer, answers.asked);
                    let piece = self.clean(answer, piece);
                    answer.text.push_str(&piece.text);
                    answer.logprobs.extend(piece.logprobs);
                }
                Event::End(end) => answer.end = Some(end),
                Event::Failed(failure) => return Err(failure.into()),
            }
        }
        let choices: Vec<Value> = all
            .iter()
            .enumerate()
            .map(|(i, answer)| self.choice(i, answer))
            .collect();
        let usage = usage(&all, answers.samples);
        let object = match self.kind {
            Kind::Chat => "chat.completion",
            Kind::Text => "text_completion",
        };
        let mut body = self.object(object, choices);
        body.insert("usage".into(), usage);
        Ok(Json(Value::Object(body)).into_response())
    }

    /// Answers as they come. When the client goes away the receiver does, and the scheduler ends them.
    pub fn stream(self, mut answers: Answers) -> Response {
        let (to, from) = tokio::sync::mpsc::unbounded_channel::<Result<Sse, Infallible>>();
        tokio::spawn(async move {
            let mut all: Vec<Answer> = (0..answers.count).map(|_| Answer::default()).collect();
            let send = |value: Value| to.send(Ok(Sse::default().data(value.to_string()))).is_ok();
            if self.kind == Kind::Chat {
                for number in 0..all.len() {
                    let delta = json!({"role": "assistant", "content": ""});
                    if !send(self.chunk(number, delta, Value::Null, None)) {
                        return;
                    }
                }
            }
            for (number, text) in self.echo.iter().enumerate() {
                if !send(self.chunk(number, json!(text), Value::Null, None)) {
                    return;
                }
            }
            while all.iter().any(|answer| answer.end.is_none()) {
                // The client's going away is heard also while nothing is to be told.
                let told = tokio::select! {
                    told = answers.told.recv() => told,
                    () = to.closed() => return,
                };
                let Some((number, event)) = told else {
                    fail(&send, &ApiError::ending());
                    return;
                };
                let answer = &mut all[number];
                let alive = match event {
                    Event::Piece(piece) => {
                        self.time(answer, answers.asked);
                        let piece = self.clean(answer, piece);
                        let logprobs = self.logprobs(&piece.logprobs, answer.text.chars().count());
                        // Only its length is of use here, and only to logprobs.
                        if !piece.logprobs.is_empty() {
                            answer.text.push_str(&piece.text);
                        }
                        let delta = match self.kind {
                            Kind::Chat => json!({"content": piece.text}),
                            Kind::Text => json!(piece.text),
                        };
                        piece.text.is_empty() && piece.logprobs.is_empty()
                            || send(self.chunk(number, delta, logprobs, None))
                    }
                    Event::End(end) => {
                        answer.end = Some(end);
                        let delta = match self.kind {
                            Kind::Chat => json!({}),
                            Kind::Text => json!(""),
                        };
                        send(self.chunk(number, delta, Value::Null, Some(finish_reason(end.finish))))
                    }
                    Event::Failed(failure) => {
                        fail(&send, &failure.into());
                        return;
                    }
                };
                if !alive {
                    return;
                }
            }
            if self.usage {
                let mut last = self.object(self.chunk_name(), Vec::new());
                last.insert("usage".into(), usage(&all, answers.samples));
                send(Value::Object(last));
            }
            let _ = to.send(Ok(Sse::default().data("[DONE]")));
        });
        Stream::new(UnboundedReceiverStream::new(from))
            .keep_alive(KeepAlive::default())
            .into_response()
    }

    /// Counts how long a token took.
    fn time(&self, answer: &mut Answer, asked: Instant) {
        let now = Instant::now();
        match answer.told.replace(now) {
            None => self.app.metrics.first.observe((now - asked).as_secs_f64()),
            Some(before) => self.app.metrics.between.observe((now - before).as_secs_f64()),
        }
    }

    /// Without what a chat's answer begins with that nobody wants to read.
    fn clean(&self, answer: &mut Answer, mut piece: Piece) -> Piece {
        if self.kind == Kind::Chat && !answer.begun {
            piece.text = piece.text.trim_start().to_string();
        }
        answer.begun |= !piece.text.is_empty();
        piece
    }

    fn object(&self, object: &str, choices: Vec<Value>) -> Map<String, Value> {
        let value = json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.app.name,
            "choices": choices,
        });
        match value {
            Value::Object(object) => object,
            _ => Map::new(),
        }
    }

    fn chunk_name(&self) -> &'static str {
        match self.kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Text => "text_completion",
        }
    }

    /// A part of one answer.
    fn chunk(&self, number: usize, delta: Value, logprobs: Value, finish: Option<&str>) -> Value {
        let name = match self.kind {
            Kind::Chat => "delta",
            Kind::Text => "text",
        };
        let choice = json!({"index": number, name: delta, "logprobs": logprobs, "finish_reason": finish});
        let mut object = self.object(self.chunk_name(), vec![choice]);
        if self.usage {
            object.insert("usage".into(), Value::Null);
        }
        Value::Object(object)
    }

    /// One whole answer.
    fn choice(&self, number: usize, answer: &Answer) -> Value {
        let finish = answer.end.map(|end| finish_reason(end.finish));
        let logprobs = self.logprobs(&answer.logprobs, 0);
        match self.kind {
            Kind::Chat => json!({
                "index": number,
                "message": {"role": "assistant", "content": answer.text.trim_end()},
                "logprobs": logprobs,
                "finish_reason": finish,
            }),
            Kind::Text => {
                let echo = self.echo.get(number).map_or("", String::as_str);
                json!({
                    "index": number,
                    "text": format!("{echo}{}", answer.text),
                    "logprobs": logprobs,
                    "finish_reason": finish,
                })
            }
        }
    }

    /// How likely tokens were; `offset` is the length of the text before them, in characters.
    fn logprobs(&self, all: &[Logprobs], mut offset: usize) -> Value {
        if all.is_empty() {
            return Value::Null;
        }
        let token = |token: &TokenLogprob| {
            let (text, bytes) = self.app.spelling(token);
            json!({"token": text, "logprob": finite(token.logprob), "bytes": bytes})
        };
        if self.kind == Kind::Chat {
            let content: Vec<Value> = all
                .iter()
                .map(|one| {
                    let mut value = token(&one.chosen);
                    value["top_logprobs"] = one.top.iter().map(token).collect();
                    value
                })
                .collect();
            return json!({"content": content, "refusal": null});
        }
        let (mut tokens, mut chosen, mut top, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for one in all {
            let (text, _) = self.app.spelling(&one.chosen);
            offsets.push(offset);
            offset += text.chars().count();
            tokens.push(text);
            chosen.push(finite(one.chosen.logprob));
            let of: Map<String, Value> = (one.top.iter())
                .map(|token| (self.app.spelling(token).0, json!(finite(token.logprob))))
                .collect();
            top.push(of);
        }
        json!({"tokens": tokens, "token_logprobs": chosen, "top_logprobs": top, "text_offset": offsets})
    }
}

/// JSON has no infinity: what cannot be is as unlikely as OpenAI says it.
fn finite(logprob: f64) -> f64 {
    logprob.max(-9999.0)
}

/// Tokens of all answers; a prompt counts once, however many of the answers are its own.
fn usage(all: &[Answer], samples: usize) -> Value {
    let (mut prompt, mut reused, mut tokens) = (0, 0, 0);
    for (number, end) in all.iter().enumerate().filter_map(|(i, answer)| Some((i, answer.end?))) {
        tokens += end.tokens;
        if number % samples == 0 {
            prompt += end.prompt;
            reused += end.reused;
        }
    }
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": tokens,
        "total_tokens": prompt + tokens,
        "prompt_tokens_details": {"cached_tokens": reused},
    })
}

/// Tells of an error in the middle of a stream.
fn fail(send: &impl Fn(Value) -> bool, error: &ApiError) {
    if let Ok(value) = serde_json::to_value(Wrapped { error: &error.body }) {
        send(value);
    }
}
