//! Every refusal of this API: its status, its stable code and its problem+json. Only here does a
//! failure become an answer; causes of our own are logged here once and never shown.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::kernel::input::Fault;

pub(crate) type ApiResult<T> = Result<T, ApiError>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the body is not valid JSON")]
    BodyNotJson,
    #[error("the body is larger than this route accepts")]
    BodyTooLarge,
    #[error("the body could not be read")]
    BodyUnreadable,
    #[error("some fields are not acceptable")]
    Validation(Vec<Fault>),
    #[error("{detail}")]
    Unauthenticated {
        code: &'static str,
        detail: &'static str,
    },
    #[error("{detail}")]
    Forbidden {
        code: &'static str,
        detail: &'static str,
    },
    #[error("this route does not know that method")]
    MethodNotAllowed,
    #[error("there is no such {what}")]
    NotFound { what: &'static str },
    #[error("{detail}")]
    Conflict { code: &'static str, detail: String },
    /// A webhook body that no later attempt can make acceptable.
    #[error("{detail}")]
    Unprocessable { code: &'static str, detail: String },
    #[error("too many failed attempts; wait before the next one")]
    Locked { retry_after_s: i64 },
    /// Trouble that passes: the caller should try again.
    #[error("{detail}")]
    Unavailable { detail: &'static str },
    #[error("something failed on our side")]
    Internal(#[source] anyhow::Error),
}

impl ApiError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BodyNotJson | Self::BodyUnreadable => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Validation(_) | Self::Unprocessable { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unauthenticated { .. } => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Conflict { .. } => StatusCode::CONFLICT,
            Self::Locked { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::BodyNotJson => "body_not_json",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyUnreadable => "body_unreadable",
            Self::Validation(_) => "validation_failed",
            Self::Unauthenticated { code, .. }
            | Self::Forbidden { code, .. }
            | Self::Conflict { code, .. }
            | Self::Unprocessable { code, .. } => code,
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotFound { .. } => "not_found",
            Self::Locked { .. } => "too_many_attempts",
            Self::Unavailable { .. } => "unavailable",
            Self::Internal(_) => "internal",
        }
    }

    fn retry_after_s(&self) -> Option<i64> {
        match self {
            Self::Locked { retry_after_s } => Some((*retry_after_s).max(1)),
            Self::Unavailable { .. } => Some(1),
            Self::BodyNotJson
            | Self::BodyTooLarge
            | Self::BodyUnreadable
            | Self::Validation(_)
            | Self::Unauthenticated { .. }
            | Self::Forbidden { .. }
            | Self::MethodNotAllowed
            | Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Unprocessable { .. }
            | Self::Internal(_) => None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Self::Internal(cause) = &self {
            tracing::error!(
                error.cause = format!("{cause:#}"),
                "request failed on our side"
            );
        }
        let status = self.status();
        let mut body = json!({
            "type": format!("urn:chefcloud:problem:{}", self.code()),
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "code": self.code(),
            "detail": self.to_string(),
        });
        if let Self::Validation(faults) = &self {
            body["errors"] = json!(faults);
        }
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Vec<Fault>> for ApiError {
    fn from(faults: Vec<Fault>) -> Self {
        Self::Validation(faults)
    }
}

impl From<anyhow::Error> for ApiError {
    fn from(cause: anyhow::Error) -> Self {
        Self::Internal(cause)
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        if crate::store::passes(&error) {
            tracing::warn!(error.cause = %error, "the database did not answer in time");
            return Self::Unavailable {
                detail: "the database is busy; try again",
            };
        }
        Self::Internal(anyhow::Error::new(error).context("database"))
    }
}
