//! The form of every answer: JSON, a whole text, a stream, or a problem (RFC 9457) that says what to
//! do. Decides the headers that keep a browser from doing anything else with it.

use std::io;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(super) type Answer = Response<Body>;

const JSON: &str = "application/json";

/// On every answer, unless it has its own.
const GUARDS: [(HeaderName, &str); 6] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CACHE_CONTROL, "no-store"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'; sandbox",
    ),
];

/// 200 with JSON.
pub(super) fn json(value: &Value) -> Answer {
    whole(JSON, value.to_string())
}

/// 200 with a text or bytes that are there already.
pub(super) fn whole(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let never = |never: std::convert::Infallible| match never {};
    let body = Full::new(body.into()).map_err(never).boxed_unsync();
    streamed(content_type, body)
}

/// 200 with a body that is still to come.
pub(super) fn streamed(content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    let content_type = HeaderValue::from_static(content_type);
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// Adds what every answer has.
pub(super) fn guarded(mut answer: Answer) -> Answer {
    let headers = answer.headers_mut();
    for (name, value) in GUARDS {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    answer
}

/// Why a request to the admin listener is not answered, and what to do about it.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// Ends the `type`.
    pub(super) slug: &'static str,
    pub(super) detail: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, slug: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            slug,
            detail: detail.into(),
            header: None,
        }
    }

    /// The request itself is wrong.
    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    pub(super) fn method(allow: &'static str) -> Self {
        let detail = format!("this path takes {allow}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
            .with(ALLOW, HeaderValue::from_static(allow))
    }

    /// Too much of something at a time.
    pub(super) fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
            .with(RETRY_AFTER, HeaderValue::from_static("5"))
    }

    /// Nobody known; a browser is asked for a password, a program for a bearer token.
    pub(super) fn unknown(detail: impl Into<String>, challenge: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
            .with(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    pub(super) fn into_answer(self) -> Answer {
        let body = json!({
            "type": format!("urn:maitred:admin:{}", self.slug),
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut answer = whole("application/problem+json", body.to_string());
        *answer.status_mut() = self.status;
        answer.headers_mut().extend(self.header);
        answer
    }
}
