//! Errors as OpenAI's API tells them: `{"error": {"message", "type", "param", "code"}}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use onebit_model::serving::Failure;
use serde::Serialize;

/// Why a request is not answered.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    pub status: StatusCode,
    pub body: Body,
}

/// What the client reads.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Body {
    pub message: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub param: Option<&'static str>,
    pub code: Option<&'static str>,
}

/// The object around it.
#[derive(Serialize)]
pub(super) struct Wrapped<'a> {
    pub error: &'a Body,
}

pub(super) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self {
            status,
            body: Body {
                message: message.into(),
                kind,
                param: None,
                code,
            },
        }
    }

    /// The request makes no sense.
    pub fn invalid(param: Option<&'static str>, message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", None, message);
        error.body.param = param;
        error
    }

    /// There is no such thing here.
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some(code), message)
    }

    /// No key, or a wrong one.
    pub fn no_key() -> Self {
        let message = "this server wants an API key: `Authorization: Bearer KEY`";
        Self::new(
            StatusCode::UNAUTHORIZED,
            "invalid_request_error",
            Some("invalid_api_key"),
            message,
        )
    }

    /// The name by which the server was called is not one of its own.
    pub fn wrong_host() -> Self {
        let message = "a server on the loopback address is called by localhost, 127.0.0.1 or [::1]; start it with --host to be called by other names";
        Self::new(
            StatusCode::FORBIDDEN,
            "invalid_request_error",
            Some("wrong_host"),
            message,
        )
    }

    /// Too many wait already.
    pub fn busy() -> Self {
        let message = "the queue is full; try again in a moment";
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "server_error",
            Some("queue_full"),
            message,
        )
    }

    /// The server is about to end, or its scheduler has.
    pub fn ending() -> Self {
        let message = "the server is stopping; try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", None, message)
    }

    /// The body is too long.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the request has more than {limit} bytes; shorten it");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", None, message)
    }

    /// The body did not come.
    pub fn too_slow() -> Self {
        let message = "the request's body did not come in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", None, message)
    }

    /// The method is another one.
    pub fn wrong_method() -> Self {
        let message = "this address takes another method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", None, message)
    }

    /// The body is no JSON by its own account.
    pub fn wrong_type() -> Self {
        let message = "the body must be JSON, with `Content-Type: application/json`";
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            None,
            message,
        )
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::TooLong { .. } => {
                let mut error = Self::invalid(None, failure.to_string());
                error.body.code = Some("context_length_exceeded");
                error
            }
            Failure::Other(message) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", None, message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(Wrapped { error: &self.body })).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
