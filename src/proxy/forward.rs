//! What changes on a request's way to the upstream and on the response's way back, and what a failed
//! attempt means. Pure apart from the leases.

use http::header::InvalidHeaderValue;
use http::header::{AUTHORIZATION, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorSource, ErrorType};

use super::ctx::Admitted;
use super::fields;
use crate::auth::assertion::Signer;
use crate::kernel::clock::UnixMs;
use crate::kernel::facts::{Facts, Scheme};
use crate::kernel::header;
use crate::kernel::reject::{Code, Reject};

/// Fields that only the edge may set; a client's copies are removed.
const EDGE_ONLY_PREFIXES: [&str; 2] = ["x-maitred-", "x-forwarded-"];
/// Fields by which frameworks learn who is calling, or serve another path or method than the one that
/// was checked; nobody in front of the edge is believed about those.
const EDGE_ONLY: [&str; 9] = [
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "x-original-url",
    "x-rewrite-url",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

/// `x_maitred_identity` counts, too: origins behind CGI-like interfaces take it for the same name.
fn is_edge_only(name: &HeaderName) -> bool {
    let name = name.as_str();
    let mended = name.contains('_').then(|| name.replace('_', "-"));
    let name = mended.as_deref().unwrap_or(name);
    EDGE_ONLY.contains(&name) || EDGE_ONLY_PREFIXES.iter().any(|p| name.starts_with(p))
}

/// Prepares the request header for the upstream. `query` is the one that was checked or that the
/// cache key was made of.
pub fn request(
    upstream: &mut RequestHeader,
    admitted: &Admitted,
    query: Option<&str>,
    assertions: &Signer,
    now: UnixMs,
) -> Result<(), Reject> {
    let facts = &admitted.facts;
    let bad = |what: &str| Reject::new(Code::BadRequest, "target", format!("unusable {what}"));
    let target = match query {
        Some(query) if !query.is_empty() => format!("{}?{query}", facts.path),
        Some(_) | None => facts.path.clone(),
    };
    let target: PathAndQuery = target.parse().map_err(|_| bad("target"))?;
    let identity = identity(admitted, assertions, now)?;
    let mut outcome = Ok(());
    fields::edit_request(upstream, |parts| {
        parts.uri = target.into();
        let spoofed = parts.headers.keys().filter(|n| is_edge_only(n));
        let spoofed: Vec<HeaderName> = spoofed.cloned().collect();
        for name in spoofed {
            parts.headers.remove(name);
        }
        outcome = forwarded(&mut parts.headers, facts);
        if let Some(identity) = identity {
            // The API believes the assertion alone; the bearer token stops here.
            parts.headers.remove(AUTHORIZATION);
            parts.headers.insert(header::X_MAITRED_IDENTITY, identity);
        }
    });
    outcome.map_err(|_| bad("header"))
}

/// Which origin may read a response is the edge's to say, whatever the service thinks of it.
const CROSS_ORIGIN: [HeaderName; 6] = [
    http::header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    http::header::ACCESS_CONTROL_ALLOW_HEADERS,
    http::header::ACCESS_CONTROL_ALLOW_METHODS,
    http::header::ACCESS_CONTROL_ALLOW_ORIGIN,
    http::header::ACCESS_CONTROL_EXPOSE_HEADERS,
    http::header::ACCESS_CONTROL_MAX_AGE,
];

/// Removes from a response what concerned the upstream's connection alone, and what is not the
/// upstream's to decide.
pub fn response(response: &mut ResponseHeader) {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let nominated = header::nominated(&response.headers);
    fields::edit_response(response, |headers| {
        for name in nominated
            .iter()
            .chain(&header::HOP_BY_HOP)
            .chain(&CROSS_ORIGIN)
        {
            headers.remove(name);
        }
    });
}

/// Where the request came from, as the edge established it; what the client claimed is replaced.
fn forwarded(headers: &mut HeaderMap, facts: &Facts) -> Result<(), InvalidHeaderValue> {
    let scheme = match facts.scheme {
        Scheme::Http => HeaderValue::from_static("http"),
        Scheme::Https => HeaderValue::from_static("https"),
    };
    let host = HeaderValue::from_str(&facts.host)?;
    let client = HeaderValue::from_str(&facts.client_ip.to_string())?;
    headers.insert(header::X_FORWARDED_FOR, client);
    headers.insert(header::X_FORWARDED_PROTO, scheme);
    headers.insert(
        header::X_REQUEST_ID,
        HeaderValue::from_str(facts.request_id.as_str())?,
    );
    // The name that was checked, not the client's spelling: a port of its own choice would be no part
    // of the cache's key.
    headers.insert(HOST, host.clone());
    headers.insert(header::X_FORWARDED_HOST, host);
    Ok(())
}

/// The identity header for requests that the edge makes by itself on a caller's behalf.
pub fn identity(
    admitted: &Admitted,
    assertions: &Signer,
    now: UnixMs,
) -> Result<Option<HeaderValue>, Reject> {
    let Some(caller) = &admitted.caller else {
        return Ok(None);
    };
    let request_id = &admitted.facts.request_id;
    assertions
        .sign(caller, request_id, now)
        .ok_or_else(unsignable)
        .map(Some)
}

fn unsignable() -> Reject {
    Reject::new(
        Code::Internal,
        "identity",
        "the identity assertion could not be written",
    )
}

/// An error in words that are ours. Pingora's own text may quote what it read, and with it cookies,
/// tokens and bodies.
pub fn describe(error: &Error) -> String {
    let (kind, source) = (error.etype().as_str(), error.esource().as_str());
    match error.root_cause().downcast_ref::<std::io::Error>() {
        Some(cause) => format!("{source} {kind}: {cause}"),
        None => format!("{source} {kind}"),
    }
}

/// What the client is told of an attempt that failed for good. `None` = the client is gone.
pub fn refusal(error: &Error, body_pending: bool) -> Option<Reject> {
    let why = describe(error);
    let timed_out = matches!(
        error.etype(),
        ErrorType::ReadTimedout | ErrorType::WriteTimedout | ErrorType::ConnectTimedout
    );
    match error.esource() {
        ErrorSource::Upstream if timed_out && body_pending => {
            Some(Reject::new(Code::RequestTimeout, "body_time", why))
        }
        ErrorSource::Upstream if timed_out => {
            Some(Reject::new(Code::GatewayTimeout, "upstream_timeout", why))
        }
        ErrorSource::Upstream => Some(Reject::new(Code::BadGateway, "upstream", why)),
        ErrorSource::Downstream if timed_out => {
            Some(Reject::new(Code::RequestTimeout, "body_time", why))
        }
        ErrorSource::Downstream if is_gone(error.etype()) => None,
        ErrorSource::Downstream => Some(Reject::new(Code::BadRequest, "request", why)),
        ErrorSource::Internal | ErrorSource::Unset => {
            Some(Reject::new(Code::Internal, "internal", why))
        }
    }
}

fn is_gone(kind: &ErrorType) -> bool {
    matches!(
        kind,
        ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed
    )
}

#[cfg(test)]
mod tests {
    use pingora::{Error, ErrorSource, ErrorType};

    use super::refusal;
    use crate::kernel::reject::Code;

    fn of(kind: ErrorType, source: ErrorSource, body_pending: bool) -> Option<Code> {
        let mut error = Error::new(kind);
        error.esource = source;
        refusal(&error, body_pending).map(|r| r.code)
    }

    #[test]
    fn the_status_says_whose_fault_it_was() {
        use ErrorSource::{Downstream, Internal, Upstream};
        assert_eq!(
            of(ErrorType::ReadTimedout, Upstream, false),
            Some(Code::GatewayTimeout)
        );
        assert_eq!(
            of(ErrorType::ReadTimedout, Upstream, true),
            Some(Code::RequestTimeout)
        );
        assert_eq!(
            of(ErrorType::ConnectRefused, Upstream, false),
            Some(Code::BadGateway)
        );
        assert_eq!(
            of(ErrorType::ReadTimedout, Downstream, true),
            Some(Code::RequestTimeout)
        );
        assert_eq!(of(ErrorType::ConnectionClosed, Downstream, false), None);
        assert_eq!(
            of(ErrorType::InternalError, Internal, false),
            Some(Code::Internal)
        );
    }
}
