//! The stream lane: who may listen, the first event, how many at a time, and that a place is free again
//! once its stream is closed.

use std::io;
use std::time::Duration;

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::api::{bearer, believed, token};
use super::line::{Ask, Line, Protocol};
use super::report::{Found, Miss, Report};
use super::target::STREAM;
use super::{Session, Visit};
use crate::kernel::secret::Secret;

/// By then the first event must be there.
const FIRST_EVENT_MAX: Duration = Duration::from_secs(5);
/// A closed stream's place must be free within a second; asked a few times, as each counts against the
/// connections per minute.
const RETRY_EVERY: Duration = Duration::from_millis(400);
const RETRIES: u32 = 6;
/// Not an organisation of anybody's.
const FOREIGN: &str = "org_smoke_of_somebody_else";

/// An open stream and, where it needs one of its own, its connection.
struct Open {
    response: Response<Incoming>,
    _line: Option<Line>,
}

pub(super) async fn all(
    visit: &mut Visit<'_>,
    report: &mut Report<'_>,
    session: &Session,
) -> io::Result<()> {
    let row = visit.row("stream without token", "`auth` of the stream's route");
    report.check(row, without_token(visit)).await?;
    let row = visit.row("stream, foreign org", "`org_query` of the stream's route");
    report.check(row, foreign(visit, session)).await?;
    let row = visit.row(
        "stream, first event",
        "the API's stream, and what buffers between it and here",
    );
    let first = report.check(row, first_event(visit, session)).await?;
    let row = visit.row(
        "stream, one too many",
        "concurrent_per_user of the stream, here and there",
    );
    let held = report
        .check(row, one_too_many(visit, session, first))
        .await?;
    let row = visit.row(
        "stream, places come back",
        "what keeps connections open between here and the edge",
    );
    report
        .check(row, places_come_back(visit, session, held))
        .await?;
    Ok(())
}

async fn without_token(visit: &mut Visit<'_>) -> Found<()> {
    let ask = Ask::get(url(&visit.target.org));
    let answer = visit.line().await?.ask(ask).await?;
    answer.must_be(StatusCode::UNAUTHORIZED)?;
    Ok(("401".into(), ()))
}

async fn foreign(visit: &mut Visit<'_>, session: &Session) -> Found<()> {
    let headers = bearer(token(session)?)?;
    let ask = Ask::get(url(FOREIGN)).headers(headers);
    let answer = visit.line().await?.ask(ask).await?;
    believed(answer.status)?;
    answer.must_be(StatusCode::FORBIDDEN)?;
    Ok(("403".into(), ()))
}

async fn first_event(visit: &mut Visit<'_>, session: &Session) -> Found<Open> {
    let token = token(session)?;
    let mut open = patiently(visit, token).await?;
    let kind = open.response.headers().get("content-type");
    let kind = kind.and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    if !kind.starts_with("text/event-stream") {
        return Err(Miss::fail(format!("200 of type {kind:?}")));
    }
    let began = visit.target.clock.instant();
    let read = tokio::time::timeout(FIRST_EVENT_MAX, event_name(&mut open.response));
    let Ok(name) = read.await else {
        let limit = FIRST_EVENT_MAX.as_secs();
        return Err(Miss::fail(format!("{kind}, and no event within {limit} s")));
    };
    let ms = visit
        .target
        .clock
        .instant()
        .duration_since(began)
        .as_millis();
    Ok((format!("{kind}, `{}` after {ms} ms", name?), open))
}

/// Reads until the first whole event; its name.
async fn event_name(response: &mut Response<Incoming>) -> Result<String, Miss> {
    let mut text = String::new();
    while let Some(frame) = response.body_mut().frame().await {
        let frame = frame.map_err(|e| Miss::fail(format!("the stream broke off: {e}")))?;
        let data = frame.into_data().unwrap_or_default();
        text.push_str(&String::from_utf8_lossy(&data));
        if let Some(end) = text.find("\n\n") {
            let mut lines = text.get(..end).unwrap_or_default().lines();
            let name = lines.find_map(|line| line.strip_prefix("event:"));
            return Ok(name.map_or("message", str::trim).to_owned());
        }
    }
    Err(Miss::fail("the stream ended before its first event"))
}

/// Opens the places that are left, and then one more.
async fn one_too_many(
    visit: &mut Visit<'_>,
    session: &Session,
    first: Option<Open>,
) -> Found<Vec<Open>> {
    let token = token(session)?;
    let Some(first) = first else {
        return Err(Miss::skip("there is no first stream"));
    };
    let max = visit.target.streams_max;
    let mut held = vec![first];
    while held.len() < usize::try_from(max).unwrap_or(usize::MAX) {
        held.push(patiently(visit, token).await?);
    }
    let extra = open(visit, token).await?;
    let status = extra.response.status();
    if status != StatusCode::TOO_MANY_REQUESTS {
        let seen = format!("{} with {max} streams open", status.as_u16());
        return Err(Miss::fail(seen));
    }
    let wait = extra.response.headers().get("retry-after");
    match wait.and_then(|v| v.to_str().ok()) {
        Some(wait) => Ok((format!("429, Retry-After: {wait}, with {max} open"), held)),
        None => Err(Miss::fail("429 without Retry-After")),
    }
}

async fn places_come_back(
    visit: &mut Visit<'_>,
    session: &Session,
    held: Option<Vec<Open>>,
) -> Found<()> {
    let token = token(session)?;
    let Some(held) = held else {
        return Err(Miss::skip("the places were not all taken"));
    };
    let count = held.len();
    drop(held);
    let began = visit.target.clock.instant();
    let mut again = Vec::new();
    while again.len() < count {
        again.push(patiently(visit, token).await?);
    }
    let ms = visit
        .target
        .clock
        .instant()
        .duration_since(began)
        .as_millis();
    Ok((
        format!("{count} closed, {count} open again after {ms} ms"),
        (),
    ))
}

/// Opens a stream; where all places are taken, gives one that was just closed time to come back.
async fn patiently(visit: &mut Visit<'_>, token: &Secret) -> Result<Open, Miss> {
    for _ in 0..RETRIES {
        let open = open(visit, token).await?;
        believed(open.response.status())?;
        match open.response.status() {
            StatusCode::OK => return Ok(open),
            StatusCode::TOO_MANY_REQUESTS => tokio::time::sleep(RETRY_EVERY).await,
            other => return Err(Miss::fail(format!("{} instead of 200", other.as_u16()))),
        }
    }
    Err(Miss::look(
        "429 again and again",
        "who else holds streams as this user; the test needs all of the user's places",
    ))
}

/// Over HTTP/2 all streams share a connection, over HTTP/1.1 each has its own.
async fn open(visit: &mut Visit<'_>, token: &Secret) -> Result<Open, Miss> {
    let ask = Ask::get(url(&visit.target.org)).headers(bearer(token)?);
    match visit.protocol {
        Protocol::H1 => {
            let mut line = visit.fresh().await?;
            let response = line.open(ask).await?;
            let _line = Some(line);
            Ok(Open { response, _line })
        }
        Protocol::H2 => {
            let response = visit.line().await?.open(ask).await?;
            let _line = None;
            Ok(Open { response, _line })
        }
    }
}

fn url(org: &str) -> String {
    format!("{STREAM}?orgId={org}")
}
