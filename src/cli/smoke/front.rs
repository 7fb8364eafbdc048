//! What every visitor meets: TLS, the edge's own endpoints, security headers, problem+json, and the
//! redirect of the plain listener.

use std::io;

use http::{HeaderMap, StatusCode};
use rustls::ProtocolVersion;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Visit;
use super::line::{Ask, authority, connect_plain};
use super::report::{Check, Found, Miss, Report};
use super::target::Target;

/// With less than this left, whoever renews certificates has not done so.
const DAYS_LEFT_AT_LEAST: i64 = 7;
/// Nothing is served here.
const NOWHERE: &str = "/maitred-smoke/nothing-here?x=1";

const SECURITY: [(&str, &str); 5] = [
    ("strict-transport-security", "max-age="),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("content-security-policy", "default-src 'none'"),
    ("referrer-policy", "no-referrer"),
];
const LEAKS: [&str; 4] = [
    "server",
    "x-powered-by",
    "cache-groups",
    "x-maitred-identity",
];

/// Whether there is a connection to go on with.
pub(super) async fn tls(visit: &mut Visit<'_>, report: &mut Report<'_>) -> io::Result<bool> {
    let row = visit.row(
        "tls",
        "the listener's address, [tls] certificates (leaf first), and --ca",
    );
    let outcome = report.check(row, handshake(visit)).await?;
    let Some(leaf) = outcome else {
        let row = visit.row("everything else", "");
        let nothing = async { Err::<(String, ()), _>(Miss::skip("there is no connection")) };
        report.check(row, nothing).await?;
        return Ok(false);
    };
    let row = visit.row(
        "certificate",
        "who renews it; changed files are taken up without a restart",
    );
    let now_s = visit.target.clock.unix().seconds();
    report.check(row, async { lifetime(&leaf, now_s) }).await?;
    Ok(true)
}

async fn handshake(visit: &mut Visit<'_>) -> Found<Vec<u8>> {
    let opened = visit.target.door.connect(visit.protocol).await;
    let mut line = opened.map_err(Miss::fail)?;
    let Some(handshake) = line.handshake.take() else {
        return Err(Miss::fail("no TLS"));
    };
    visit.line = Some(line);
    let wanted = visit.protocol.alpn();
    let alpn = String::from_utf8_lossy(handshake.alpn.as_deref().unwrap_or_default()).into_owned();
    if alpn != wanted {
        let seen = format!("ALPN {alpn:?} instead of {wanted:?}");
        return Err(Miss::look(seen, "what ends TLS in front of the edge"));
    }
    let version = match handshake.version {
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        Some(_) | None => return Err(Miss::fail("neither TLS 1.2 nor 1.3")),
    };
    let host = &visit.target.door.host;
    let seen = format!("{version}, ALPN {alpn}, chain valid for {host}");
    Ok((seen, handshake.leaf.unwrap_or_default()))
}

fn lifetime(leaf: &[u8], now_s: i64) -> Found<()> {
    let (_, certificate) =
        X509Certificate::from_der(leaf).map_err(|e| Miss::fail(e.to_string()))?;
    let left_s = certificate.validity().not_after.timestamp() - now_s;
    let days = left_s.div_euclid(86_400);
    let seen = format!("{days} days left");
    match days >= DAYS_LEFT_AT_LEAST {
        true => Ok((seen, ())),
        false => Err(Miss::fail(seen)),
    }
}

/// The endpoints that say how the edge is.
pub(super) async fn health(visit: &mut Visit<'_>, report: &mut Report<'_>) -> io::Result<()> {
    let row = visit.row("/healthz", "whether this is maitred at all");
    report
        .check(row, own_word(visit, "/healthz", "status"))
        .await?;
    let row = visit.row(
        "/readiness",
        "the upstreams that it names, or a drain under way",
    );
    report
        .check(row, own_word(visit, "/readiness", "ready"))
        .await?;
    let row = visit.row("/health", "the part that is not connected");
    report
        .check(row, own_word(visit, "/health", "status"))
        .await?;
    let row = visit.row("/version", "whether this is maitred at all");
    report.check(row, version(visit)).await?;
    Ok(())
}

/// 200, and the named field says that all is well.
async fn own_word(visit: &mut Visit<'_>, path: &'static str, field: &'static str) -> Found<()> {
    let answer = visit.line().await?.ask(Ask::get(path)).await?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let seen = format!("{} {text}", answer.status.as_u16());
    let word = &answer.json()[field];
    match answer.status == StatusCode::OK && (*word == "ok" || *word == true) {
        true => Ok((seen, ())),
        false => Err(Miss::fail(seen)),
    }
}

async fn version(visit: &mut Visit<'_>) -> Found<()> {
    let answer = visit.line().await?.ask(Ask::get("/version")).await?;
    answer.must_be(StatusCode::OK)?;
    let body = answer.json();
    let text = |key: &str| {
        body[key]
            .as_str()
            .unwrap_or_default()
            .chars()
            .take(12)
            .collect()
    };
    let [version, build, config]: [String; 3] = [text("version"), text("build"), text("config")];
    match version.is_empty() || config.is_empty() {
        true => Err(Miss::fail("200 without version and config")),
        false => Ok((format!("{version}, build {build}, config {config}"), ())),
    }
}

/// What the edge says where it has nothing to serve, and what it says it with.
pub(super) async fn manners(visit: &mut Visit<'_>, report: &mut Report<'_>) -> io::Result<()> {
    let row = visit.row("404 problem+json", "what answers in the edge's place");
    let headers = report.check(row, nothing_here(visit)).await?;
    let row = visit.row(
        "security headers",
        "what changes headers in front of the edge",
    );
    let judged = async {
        match &headers {
            Some(headers) => security(headers).map(|seen| (seen, ())),
            None => Err(Miss::skip("there was no answer of the edge's own")),
        }
    };
    report.check(row, judged).await?;
    Ok(())
}

async fn nothing_here(visit: &mut Visit<'_>) -> Found<HeaderMap> {
    let answer = visit.line().await?.ask(Ask::get(NOWHERE)).await?;
    answer.must_be(StatusCode::NOT_FOUND)?;
    let kind = answer.header("content-type");
    if !kind.starts_with("application/problem+json") {
        return Err(Miss::fail(format!("404 of type {kind:?}")));
    }
    let body = answer.json();
    let members = ["type", "title", "status", "detail", "request_id"];
    if let Some(missing) = members.into_iter().find(|member| body[member].is_null()) {
        return Err(Miss::fail(format!("404 without `{missing}`")));
    }
    let id = answer.header("x-request-id");
    match body["request_id"] == id {
        true => Ok((format!("404, {kind}, request {id}"), answer.headers)),
        false => Err(Miss::fail("x-request-id and request_id differ")),
    }
}

/// What every answer must carry, and what none may.
pub(super) fn security(headers: &HeaderMap) -> Result<String, Miss> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("")
    };
    let missing = SECURITY
        .iter()
        .filter(|(name, must)| !text(name).starts_with(must));
    let missing = missing.map(|(name, _)| format!("{name} is {:?}", text(name)));
    let leaks = LEAKS.iter().filter(|name| headers.contains_key(**name));
    let wrong: Vec<String> = missing
        .chain(leaks.map(|name| format!("{name} leaks")))
        .collect();
    match wrong.is_empty() {
        true => Ok(format!("{} present, nothing leaks", SECURITY.len())),
        false => Err(Miss::fail(wrong.join(", "))),
    }
}

/// The plain listener sends everybody to the same path over TLS.
pub(super) async fn redirect(
    target: &Target,
    host: &str,
    port: u16,
    report: &mut Report<'_>,
) -> io::Result<()> {
    let row = Check {
        what: "http to https",
        over: "http",
        look: "listeners.http.address and redirect_to_port (the https port that clients see)",
    };
    let task = async {
        let mut line = connect_plain(host, port).await.map_err(Miss::fail)?;
        let answer = line.ask(Ask::get(NOWHERE)).await?;
        answer.must_be(StatusCode::PERMANENT_REDIRECT)?;
        let location = answer.header("location");
        let wanted = format!(
            "https://{}{NOWHERE}",
            authority(host, target.door.port, 443)
        );
        match location == wanted {
            true => Ok((format!("308, {location}"), ())),
            false => Err(Miss::fail(format!("308 to {location} instead of {wanted}"))),
        }
    };
    report.check(row, task).await?;
    Ok(())
}
