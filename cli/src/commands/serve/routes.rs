//! The addresses of the server.
//!
//! | address | what |
//! |---|---|
//! | `GET /` | the chat page |
//! | `GET /v1/models`, `/v1/models/NAME` | the model |
//! | `POST /v1/chat/completions`, `/v1/completions` | answers |
//! | `POST /v1/embeddings` | that a language model has none |
//! | `GET /health` | whether it works |
//! | `GET /metrics` | figures for Prometheus |
//!
//! A web page of somebody else's must not use a server on this machine: there are no CORS headers, bodies must be JSON by their type, which a browser sends to another's server only after asking, and a server on the
//! loopback address answers to its own names alone, so that no name of a stranger's can be made to mean it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::to_bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::app::App;
use super::error::{ApiError, ApiResult};
use super::page;
use super::reply::{Kind, Reply};
use super::request::{ChatRequest, CompletionRequest, Drawing, Prompt, parse};

type Shared = State<Arc<App>>;

/// All addresses.
pub(super) fn router(app: Arc<App>) -> Router {
    let guarded = Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{name}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/v1/embeddings", post(embeddings))
        .route("/metrics", get(metrics))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&app), key));
    page::add(guarded)
        .route("/health", get(health))
        .fallback(async || ApiError::not_found("unknown_url", "there is nothing at this address; see GET /v1/models"))
        .method_not_allowed_fallback(async || ApiError::wrong_method())
        .layer(middleware::from_fn_with_state(Arc::clone(&app), watch))
        .with_state(app)
}

/// Refuses strange names, and counts requests.
async fn watch(State(app): Shared, request: Request, next: Next) -> Response {
    let path = match request.uri().path() {
        "/v1/chat/completions" => "/v1/chat/completions",
        "/v1/completions" => "/v1/completions",
        "/v1/embeddings" => "/v1/embeddings",
        "/metrics" => "/metrics",
        "/health" => "/health",
        "/" => "/",
        path if path.starts_with("/v1/models") => "/v1/models",
        _ => "other",
    };
    let response = match app.loopback && !is_own_name(&request) {
        true => ApiError::wrong_host().into_response(),
        false => next.run(request).await,
    };
    app.metrics.count(path, response.status().as_u16());
    response
}

/// Whether a request calls the server by a name of the loopback address, or by none.
fn is_own_name(request: &Request) -> bool {
    let named = request.headers().get(header::HOST).map(HeaderValue::to_str);
    let host = match (named, request.uri().host()) {
        (Some(Ok(host)), _) | (None, Some(host)) => host,
        (Some(Err(_)), _) => return false,
        (None, None) => return true,
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name == "::1" || name.starts_with("127.")
}

/// Asks for the key, where there is one.
async fn key(State(app): Shared, request: Request, next: Next) -> Response {
    if let Some(key) = &app.key {
        let given = request.headers().get(header::AUTHORIZATION);
        let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        // In a time that tells nothing about how much of it was right.
        if !bool::from(given.unwrap_or_default().ct_eq(key.as_bytes())) {
            return ApiError::no_key().into_response();
        }
    }
    next.run(request).await
}

async fn health(State(app): Shared) -> Response {
    match app.ending.load(Ordering::Relaxed) {
        false => Json(json!({"status": "ok"})).into_response(),
        true => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "stopping"}))).into_response(),
    }
}

async fn metrics(State(app): Shared) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, app.metrics.text(&app.load)).into_response()
}

fn model_object(app: &App) -> Value {
    json!({
        "id": app.name,
        "object": "model",
        "created": app.created,
        "owned_by": "onebit",
        "context_length": app.context,
    })
}

async fn models(State(app): Shared) -> Json<Value> {
    Json(json!({"object": "list", "data": [model_object(&app)]}))
}

async fn model(State(app): Shared, Path(name): Path<String>) -> ApiResult<Json<Value>> {
    app.check_model(Some(&name))?;
    Ok(Json(model_object(&app)))
}

async fn embeddings(State(app): Shared) -> ApiError {
    ApiError::not_found(
        "no_embeddings",
        format!(
            "{:?} is a language model and was not trained for embeddings; use a model that was",
            app.name
        ),
    )
}

/// The bytes of a body that is JSON, if they come in time and are not too many.
async fn body(app: &App, request: Request) -> ApiResult<Vec<u8>> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::wrong_type());
    }
    let limit = app.limits.body;
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit as u64) {
        return Err(ApiError::too_large(limit));
    }
    match tokio::time::timeout(app.limits.receive, to_bytes(request.into_body(), limit)).await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(_)) => Err(ApiError::too_large(limit)),
        Err(_) => Err(ApiError::too_slow()),
    }
}

/// Runs what takes long enough to be felt by others beside the tasks.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> ApiResult<T> + Send + 'static) -> ApiResult<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(ApiError::ending()))
}

fn usage_in_stream(drawing: &Drawing) -> bool {
    drawing
        .stream_options
        .as_ref()
        .is_some_and(|options| options.include_usage)
}

async fn chat(State(app): Shared, request: Request) -> ApiResult<Response> {
    let bytes = body(&app, request).await?;
    let reader = Arc::clone(&app);
    let (asked, ids) = aside(move || {
        let asked: ChatRequest = parse(&bytes)?;
        asked.drawing.check()?;
        reader.check_model(asked.drawing.model.as_deref())?;
        let ids = reader.conversation(&asked.conversation()?)?;
        Ok((asked, ids))
    })
    .await?;
    let samples = asked.drawing.samples(app.limits.samples)?;
    let stops = app.template.stop_strings().to_vec();
    let answers = app.start(&[ids], samples, &asked.drawing, &stops, asked.alternatives()?)?;
    let reply = Reply::new(Arc::clone(&app), Kind::Chat, usage_in_stream(&asked.drawing));
    match asked.drawing.stream {
        true => Ok(reply.stream(answers)),
        false => reply.whole(answers).await,
    }
}

async fn completions(State(app): Shared, request: Request) -> ApiResult<Response> {
    let bytes = body(&app, request).await?;
    let reader = Arc::clone(&app);
    let (asked, prompts, texts) = aside(move || {
        let asked: CompletionRequest = parse(&bytes)?;
        asked.check()?;
        reader.check_model(asked.drawing.model.as_deref())?;
        let (prompts, texts) = prompts(&reader, &asked.prompt)?;
        Ok((asked, prompts, texts))
    })
    .await?;
    if prompts.is_empty() || prompts.len() > app.limits.prompts {
        let message = format!("prompt: expected 1 to {} texts", app.limits.prompts);
        return Err(ApiError::invalid(Some("prompt"), message));
    }
    let samples = asked.drawing.samples(app.limits.samples)?;
    let answers = app.start(&prompts, samples, &asked.drawing, &[], asked.alternatives()?)?;
    let mut reply = Reply::new(Arc::clone(&app), Kind::Text, usage_in_stream(&asked.drawing));
    if asked.echo {
        reply.echo = (0..answers.count).map(|i| texts[i / samples].clone()).collect();
    }
    match asked.drawing.stream {
        true => Ok(reply.stream(answers)),
        false => reply.whole(answers).await,
    }
}

/// Ids and texts of the prompts.
fn prompts(app: &App, prompt: &Prompt) -> ApiResult<(Vec<Vec<u32>>, Vec<String>)> {
    let of_texts = |texts: &[String]| {
        let ids = texts
            .iter()
            .map(|text| app.encode(text, true))
            .collect::<ApiResult<Vec<_>>>()?;
        Ok((ids, texts.to_vec()))
    };
    let of_ids = |all: &[Vec<u32>]| {
        let vocab = app.tokenizer.vocab_size();
        if let Some(id) = all.iter().flatten().find(|&&id| id as usize >= vocab) {
            let message = format!("prompt: token {id} is outside the vocabulary of {vocab}");
            return Err(ApiError::invalid(Some("prompt"), message));
        }
        let text = |ids: &Vec<u32>| app.tokenizer.decode(ids).unwrap_or_default();
        Ok((all.to_vec(), all.iter().map(text).collect()))
    };
    match prompt {
        Prompt::Text(text) => of_texts(std::slice::from_ref(text)),
        Prompt::Texts(texts) => of_texts(texts),
        Prompt::Ids(ids) => of_ids(std::slice::from_ref(ids)),
        Prompt::ManyIds(all) => of_ids(all),
    }
}
