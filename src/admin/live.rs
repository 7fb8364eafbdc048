//! Live figures as server-sent events. One look at the state serves all watchers, twice a second at
//! most, and only while somebody watches.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::answer::{self, Answer, Problem};
use super::{View, refusals, shown};
use crate::webhook::inbox::{Filter, Inbox, Standing, Unreadable};

/// Watchers at a time.
pub(super) const WATCHERS_MAX: usize = 16;
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A comment in silence, so that proxies and watchers see that the line is up.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// Entries and refusals told of.
const NEWEST: usize = 20;

/// What the watchers share. `serve` drives it with [`Watch::look`].
pub(super) struct Watch {
    latest: watch::Sender<Bytes>,
    /// Wakes the looker when the first watcher comes.
    wanted: Notify,
    places: Arc<Semaphore>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            latest: watch::Sender::new(Bytes::new()),
            wanted: Notify::new(),
            places: Arc::new(Semaphore::new(WATCHERS_MAX)),
        }
    }

    /// Looks and tells for ever.
    pub(super) async fn look(&self, view: &View) {
        loop {
            if self.latest.receiver_count() == 0 {
                self.wanted.notified().await;
            }
            let now = Bytes::from(snapshot(view).await.to_string());
            self.latest.send_if_modified(|latest| {
                let changed = *latest != now;
                *latest = now;
                changed
            });
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A stream of `change` events, the present state first.
    pub(super) fn stream(&self) -> Result<Answer, Problem> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            Problem::busy(format!(
                "{WATCHERS_MAX} clients watch already; close one of them"
            ))
        })?;
        let mut latest = self.latest.subscribe();
        if !latest.borrow().is_empty() {
            latest.mark_changed();
        }
        self.wanted.notify_one();
        let watcher = Watcher {
            latest,
            greeted: false,
            _place: place,
        };
        let frames = stream::unfold(watcher, |mut watcher| async move {
            let text = watcher.next().await?;
            Some((Ok(Frame::data(text)), watcher))
        });
        let body = StreamBody::new(frames).boxed_unsync();
        Ok(answer::streamed("text/event-stream", body))
    }
}

struct Watcher {
    latest: watch::Receiver<Bytes>,
    greeted: bool,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.greeted, true) {
            return Some(Bytes::from_static(b"retry: 3000\n\n"));
        }
        match tokio::time::timeout(HEARTBEAT_EVERY, self.latest.changed()).await {
            Ok(Ok(())) => {
                let mut event = b"event: change\ndata: ".to_vec();
                // JSON on one line has no line break of its own.
                event.extend_from_slice(&self.latest.borrow_and_update());
                event.extend_from_slice(b"\n\n");
                Some(event.into())
            }
            Ok(Err(_)) => None,
            Err(_) => Some(Bytes::from_static(b": still here\n\n")),
        }
    }
}

async fn snapshot(view: &View) -> Value {
    let inbox = match &(view.inbox)() {
        Some(inbox) => inbox_now(inbox).await.unwrap_or_else(|error| {
            let error = error.to_string();
            json!({ "error": error })
        }),
        None => Value::Null,
    };
    let newest = refusals::Asked::newest(NEWEST).pick((view.refusals)());
    json!({
        "inbox": inbox,
        "webhooks": (view.webhooks)(),
        "refusals": newest.iter().map(refusals::shown).collect::<Vec<_>>(),
    })
}

/// Without ages, which change although nothing happens.
async fn inbox_now(inbox: &Inbox) -> Result<Value, Unreadable> {
    let stats = inbox.stats().await?;
    let total = |standing| {
        let total = stats.total(standing);
        json!({ "entries": total.entries, "bytes": total.bytes })
    };
    let dead = Filter {
        standing: Some(Standing::Dead),
        ..Filter::default()
    };
    let newest = async |filter| {
        let page = inbox.list(filter, None, NEWEST).await?;
        let entries = page.entries.iter().map(shown::summary);
        Ok::<_, Unreadable>(entries.collect::<Vec<_>>())
    };
    Ok(json!({
        "pending": total(Standing::Pending),
        "dead": total(Standing::Dead),
        "delivered": total(Standing::Delivered),
        "recent": newest(Filter::default()).await?,
        "dead_letters": newest(dead).await?,
    }))
}
