//! Who may: decides from the header alone whether a request is an operator's. Knows nothing of what
//! is asked for beyond its [`Kind`].
//!
//! Against strangers: a token wherever the listener is not on loopback. Against a web page in the
//! browser of an operator, which reaches loopback addresses too: the Host must be one that no foreign
//! name can be rebound to, what comes from another site is refused, and a change must be JSON of our
//! own origin, which no form can send.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Method, StatusCode};

use super::answer::Problem;
use crate::kernel::secret::Secret;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

const BEARER: &str = "Bearer realm=\"maitred admin\"";
const BASIC: &str = "Basic realm=\"maitred admin: the token is the password\", charset=\"UTF-8\"";

/// What a request wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Metrics and liveness: for scrapers, which have no token.
    Open,
    Read,
    Change,
}

/// Where the door is and what opens it.
pub(super) struct Door<'a> {
    pub(super) bound: SocketAddr,
    pub(super) token: Option<&'a Secret>,
}

/// Who was let in, for the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Who {
    /// Somebody with the token.
    Token,
    /// Somebody on this machine, where no token is configured.
    Loopback,
    /// Nobody was asked.
    Anyone,
}

impl Who {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Loopback => "loopback",
            Self::Anyone => "anyone",
        }
    }
}

/// Lets the request in, or says what is wrong with it.
pub(super) fn enter(parts: &Parts, kind: Kind, door: &Door<'_>) -> Result<Who, Problem> {
    if parts.uri.authority().is_some() {
        return Err(Problem::bad("send the path alone as the request target"));
    }
    let loopback = door.bound.ip().is_loopback();
    let who = match (kind, door.token) {
        (Kind::Open, _) => Who::Anyone,
        (Kind::Read | Kind::Change, Some(token)) => by_token(&parts.headers, token)?,
        (Kind::Read | Kind::Change, None) if loopback => Who::Loopback,
        (Kind::Read | Kind::Change, None) => {
            return Err(forbidden(
                "closed",
                "this listener is not on a loopback address and has no token: set \
                 listeners.admin.token, or listen on 127.0.0.1",
            ));
        }
    };
    match who {
        // A name that was rebound to this address is another origin for the browser, and the token is
        // not known there.
        Who::Token => {}
        Who::Loopback => known_host(&parts.headers, door.bound)?,
        Who::Anyone if loopback && parts.headers.contains_key(HOST) => {
            known_host(&parts.headers, door.bound)?;
        }
        Who::Anyone => {}
    }
    same_site(parts)?;
    if kind == Kind::Change {
        own_change(&parts.headers)?;
    }
    Ok(who)
}

fn forbidden(slug: &'static str, detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, slug, detail)
}

fn by_token(headers: &HeaderMap, token: &Secret) -> Result<Who, Problem> {
    let html = wants_html(headers);
    let challenge = if html { BASIC } else { BEARER };
    let Some(presented) = presented(headers) else {
        return Err(Problem::unknown(
            "send the token of listeners.admin as `Authorization: Bearer …` (maitred: --token-file or \
             MAITRED_ADMIN_TOKEN; a browser: as the password)",
            challenge,
        ));
    };
    match presented == *token {
        true => Ok(Who::Token),
        false => Err(Problem::unknown(
            "this is not the token of listeners.admin",
            challenge,
        )),
    }
}

/// A bearer token, or the password of a browser.
fn presented(headers: &HeaderMap) -> Option<Secret> {
    let (scheme, rest) = only(headers, &AUTHORIZATION)?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Secret::new(rest.trim()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = Secret::new(STANDARD.decode(rest.trim()).ok()?);
    let colon = pair.expose().iter().position(|b| *b == b':')?;
    pair.expose().get(colon + 1..).map(Secret::new)
}

/// Whether a browser asks for a page.
pub(super) fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok());
    accept.is_some_and(|a| a.contains("text/html"))
}

/// Against DNS rebinding: a page of `evil.example` whose name now leads here still says so in Host.
fn known_host(headers: &HeaderMap, bound: SocketAddr) -> Result<(), Problem> {
    let host = only(headers, &HOST).and_then(|h| h.parse::<Authority>().ok());
    let known = host.is_some_and(|host| match literal(host.host()) {
        Some(ip) => ip.is_loopback() || ip == bound.ip(),
        None => host.host().eq_ignore_ascii_case("localhost"),
    });
    if known {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        "host",
        format!(
            "without a token only requests for localhost, 127.0.0.1, [::1] or {} are answered; use one \
             of them, or set listeners.admin.token",
            bound.ip()
        ),
    ))
}

fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

/// A browser says whose page it acts for. Following a link to a page of ours is harmless.
fn same_site(parts: &Parts) -> Result<(), Problem> {
    let says = |name: &HeaderName| parts.headers.get(name).map(http::HeaderValue::as_bytes);
    let ours = matches!(says(&SEC_FETCH_SITE), None | Some(b"same-origin" | b"none"));
    let link = matches!(parts.method, Method::GET | Method::HEAD)
        && says(&SEC_FETCH_MODE) == Some(b"navigate")
        && says(&SEC_FETCH_DEST) == Some(b"document");
    match ours || link {
        true => Ok(()),
        false => Err(forbidden(
            "cross-site",
            "a page of another site asked for this",
        )),
    }
}

/// Against forged requests: no form of another site sends JSON, and a script says where it is from.
fn own_change(headers: &HeaderMap) -> Result<(), Problem> {
    let json = only(headers, &CONTENT_TYPE).is_some_and(|t| {
        let essence = t.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    });
    if !json {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content-type",
            "send JSON, with `Content-Type: application/json`",
        ));
    }
    if !headers.contains_key(ORIGIN) {
        return Ok(());
    }
    let origin = only(headers, &ORIGIN).and_then(|o| o.split_once("://"));
    let same = origin.is_some_and(|(scheme, authority)| {
        matches!(scheme, "http" | "https") && only(headers, &HOST) == Some(authority)
    });
    match same {
        true => Ok(()),
        false => Err(forbidden(
            "origin",
            "a page of another origin asked for this change",
        )),
    }
}

/// The value of a header that is there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    match all.next() {
        None => first.to_str().ok(),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests;
