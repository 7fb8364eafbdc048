//! Decides whether a request has exactly one reading: where it ends, which host it names, which
//! fields belong to this hop. What two servers could read in two ways is refused and never repaired.
//! The parser in front has refused much of this before; it is checked again because it is cheap.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Version};

use crate::kernel::facts::Protocol;
use crate::kernel::header::{HOP_BY_HOP, KEEP_ALIVE, PROXY_CONNECTION};
use crate::kernel::reject::{Code, Reject};

/// How the body is delimited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Framing {
    /// Declared length; `None` where there is none (chunked, HTTP/2 without one, or no body).
    pub content_length: Option<u64>,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// Checks everything about a request's shape that needs no configuration.
///
/// # Errors
/// 400, or 405 for methods that no proxy should pass on.
pub fn check(parts: &Parts, protocol: Protocol) -> Result<Framing, Reject> {
    check_method(&parts.method)?;
    check_values(parts)?;
    match protocol {
        Protocol::Http1 => check_http1(parts)?,
        Protocol::Http2 => check_http2(parts)?,
    }
    check_connection(parts)?;
    check_upgrade(parts)?;
    let content_length = content_length(parts)?;
    if content_length.is_some() && parts.headers.contains_key(TRANSFER_ENCODING) {
        return Err(refuse(
            "framing_cl_te",
            "Content-Length and Transfer-Encoding together",
        ));
    }
    Ok(Framing {
        content_length,
        expects_continue: expects_continue(parts)?,
    })
}

fn check_method(method: &Method) -> Result<(), Reject> {
    if *method == Method::TRACE || *method == Method::CONNECT {
        let mut reject = Reject::method_not_allowed("GET, HEAD, POST, PUT, PATCH, DELETE".into());
        reject.reason = "TRACE and CONNECT are not proxied".into();
        return Err(reject);
    }
    Ok(())
}

/// Tab and visible bytes only. A folded line (obs-fold) would show here as CR or LF.
fn check_values(parts: &Parts) -> Result<(), Reject> {
    let bad = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
    let worst = parts
        .headers
        .values()
        .any(|value| value.as_bytes().iter().any(bad));
    if worst {
        return Err(refuse(
            "header_value",
            "a header value has a control character",
        ));
    }
    Ok(())
}

fn check_http1(parts: &Parts) -> Result<(), Reject> {
    let hosts = parts.headers.get_all(HOST).iter().count();
    let chunked = parts.headers.contains_key(TRANSFER_ENCODING);
    match parts.version {
        Version::HTTP_11 if hosts != 1 => {
            Err(refuse("host_count", "HTTP/1.1 asks for exactly one Host"))
        }
        Version::HTTP_10 if hosts > 1 => Err(refuse("host_count", "more than one Host")),
        Version::HTTP_10 if chunked => {
            Err(refuse("framing_te_http10", "Transfer-Encoding in HTTP/1.0"))
        }
        Version::HTTP_10 | Version::HTTP_11 => check_transfer_encoding(parts),
        _ => Err(refuse("http_version", "neither HTTP/1.0 nor HTTP/1.1")),
    }
}

fn check_transfer_encoding(parts: &Parts) -> Result<(), Reject> {
    let mut lines = parts.headers.get_all(TRANSFER_ENCODING).iter();
    let exact = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    match (lines.next(), lines.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if exact(only) => Ok(()),
        (Some(_), _) => Err(refuse(
            "framing_te",
            "Transfer-Encoding is not exactly `chunked`",
        )),
    }
}

/// RFC 9113, section 8.2.2: fields of a connection make a request malformed.
fn check_http2(parts: &Parts) -> Result<(), Reject> {
    let of_connection = [
        CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
    ];
    if of_connection
        .iter()
        .any(|name| parts.headers.contains_key(name))
    {
        return Err(refuse(
            "h2_connection_field",
            "an HTTP/1 connection field in HTTP/2",
        ));
    }
    let trailers = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"trailers");
    if !parts.headers.get_all(TE).iter().all(trailers) {
        return Err(refuse("h2_te", "TE other than `trailers` in HTTP/2"));
    }
    if parts.headers.get_all(HOST).iter().count() > 1 {
        return Err(refuse("host_count", "more than one Host"));
    }
    Ok(())
}

/// Fields that a client may have removed on the way by naming them in `Connection`.
fn check_connection(parts: &Parts) -> Result<(), Reject> {
    for line in parts.headers.get_all(CONNECTION) {
        for option in line.as_bytes().split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            if option.is_empty() || is_harmless_option(option) {
                continue;
            }
            if HeaderName::from_bytes(option).is_err() || is_protected(option) {
                let reason = "Connection names a field that is not the client's to remove";
                return Err(refuse("connection_nominates", reason));
            }
        }
    }
    Ok(())
}

fn is_harmless_option(option: &[u8]) -> bool {
    [b"close".as_slice(), b"keep-alive", b"upgrade"]
        .iter()
        .any(|known| option.eq_ignore_ascii_case(known))
}

/// End-to-end fields of known meaning: whoever has one of them removed between two checks has the
/// second decide about another request than the first.
fn is_protected(option: &[u8]) -> bool {
    const NAMES: [&str; 12] = [
        "accept-encoding",
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "origin",
        "range",
    ];
    const PREFIXES: [&str; 3] = ["x-", "webhook-", "idempotency-"];
    let name = option.to_ascii_lowercase();
    let named = NAMES.iter().any(|protected| name == protected.as_bytes());
    let hop = HOP_BY_HOP.iter().any(|hop| hop.as_str().as_bytes() == name);
    named
        || (!hop
            && PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix.as_bytes())))
}

/// A request to change to HTTP/2 is ignored, as RFC 9110 allows; any other would turn the connection
/// into a tunnel that nobody checks.
fn check_upgrade(parts: &Parts) -> Result<(), Reject> {
    let ignorable = |protocol: &[u8]| {
        let protocol = protocol.trim_ascii();
        [b"h2c".as_slice(), b"h2", b"http/2.0"]
            .iter()
            .any(|known| protocol.eq_ignore_ascii_case(known))
    };
    let lines = parts.headers.get_all(UPGRADE).iter();
    let mut protocols = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    if protocols.all(ignorable) {
        return Ok(());
    }
    Err(refuse("upgrade", "the edge changes to no other protocol"))
}

/// Digits only, once, on one line: `4, 4` and two equal lines are read in different ways by others.
fn content_length(parts: &Parts) -> Result<Option<u64>, Reject> {
    let mut lines = parts.headers.get_all(CONTENT_LENGTH).iter();
    let value = match (lines.next(), lines.next()) {
        (None, _) => return Ok(None),
        (Some(only), None) => only.as_bytes(),
        (Some(_), Some(_)) => return Err(refuse("framing_cl_twice", "Content-Length twice")),
    };
    let bad = || refuse("framing_cl", "Content-Length is not a plain number");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    let length = std::str::from_utf8(value)
        .ok()
        .and_then(|digits| digits.parse().ok());
    length.map(Some).ok_or_else(bad)
}

fn expects_continue(parts: &Parts) -> Result<bool, Reject> {
    let mut lines = parts.headers.get_all(EXPECT).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(false),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(true),
        (Some(_), _) => Err(refuse("expect", "Expect other than 100-continue")),
    }
}

fn refuse(label: &'static str, reason: &'static str) -> Reject {
    Reject::new(Code::BadRequest, label, reason)
}

#[cfg(test)]
mod tests {
    use http::{Request, Version};

    use super::{Framing, check};
    use crate::kernel::facts::Protocol;
    use crate::kernel::reject::Reject;

    fn run(method: &str, version: Version, headers: &[(&str, &str)]) -> Result<Framing, Reject> {
        let mut request = Request::builder().method(method).uri("/").version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let protocol = if version == Version::HTTP_2 {
            Protocol::Http2
        } else {
            Protocol::Http1
        };
        check(&request.body(()).unwrap().into_parts().0, protocol)
    }

    fn http1(headers: &[(&str, &str)]) -> Result<Framing, Reject> {
        run(
            "POST",
            Version::HTTP_11,
            &[&[("host", "a.example")], headers].concat(),
        )
    }

    fn http2(headers: &[(&str, &str)]) -> Result<Framing, Reject> {
        run("POST", Version::HTTP_2, headers)
    }

    #[test]
    fn an_ordinary_request_passes() {
        let framing = http1(&[("content-length", "12"), ("expect", "100-continue")]).unwrap();
        assert_eq!(
            framing,
            Framing {
                content_length: Some(12),
                expects_continue: true
            }
        );
        assert_eq!(
            http1(&[("transfer-encoding", "Chunked")])
                .unwrap()
                .content_length,
            None
        );
        assert!(http1(&[("connection", "keep-alive, Upgrade"), ("upgrade", "h2c")]).is_ok());
        assert!(http1(&[("connection", "TE, close"), ("te", "gzip")]).is_ok());
        assert!(http2(&[("te", "trailers"), ("content-length", "0")]).is_ok());
        assert!(run("GET", Version::HTTP_10, &[]).is_ok());
    }

    #[test]
    fn a_body_with_two_ends_is_refused() {
        for bad in [
            &[("content-length", "4"), ("transfer-encoding", "chunked")][..],
            &[("content-length", "4"), ("content-length", "4")],
            &[("content-length", "4, 4")],
            &[("content-length", "+4")],
            &[("content-length", "-1")],
            &[("content-length", "0x4")],
            &[("content-length", "4 ")],
            &[("content-length", "")],
            &[("content-length", "18446744073709551616")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "chunked, chunked")],
            &[
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
            &[("transfer-encoding", "identity")],
            &[("transfer-encoding", "\tchunked")],
            &[("transfer-encoding", "xchunked")],
        ] {
            assert!(http1(bad).is_err(), "{bad:?}");
        }
        assert!(
            run(
                "POST",
                Version::HTTP_10,
                &[("transfer-encoding", "chunked")]
            )
            .is_err()
        );
    }

    #[test]
    fn a_request_names_one_host() {
        assert!(run("GET", Version::HTTP_11, &[]).is_err());
        assert!(http1(&[("host", "b.example")]).is_err());
        assert!(http2(&[("host", "a.example"), ("host", "b.example")]).is_err());
    }

    #[test]
    fn methods_and_upgrades_that_make_a_tunnel_are_refused() {
        for method in ["TRACE", "CONNECT"] {
            let reject = run(method, Version::HTTP_11, &[("host", "a")]).unwrap_err();
            assert_eq!(reject.status(), 405);
            assert!(reject.allow.is_some());
        }
        for protocol in ["websocket", "h2c, websocket", "TLS/1.0", ""] {
            let bad = [("connection", "upgrade"), ("upgrade", protocol)];
            assert!(http1(&bad).is_err(), "{protocol}");
        }
    }

    #[test]
    fn a_client_cannot_have_fields_removed() {
        for bad in [
            "host",
            "close, X-Forwarded-For",
            "Authorization",
            "x-maitred-identity",
            "X-Signature",
            "content-length",
            "webhook-id",
            "cookie",
            "not a token",
        ] {
            assert!(http1(&[("connection", bad)]).is_err(), "{bad}");
        }
    }

    #[test]
    fn http2_has_no_connection_fields() {
        for bad in [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("keep-alive", "1"),
            ("proxy-connection", "close"),
            ("te", "gzip"),
        ] {
            assert!(http2(&[bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_one_expectation_is_known() {
        assert!(http1(&[("expect", "200-ok")]).is_err());
        assert!(http1(&[("expect", "100-continue"), ("expect", "100-continue")]).is_err());
    }
}
