//! The webhook lane: a signed event gets in once; forged, old, early, repeated and oversized ones do
//! not.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::Visit;
use super::line::{Answer, Ask};
use super::report::{Found, Miss, Report};
use crate::kernel::clock::UnixMs;
use crate::kernel::header::X_REQUEST_ID;
use crate::webhook::scheme::OnReplay;
use crate::webhook::sign::{Unsigned, sign};

/// A kind of event that the API has no use for: nobody's data changes, only the event id is kept.
const KIND: &str = "maitred.smoke";
/// How far outside the tolerance a timestamp is put.
const OUTSIDE: Duration = Duration::from_secs(60);
const REFUSES: &str = "the edge's log of this request: it says which check did or did not refuse";

/// A signed event, ready to be sent any number of times.
struct Event {
    id: String,
    headers: HeaderMap,
    body: Bytes,
}

pub(super) async fn all(visit: &mut Visit<'_>, report: &mut Report<'_>) -> io::Result<()> {
    let row = visit.row(
        "webhook accepted",
        "the endpoint's secret here and there (WH_SECRET, --webhook-secret-env), both clocks, and \
         the API behind the edge",
    );
    let accepted = report.check(row, accepted(visit)).await?;
    let proven = accepted.is_some();

    let row = visit.row("webhook replayed", REFUSES);
    report
        .check(row, replayed(visit, accepted.as_ref(), 1))
        .await?;
    let row = visit.row("webhook replayed, other id", REFUSES);
    report
        .check(row, replayed(visit, accepted.as_ref(), 2))
        .await?;
    let row = visit.row("webhook forged", REFUSES);
    report.check(row, forged(visit)).await?;
    let row = visit.row("webhook too old", REFUSES);
    report
        .check(row, out_of_time(visit, Side::Past, proven))
        .await?;
    let row = visit.row("webhook from the future", REFUSES);
    report
        .check(row, out_of_time(visit, Side::Future, proven))
        .await?;
    let row = visit.row(
        "webhook too large",
        "body_bytes_max of the endpoint, here and there",
    );
    report.check(row, too_large(visit)).await?;
    let row = visit.row("webhook by GET", "the route of the endpoint");
    report.check(row, by_get(visit)).await?;
    Ok(())
}

async fn accepted(visit: &mut Visit<'_>) -> Found<Event> {
    if visit.target.read_only {
        return Err(Miss::skip("--read-only"));
    }
    let event = event(visit, "accepted", visit.target.clock.unix())?;
    let answer = post(visit, &event, 1).await?;
    answer.must_be(StatusCode::OK)?;
    let body = answer.json();
    let seen = match body["status"].as_str() {
        Some("ignored") => {
            "200 ignored: verified, of a kind that the API has no use for".to_owned()
        }
        Some(status) => format!("200 {status}"),
        None => "200".to_owned(),
    };
    Ok((seen, event))
}

/// The request id is not signed, so another one must make no difference.
async fn replayed(visit: &mut Visit<'_>, event: Option<&Event>, nth: u8) -> Found<()> {
    let Some(event) = event else {
        return Err(Miss::skip("nothing was accepted that could be replayed"));
    };
    let answer = post(visit, event, nth).await?;
    match visit.target.endpoint.scheme.on_replay() {
        OnReplay::Reject => refused(&answer),
        OnReplay::Ack => {
            answer.must_be(StatusCode::OK)?;
            match answer.json()["status"] == "duplicate" {
                true => Ok(("200 duplicate".into(), ())),
                false => Err(Miss::fail("200, and not called a duplicate")),
            }
        }
    }
}

/// One byte of the body is another than was signed.
async fn forged(visit: &mut Visit<'_>) -> Found<()> {
    if !visit.target.endpoint.scheme.signs_body() {
        return Err(Miss::skip("this scheme does not sign the body"));
    }
    let mut event = event(visit, "forged", visit.target.clock.unix())?;
    let text = String::from_utf8_lossy(&event.body).replace("\"amount\":0", "\"amount\":9");
    event.body = text.into();
    refused(&post(visit, &event, 1).await?)
}

#[derive(Clone, Copy)]
enum Side {
    Past,
    Future,
}

/// Without a webhook that was accepted a 401 would not say that the time was the reason.
async fn out_of_time(visit: &mut Visit<'_>, side: Side, proven: bool) -> Found<()> {
    let Some((past_s, future_s)) = visit.target.endpoint.scheme.tolerance_s() else {
        return Err(Miss::skip("this scheme has no timestamp"));
    };
    if !proven && !visit.target.read_only {
        return Err(Miss::skip("even a good one is refused"));
    }
    let (name, s) = match side {
        Side::Past => ("stale", -i64::from(past_s)),
        Side::Future => ("early", i64::from(future_s)),
    };
    let beyond_s = s + s.signum() * i64::try_from(OUTSIDE.as_secs()).unwrap_or(i64::MAX);
    let event = event(
        visit,
        name,
        UnixMs(visit.target.clock.unix().0 + beyond_s * 1000),
    )?;
    let (seen, ()) = refused(&post(visit, &event, 1).await?)?;
    let unproven = if proven {
        ""
    } else {
        "; not proven that the time was the reason"
    };
    Ok((format!("{seen}, {beyond_s} s off{unproven}"), ()))
}

async fn too_large(visit: &mut Visit<'_>) -> Found<()> {
    let announced = visit.target.endpoint.body_bytes_max + 1;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(announced));
    let ask = Ask::announce(path(visit), headers);
    // Its own connection: the edge may close it, as the body never comes.
    let answer = visit.fresh().await?.ask(ask).await?;
    answer.must_be(StatusCode::PAYLOAD_TOO_LARGE)?;
    Ok((format!("413 to {announced} declared bytes, none sent"), ()))
}

async fn by_get(visit: &mut Visit<'_>) -> Found<()> {
    let ask = Ask::get(path(visit));
    let answer = visit.line().await?.ask(ask).await?;
    answer.must_be(StatusCode::METHOD_NOT_ALLOWED)?;
    let allow = answer.header("allow");
    match allow.contains("POST") {
        true => Ok((format!("405, Allow: {allow}"), ())),
        false => Err(Miss::fail(format!("405, Allow: {allow:?}"))),
    }
}

fn refused(answer: &Answer) -> Found<()> {
    answer.must_be(StatusCode::UNAUTHORIZED)?;
    Ok(("401".into(), ()))
}

fn event(visit: &Visit<'_>, name: &str, at: UnixMs) -> Result<Event, Miss> {
    let target = visit.target;
    let id = format!("evt_smoke_{}_{}_{name}", target.run, visit.protocol.name());
    let body = format!("{{\"event\":\"{KIND}\",\"id\":\"{id}\",\"amount\":0}}");
    let unsigned = Unsigned {
        method: "POST",
        query: "",
        event_id: &id,
        body: body.as_bytes(),
    };
    let signed = sign(&target.endpoint.scheme, &target.secret, &unsigned, at).map_err(|r| {
        Miss::look(
            format!("cannot sign: {}", r.hint()),
            "an endpoint with another scheme",
        )
    })?;
    if signed.query.is_some() || signed.body.is_some() {
        let what = "the signature of this scheme is not in a header";
        return Err(Miss::look(what, "an endpoint with another scheme"));
    }
    let mut headers: HeaderMap = signed.headers.into_iter().collect();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = body.into();
    Ok(Event { id, headers, body })
}

async fn post(visit: &mut Visit<'_>, event: &Event, nth: u8) -> Result<Answer, Miss> {
    let mut headers = event.headers.clone();
    if let Ok(id) = HeaderValue::try_from(format!("{}-{nth}", event.id)) {
        headers.insert(X_REQUEST_ID, id);
    }
    let ask = Ask::post(path(visit), headers, event.body.clone());
    visit.line().await?.ask(ask).await
}

fn path(visit: &Visit<'_>) -> String {
    format!("/webhooks/{}", visit.target.endpoint.name)
}
