//! The routes of streams.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::HeaderMap,
    response::sse::{Event, Sse},
    routing::get,
};
use futures_util::Stream;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    app::App,
    auth::assertion::Caller,
    error::{ApiError, ApiResult},
    event::{EDGE_TOPIC, figures, outbox},
    kernel::{
        input::{Faults, Fields, query_value},
        role::Permission,
    },
    stream::{
        feed::Feed,
        model::{self, Frame, Start},
    },
};

/// A reader further behind than this gets the present state in place of its history.
const BACKLOG_EVENTS_MAX: i64 = 1_000;

pub(crate) fn private() -> Router<Arc<App>> {
    Router::new().route("/stream/kpis", get(kpis))
}

/// For the edge alone.
pub(crate) fn edge() -> Router<Arc<App>> {
    Router::new().route("/internal/edge-events", get(edge_events))
}

async fn kpis(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let query = query_value(query.as_deref());
    let mut faults = Faults::default();
    let org_id = Fields::of(&query)
        .id("orgId", &mut faults)
        .unwrap_or_default();
    faults.finish()?;
    caller.must(Permission::ViewFigures, &org_id)?;
    let permit = slot(&app)?;
    // Subscribed before anything is read, so that nothing falls between.
    let heads = app.hub.subscribe(&org_id);
    // The head before the figures: they may then be newer than the id says, never older.
    let head = outbox::head(&app.store, &org_id).await?;
    let (position, first) =
        match model::start(model::last_event_id(&headers), head, BACKLOG_EVENTS_MAX) {
            Start::After(seen) => (seen, None),
            Start::Present(head) => {
                let now = app.clock.now();
                let figures = figures::of_day(app.store.reader(), &org_id, now.day()).await?;
                (head, Some(model::snapshot(&org_id, head, figures, now)))
            }
        };
    let topic = org_id.clone();
    let render = Box::new(move |event| model::kpi_update(&org_id, &event));
    let feed = Feed::new(Arc::clone(&app), topic, heads, permit, render);
    Ok(Sse::new(feed.start(position, first).into_stream()))
}

/// Begins with `ready` (the position a new reader is at) or, where history is missing, with `reset`
/// (the reader must drop what it believed).
async fn edge_events(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let permit = slot(&app)?;
    let heads = app.hub.subscribe(EDGE_TOPIC);
    let head = outbox::head(&app.store, EDGE_TOPIC).await?;
    let seen = model::last_event_id(&headers);
    let kept = match seen {
        Some(seen) => outbox::keeps_all_after(&app.store, EDGE_TOPIC, seen, head).await?,
        None => true,
    };
    let backlog_max = if kept { BACKLOG_EVENTS_MAX } else { 0 };
    let (position, first) = match model::start(seen, head, backlog_max) {
        Start::After(seen) => (seen, None),
        Start::Present(head) => {
            let event = if seen.is_some() { "reset" } else { "ready" };
            let frame = Frame {
                id: head,
                event: event.to_owned(),
                data: json!({}),
            };
            (head, Some(frame))
        }
    };
    let render = Box::new(model::edge_event);
    let feed = Feed::new(
        Arc::clone(&app),
        EDGE_TOPIC.to_owned(),
        heads,
        permit,
        render,
    );
    Ok(Sse::new(feed.start(position, first).into_stream()))
}

fn slot(app: &App) -> ApiResult<OwnedSemaphorePermit> {
    Arc::clone(&app.stream_slots)
        .try_acquire_owned()
        .map_err(|_| ApiError::Unavailable {
            detail: "too many streams are open; try again",
        })
}
