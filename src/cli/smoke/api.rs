//! The API behind the edge: logging in, what is stored and when it is forgotten, and the limits that a
//! caller is told. Four calls per protocol that count against the plan.

use std::io;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

use super::front::security;
use super::line::{Answer, Ask};
use super::report::{Found, Miss, Report};
use super::target::{CACHED, Entry};
use super::{Session, Visit};
use crate::kernel::secret::Secret;

/// Calls after the first one until something stored is served.
const REPEATS_MAX: usize = 3;

const LIMITS: [&str; 5] = [
    "ratelimit-policy",
    "ratelimit",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
];

/// Once per run: the limit on it is five in fifteen minutes.
pub(super) async fn log_in(visit: &mut Visit<'_>, report: &mut Report<'_>) -> io::Result<Session> {
    let row = visit.row(
        "login",
        "the user and the password (SMOKE_EMAIL, SMOKE_PASSWORD)",
    );
    let found = report.check(row, token_for(visit)).await?;
    if let (None, Entry::Token(token)) = (&found, &visit.target.entry) {
        return Ok(Session::Open(token.clone()));
    }
    Ok(found.map_or(Session::Refused, Session::Open))
}

async fn token_for(visit: &mut Visit<'_>) -> Found<Secret> {
    let (email, password) = match &visit.target.entry {
        Entry::Token(_) => return Err(Miss::skip("with the token in SMOKE_TOKEN")),
        Entry::Password { email, password } => (email, password),
    };
    let password = String::from_utf8_lossy(password.expose());
    let body = json!({ "email": email, "password": password }).to_string();
    let ask = Ask::post("/auth/login", json_type(), Bytes::from(body));
    let answer = visit.line().await?.ask(ask).await?;
    if answer.status == StatusCode::TOO_MANY_REQUESTS {
        let wait = answer.header("retry-after");
        let seen = format!("429, again in {wait} s");
        return Err(Miss::look(
            seen,
            "the limit on logging in (class `auth`); SMOKE_TOKEN avoids it",
        ));
    }
    answer.must_be(StatusCode::OK)?;
    match answer.json()["accessToken"].as_str() {
        Some(token) => Ok((format!("200, a token for {email}"), Secret::new(token))),
        None => Err(Miss::fail("200 without accessToken")),
    }
}

pub(super) async fn all(
    visit: &mut Visit<'_>,
    report: &mut Report<'_>,
    session: &Session,
) -> io::Result<()> {
    let row = visit.row(
        "cache fills",
        "`cache` of the route, and what the API says of storing",
    );
    let answer = report.check(row, fills(visit, session)).await?;
    let absent = || Miss::skip("there is no answer of the API");

    let row = visit.row("limit headers", "`limits` of the route");
    let judged = async { limits(answer.as_ref().ok_or_else(absent)?) };
    report.check(row, judged).await?;
    let row = visit.row(
        "security headers, API",
        "what changes headers in front of the edge",
    );
    let judged = async {
        let answer = answer.as_ref().ok_or_else(absent)?;
        security(&answer.headers).map(|seen| (seen, ()))
    };
    report.check(row, judged).await?;
    let row = visit.row(
        "cache forgets",
        "Cache-Group-Invalidation of the API's answer, and the cache's log line",
    );
    let task = forgets(visit, session, answer.is_some());
    report.check(row, task).await?;
    Ok(())
}

/// MISS or HIT, then HIT. What is stored may end, or be forgotten for others' doing, between two calls;
/// so a few more are fair.
async fn fills(visit: &mut Visit<'_>, session: &Session) -> Found<Answer> {
    let token = token(session)?;
    let first = cached(visit, token).await?;
    let mut seen = first.header("x-cache").to_owned();
    if seen != "MISS" && seen != "HIT" {
        let seen = format!("x-cache {seen:?} instead of MISS or HIT");
        return Err(Miss::fail(seen));
    }
    for _ in 0..REPEATS_MAX {
        let next = cached(visit, token).await?;
        let state = next.header("x-cache");
        seen = format!("{seen}, then {state}");
        if state == "HIT" {
            let status = next.header("cache-status");
            return Ok((format!("{seen} ({status})"), first));
        }
    }
    Err(Miss::fail(seen))
}

fn limits(answer: &Answer) -> Found<()> {
    let missing = LIMITS
        .into_iter()
        .filter(|name| answer.header(name).is_empty());
    let missing: Vec<_> = missing.collect();
    match missing.is_empty() {
        true => {
            let (policy, state) = (
                answer.header("ratelimit-policy"),
                answer.header("ratelimit"),
            );
            Ok((format!("{policy}; {state}"), ()))
        }
        false => Err(Miss::fail(format!("without {}", missing.join(", ")))),
    }
}

/// HIT → goods are received → MISS.
async fn forgets(visit: &mut Visit<'_>, session: &Session, filled: bool) -> Found<()> {
    let token = token(session)?;
    if visit.target.read_only {
        return Err(Miss::skip("--read-only"));
    }
    let Some(receipt) = &visit.target.receipt else {
        return Err(Miss::skip(
            "give --order and --item for a purchase order that may take goods",
        ));
    };
    if !filled {
        return Err(Miss::skip("nothing is stored that could be forgotten"));
    }
    let body = json!({
        "orgId": visit.target.org,
        "poId": receipt.order,
        "receivedBy": "maitred smoke",
        "items": [{ "itemId": receipt.item, "quantity": 1 }],
    });
    let mut headers = bearer(token)?;
    headers.extend(json_type());
    let path = "/procurement/purchase-orders/receive";
    let ask = Ask::post(path, headers, Bytes::from(body.to_string()));
    let answer = visit.line().await?.ask(ask).await?;
    if !answer.status.is_success() {
        let seen = format!("{} to receiving {}", answer.brief(), receipt.order);
        return Err(Miss::look(
            seen,
            "the purchase order, and whether the user may receive goods",
        ));
    }
    let after = cached(visit, token).await?;
    match after.header("x-cache") {
        "MISS" => Ok(("goods received, then MISS".into(), ())),
        other => Err(Miss::fail(format!(
            "goods received, then {other:?} instead of MISS"
        ))),
    }
}

async fn cached(visit: &mut Visit<'_>, token: &Secret) -> Result<Answer, Miss> {
    let target = format!("{CACHED}?orgId={}&range=today", visit.target.org);
    let ask = Ask::get(target).headers(bearer(token)?);
    let answer = visit.line().await?.ask(ask).await?;
    believed(answer.status)?;
    answer.must_be(StatusCode::OK)?;
    Ok(answer)
}

/// The token, where somebody is logged in.
pub(super) fn token(session: &Session) -> Result<&Secret, Miss> {
    match session {
        Session::Open(token) => Ok(token),
        Session::Untried | Session::Refused => Err(Miss::skip("nobody is logged in")),
    }
}

/// A 401 to a request with a token is about the token, whatever was asked.
pub(super) fn believed(status: StatusCode) -> Result<(), Miss> {
    match status == StatusCode::UNAUTHORIZED {
        true => Err(Miss::look(
            "401, the token is not believed",
            "the issuer's keys as the edge sees them (jwks), its clock, and the token's age",
        )),
        false => Ok(()),
    }
}

pub(super) fn bearer(token: &Secret) -> Result<HeaderMap, Miss> {
    let text = [b"Bearer ", token.expose()].concat();
    let value = HeaderValue::from_bytes(&text);
    let mut value = value.map_err(|_| Miss::fail("the token is not one"))?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}

fn json_type() -> HeaderMap {
    let value = HeaderValue::from_static("application/json");
    HeaderMap::from_iter([(CONTENT_TYPE, value)])
}
