//! Cross-origin rules of the Fetch standard: which origin may read a response, and the answer to a
//! preflight. Pure.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::config::Cors;
use crate::kernel::reply::Reply;

/// Request headers that a page may send.
const ALLOW_HEADERS: &str =
    "authorization, content-type, idempotency-key, last-event-id, x-api-key, x-request-id";
/// Response headers that a page may read.
const EXPOSE_HEADERS: &str = "age, cache-status, ratelimit, ratelimit-policy, retry-after, \
                              x-cache, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset, \
                              x-request-id";

/// Whether this is a preflight and not an ordinary OPTIONS request.
#[must_use]
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight; an origin that is not allowed gets no permission and no reason.
#[must_use]
pub fn preflight(cors: &Cors, headers: &HeaderMap, allow: &str) -> Reply {
    let mut reply = Reply::empty(StatusCode::NO_CONTENT);
    let mut permissions = response_headers(cors, headers);
    if permissions
        .iter()
        .any(|(name, _)| *name == ACCESS_CONTROL_ALLOW_ORIGIN)
    {
        permissions.retain(|(name, _)| *name != ACCESS_CONTROL_EXPOSE_HEADERS);
        let allow = HeaderValue::from_str(allow);
        permissions.extend(
            allow
                .ok()
                .map(|value| (ACCESS_CONTROL_ALLOW_METHODS, value)),
        );
        permissions.push((
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static(ALLOW_HEADERS),
        ));
        permissions.push((ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age_s)));
    }
    reply.headers = permissions;
    reply
}

/// What every response to this request carries. `Vary` is there as soon as any origin is allowed,
/// because the answer then depends on the origin.
#[must_use]
pub fn response_headers(cors: &Cors, headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    if cors.origins.is_empty() {
        return Vec::new();
    }
    let mut out = vec![(VARY, HeaderValue::from_static("Origin"))];
    let mut sent = headers.get_all(ORIGIN).iter();
    let (Some(origin), None) = (sent.next(), sent.next()) else {
        return out;
    };
    if cors
        .origins
        .iter()
        .any(|allowed| allowed.as_bytes() == origin.as_bytes())
    {
        out.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
        out.push((
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        ));
        out.push((
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(EXPOSE_HEADERS),
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use http::header::{
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_METHOD,
        ORIGIN,
    };
    use http::{HeaderMap, HeaderValue, Method};

    use super::{is_preflight, preflight, response_headers};
    use crate::config::Cors;

    fn from(origin: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_static(origin));
        headers.insert(
            ACCESS_CONTROL_REQUEST_METHOD,
            HeaderValue::from_static("PUT"),
        );
        headers
    }

    fn cors() -> Cors {
        Cors {
            origins: vec!["https://app.example".into()],
            max_age_s: 600,
        }
    }

    #[test]
    fn only_the_exact_origin_is_let_in() {
        let allowed = preflight(&cors(), &from("https://app.example"), "GET, PUT");
        assert!(
            allowed
                .headers
                .iter()
                .any(|(n, _)| *n == ACCESS_CONTROL_ALLOW_METHODS)
        );
        for other in [
            "https://app.example.evil",
            "http://app.example",
            "null",
            "https://app.example/",
        ] {
            let refused = preflight(&cors(), &from(other), "GET, PUT");
            assert!(
                !refused
                    .headers
                    .iter()
                    .any(|(n, _)| *n == ACCESS_CONTROL_ALLOW_ORIGIN)
            );
        }
    }

    #[test]
    fn two_origin_lines_are_no_origin() {
        let mut headers = from("https://app.example");
        headers.append(ORIGIN, HeaderValue::from_static("https://app.example"));
        assert_eq!(response_headers(&cors(), &headers).len(), 1);
    }

    #[test]
    fn plain_options_is_not_a_preflight() {
        assert!(is_preflight(&Method::OPTIONS, &from("https://a.example")));
        assert!(!is_preflight(&Method::OPTIONS, &HeaderMap::new()));
        assert!(!is_preflight(&Method::GET, &from("https://a.example")));
    }
}
