//! The one closed table of refusals. A [`Code`] alone knows its status, its public text and what the
//! client should do; the precise reason travels beside it, for the log and the operator only.

use std::borrow::Cow;

use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::json;

use super::id::RequestId;
use super::reply::Reply;

/// One row of the table, as `docs/refusals.md` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub slug: &'static str,
    pub status: u16,
    pub title: &'static str,
    pub detail: &'static str,
    pub client_should: &'static str,
}

macro_rules! refusals {
    ($($variant:ident: $status:literal $slug:literal, $title:literal, $detail:literal, $should:literal;)*) => {
        /// Every way in which the edge refuses a request.
        #[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
        pub enum Code { $($variant),* }

        impl Code {
            /// All codes, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code's row.
            #[must_use]
            pub fn row(self) -> Row {
                match self {
                    $(Self::$variant => Row {
                        slug: $slug, status: $status, title: $title,
                        detail: $detail, client_should: $should,
                    },)*
                }
            }
        }
    };
}

refusals! {
    BadRequest: 400 "bad-request", "Bad request",
        "The request is malformed or ambiguous.", "Fix the request; do not repeat it as it is.";
    Unauthenticated: 401 "unauthenticated", "Not authenticated",
        "The request carries no valid proof of who sent it.", "Obtain a fresh credential or signature and try again.";
    Forbidden: 403 "forbidden", "Not allowed",
        "The caller may not do this.", "Ask for the missing right; do not repeat the request.";
    NotFound: 404 "not-found", "Not found",
        "Nothing is served under this path.", "Check the path.";
    MethodNotAllowed: 405 "method-not-allowed", "Method not allowed",
        "This path does not take this method; `Allow` lists those it takes.", "Use a method from `Allow`.";
    RequestTimeout: 408 "request-timeout", "Request too slow",
        "The request did not arrive within the time allowed.", "Send the request again, faster.";
    PayloadTooLarge: 413 "payload-too-large", "Body too large",
        "The body is larger than this path takes.", "Send a smaller body.";
    UriTooLong: 414 "uri-too-long", "Target too long",
        "The request target is longer than the edge takes.", "Shorten path and query.";
    UnsupportedEncoding: 415 "unsupported-encoding", "Content encoding not taken",
        "The body is encoded in a way that this path does not take.", "Send the body without Content-Encoding.";
    Misdirected: 421 "misdirected", "Misdirected request",
        "The host differs from the one this connection was opened for.", "Open a new connection for this host.";
    RateLimited: 429 "rate-limited", "Too many requests",
        "A request limit was reached.", "Wait for `Retry-After` seconds.";
    TooManyStreams: 429 "too-many-streams", "Too many streams",
        "The limit of concurrent streams was reached.", "Close a stream or wait for `Retry-After` seconds.";
    HeadersTooLarge: 431 "headers-too-large", "Header fields too large",
        "The header has more fields or bytes than the edge takes.", "Send fewer or smaller header fields.";
    Internal: 500 "internal", "Internal error",
        "The edge could not handle the request.", "Report the request id.";
    BadGateway: 502 "bad-gateway", "Upstream failed",
        "The service behind the edge gave no usable answer.", "Repeat the request if it is safe to repeat.";
    Unavailable: 503 "unavailable", "Service unavailable",
        "The service behind the edge cannot be reached at present.", "Wait for `Retry-After` seconds.";
    Overloaded: 503 "overloaded", "Too busy",
        "A limit of the edge itself was reached.", "Wait for `Retry-After` seconds.";
    InProgress: 503 "in-progress", "Already in progress",
        "The same event is being handled at this moment.", "Wait for `Retry-After` seconds.";
    GatewayTimeout: 504 "gateway-timeout", "Upstream too slow",
        "The service behind the edge did not answer in time.", "Repeat the request if it is safe to repeat.";
    OnlyIfCached: 504 "only-if-cached", "Not in the cache",
        "The request asked for a stored response and there is none.", "Repeat without `only-if-cached`.";
}

/// A refusal on its way out.
#[derive(Clone, Debug)]
pub struct Reject {
    pub code: Code,
    /// A short label from a closed set, for the metric.
    pub label: &'static str,
    /// What exactly was wrong and what would mend it. Never leaves the operator's side.
    pub reason: Cow<'static, str>,
    pub retry_after_s: Option<u32>,
    /// Value of `Allow`, for 405.
    pub allow: Option<String>,
}

impl Reject {
    /// A refusal whose metric label and reason are given where the decision falls.
    #[must_use]
    pub fn new(code: Code, label: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            label,
            reason: reason.into(),
            retry_after_s: None,
            allow: None,
        }
    }

    /// The same refusal with `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// 405 with the methods that the path takes.
    #[must_use]
    pub fn method_not_allowed(allow: String) -> Self {
        let mut reject = Self::new(Code::MethodNotAllowed, "method", "no route for this method");
        reject.allow = Some(allow);
        reject
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code.row().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// `application/problem+json` (RFC 9457). The body says nothing of the reason.
    #[must_use]
    pub fn to_reply(&self, request_id: &RequestId) -> Reply {
        let row = self.code.row();
        let body = json!({
            "type": format!("urn:maitred:refusal:{}", row.slug),
            "title": row.title,
            "status": row.status,
            "detail": row.detail,
            "request_id": request_id.as_str(),
        });
        let mut reply = Reply::json(self.status(), &body);
        reply.headers[0] = (
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.code == Code::Unauthenticated {
            // RFC 9110, section 15.5.2: a 401 names at least one challenge.
            reply = reply.with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            reply = reply.with(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow.as_deref().and_then(|a| a.parse().ok()) {
            reply = reply.with(ALLOW, allow);
        }
        reply
    }
}

/// `docs/refusals.md`, generated.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "# Refusals\n\nGenerated from `src/kernel/reject.rs`; do not edit.\n\n\
         Every refusal by the edge is `application/problem+json` (RFC 9457) with `type`, `title`, \
         `status`, `detail` and `request_id`. `type` is `urn:maitred:refusal:` and the code. The text \
         never says which authenticity check failed; the reason is in the log, in the metric \
         `maitred_refusals_total` and in the admin listener's recent refusals.\n\n\
         | code | status | meaning | the client should |\n|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let row = code.row();
        out.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            row.slug, row.status, row.detail, row.client_should
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Code, Reject};
    use crate::kernel::id::Random;

    #[test]
    fn codes_are_unique_and_statuses_are_errors() {
        let mut seen = HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.row().slug), "{:?} twice", code);
            assert!((400..=599).contains(&code.row().status));
        }
    }

    #[test]
    fn the_reason_stays_inside() {
        let reject = Reject::new(
            Code::Unauthenticated,
            "stale",
            "the clock is off by five minutes",
        );
        let reply = reject.to_reply(&Random::seeded(1).request_id());
        assert!(!String::from_utf8_lossy(&reply.body).contains("clock"));
    }
}
