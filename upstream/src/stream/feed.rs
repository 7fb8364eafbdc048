//! One open stream: a position in a topic and the frames that are ready to go. It ends when the
//! process stops or the database fails; the client comes back with its `Last-Event-ID`.
//!
//! Order of steps: mark the head as seen → read the outbox → only if that was empty, wait for the
//! next mark. Nothing that commits in between is missed.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use axum::response::sse;
use futures_util::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::{
    app::App,
    event::outbox::{self, Event},
    stream::model::Frame,
};

const EVENTS_PER_READ: i64 = 100;

pub(crate) struct Feed {
    app: Arc<App>,
    topic: String,
    position: i64,
    ready: VecDeque<Frame>,
    render: Box<dyn Fn(Event) -> Frame + Send>,
    heads: watch::Receiver<i64>,
    stop: watch::Receiver<bool>,
    /// Gives the slot back when the stream ends, however it ends.
    _permit: OwnedSemaphorePermit,
}

impl Feed {
    /// `heads` must have been subscribed before `position` was read.
    pub(crate) fn new(
        app: Arc<App>,
        topic: String,
        heads: watch::Receiver<i64>,
        permit: OwnedSemaphorePermit,
        render: Box<dyn Fn(Event) -> Frame + Send>,
    ) -> Self {
        let stop = app.stop.subscribe();
        let ready = VecDeque::new();
        Self {
            app,
            topic,
            position: 0,
            ready,
            render,
            heads,
            stop,
            _permit: permit,
        }
    }

    /// Starts after `position`, with `first` ahead of everything.
    pub(crate) fn start(mut self, position: i64, first: Option<Frame>) -> Self {
        self.position = position;
        self.ready.extend(first);
        self
    }

    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<sse::Event, Infallible>> + Send {
        stream::unfold(self, |mut feed| async move {
            let frame = feed.next().await?;
            let event = sse::Event::default()
                .id(frame.id.to_string())
                .event(frame.event)
                .data(frame.data.to_string());
            Some((Ok(event), feed))
        })
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if *self.stop.borrow() {
                return None;
            }
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            self.heads.borrow_and_update();
            if self.read().await? > 0 {
                continue;
            }
            tokio::select! {
                changed = self.heads.changed() => changed.ok()?,
                stopped = self.stop.changed() => stopped.ok()?,
            }
        }
    }

    /// How many frames became ready; `None` ends the stream.
    async fn read(&mut self) -> Option<usize> {
        let read =
            outbox::after(&self.app.store, &self.topic, self.position, EVENTS_PER_READ).await;
        match read {
            Ok(events) => {
                for event in events {
                    self.position = event.id;
                    self.ready.push_back((self.render)(event));
                }
                Some(self.ready.len())
            }
            Err(error) => {
                tracing::warn!(stream.topic = self.topic, error.cause = %error, "stream ended");
                None
            }
        }
    }
}
