//! The inbox over HTTP: stats, list, one entry, its body, export. Decides what a path gives; changes
//! are `verbs`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_DISPOSITION;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::answer::{self, Answer, Problem};
use super::filter::{self, Asked};
use super::query::Query;
use super::shown;
use super::verbs::unavailable;
use crate::kernel::clock::UnixMs;
use crate::webhook::inbox::{EntryId, Filter, Inbox, Shown};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 500;
/// Exports at a time; each may hold a body or two in memory.
pub(super) const EXPORTS_MAX: usize = 2;
/// Entries that an export looks up at once.
const EXPORT_PAGE: usize = 100;
/// Lines of an export that wait for its reader.
const EXPORT_LINES: usize = 2;
/// An export whose reader takes no line for so long ends.
const EXPORT_STALL_MAX: Duration = Duration::from_secs(30);

/// There is none in this process.
pub(super) fn absent() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-inbox",
        "this edge keeps no webhooks: no endpoint has `mode = \"store\"`",
    )
}

pub(super) async fn stats(inbox: &Inbox, now: UnixMs) -> Result<Value, Problem> {
    let stats = inbox.stats().await;
    let stats = stats.map_err(|error| unavailable(&error.to_string()))?;
    Ok(shown::stats(&stats, now))
}

pub(super) async fn list(inbox: &Inbox, raw: Option<&str>) -> Result<Answer, Problem> {
    let [endpoint, state, event_id, from, to] = filter::KEYS;
    let known = [endpoint, state, event_id, from, to, "cursor", "limit"];
    let mut query = Query::parse(raw, &known)?;
    let filter = Asked::of(&mut query).filter()?;
    let cursor = query.take("cursor").map(|c| filter::id(&c)).transpose()?;
    let limit = query.take_number("limit", 1..=LIMIT_MAX, LIMIT_DEFAULT)?;
    let page = inbox.list(filter, cursor, limit).await;
    let page = page.map_err(|error| unavailable(&error.to_string()))?;
    Ok(answer::json(&json!({
        "events": page.entries.iter().map(shown::summary).collect::<Vec<_>>(),
        "next_cursor": page.next.map(|id| id.to_string()),
    })))
}

pub(super) async fn find(inbox: &Inbox, id: &str) -> Result<Shown, Problem> {
    let id = filter::id(id)?;
    let found = inbox.show(id).await;
    let found = found.map_err(|error| unavailable(&error.to_string()))?;
    found.ok_or_else(|| {
        Problem::not_found(format!(
            "there is no entry {id}: it was discarded, or kept for as long as the configuration says"
        ))
    })
}

/// The exact bytes, in a form that no browser renders: they are a stranger's.
pub(super) async fn body(inbox: &Inbox, id: &str) -> Result<Answer, Problem> {
    let found = find(inbox, id).await?;
    let mut answer = answer::whole("application/octet-stream", found.event.body);
    let name = format!("attachment; filename=\"{}.body\"", found.summary.id);
    let name = HeaderValue::from_str(&name).unwrap_or(HeaderValue::from_static("attachment"));
    answer.headers_mut().insert(CONTENT_DISPOSITION, name);
    Ok(answer)
}

/// Every entry that matches, bodies included, as NDJSON; newest first. A page at a time, so that it
/// takes the memory of a few entries whatever there is.
pub(super) fn export(
    inbox: Inbox,
    raw: Option<&str>,
    places: &Arc<Semaphore>,
) -> Result<Answer, Problem> {
    let mut query = Query::parse(raw, &filter::KEYS)?;
    let filter = Asked::of(&mut query).filter()?;
    let place = places.clone().try_acquire_owned().map_err(|_| {
        Problem::busy(format!(
            "{EXPORTS_MAX} exports are under way; try again when one is done"
        ))
    })?;
    let (sender, receiver) = mpsc::channel(EXPORT_LINES);
    tokio::spawn(produce(inbox, filter, sender, place));
    let frames = stream::unfold(receiver, |mut receiver| async move {
        let line: io::Result<Bytes> = receiver.recv().await?;
        Some((line.map(Frame::data), receiver))
    });
    let body = StreamBody::new(frames).boxed_unsync();
    Ok(answer::streamed("application/x-ndjson", body))
}

async fn produce(
    inbox: Inbox,
    filter: Filter,
    lines: mpsc::Sender<io::Result<Bytes>>,
    _place: OwnedSemaphorePermit,
) {
    let mut cursor = None;
    loop {
        match export_page(&inbox, &filter, cursor, &lines).await {
            Ok(Some(next)) => cursor = Some(next),
            Ok(None) => return,
            Err(error) => {
                // The reader sees a body that was cut short, not a complete one.
                let _reader_may_be_gone = lines.try_send(Err(error));
                return;
            }
        }
    }
}

/// Sends one page; where the next one begins.
async fn export_page(
    inbox: &Inbox,
    filter: &Filter,
    cursor: Option<EntryId>,
    lines: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<Option<EntryId>> {
    let failed = |error: crate::webhook::inbox::Unreadable| io::Error::other(error.to_string());
    let page = inbox.list(filter.clone(), cursor, EXPORT_PAGE).await;
    let page = page.map_err(failed)?;
    for entry in page.entries {
        // Gone in the meantime: then it is not there to be exported.
        let Some(found) = inbox.show(entry.id).await.map_err(failed)? else {
            continue;
        };
        let line = format!("{}\n", shown::exported(&found));
        let send = lines.send_timeout(Ok(line.into()), EXPORT_STALL_MAX);
        send.await.map_err(|_| io::ErrorKind::TimedOut)?;
    }
    Ok(page.next)
}
