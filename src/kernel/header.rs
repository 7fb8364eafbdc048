//! Header names that are ours or that the `http` crate does not know, and fields that end at a hop.

use http::header::CONNECTION;
use http::{HeaderMap, HeaderName};

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The edge's signed statement of who is calling; removed from what clients send.
pub const X_MAITRED_IDENTITY: HeaderName = HeaderName::from_static("x-maitred-identity");
pub const X_MAITRED_PROVIDER: HeaderName = HeaderName::from_static("x-maitred-provider");
pub const X_MAITRED_RECEIVED_AT: HeaderName = HeaderName::from_static("x-maitred-received-at");
pub const X_MAITRED_ATTEMPT: HeaderName = HeaderName::from_static("x-maitred-attempt");
/// W3C Trace Context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What of a webhook its provider vouches for: `body`, `fields`, `token`, `crc32` or `none`.
pub const X_MAITRED_AUTHENTICATED: HeaderName = HeaderName::from_static("x-maitred-authenticated");
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
pub const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
pub const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
pub const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
/// RFC 9211.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// RFC 9875.
pub const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
/// RFC 9875.
pub const CACHE_GROUP_INVALIDATION: HeaderName =
    HeaderName::from_static("cache-group-invalidation");
pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
pub const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
pub const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
pub const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields that concern one connection only (RFC 9110, section 7.6.1) and never cross the edge.
pub const HOP_BY_HOP: [HeaderName; 8] = [
    http::header::CONNECTION,
    http::header::PROXY_AUTHENTICATE,
    http::header::PROXY_AUTHORIZATION,
    http::header::TE,
    http::header::TRAILER,
    http::header::UPGRADE,
    KEEP_ALIVE,
    PROXY_CONNECTION,
];

/// The fields that `Connection` names beside them: they end at this hop as well.
#[must_use]
pub fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(CONNECTION).iter();
    let names = lines.filter_map(|v| v.to_str().ok());
    names
        .flat_map(|line| line.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect()
}
