//! Brings what the inbox keeps to the API: when each event is tried, how many at a time, and what an
//! answer makes of it. Keeps nothing itself, and knows no pool or socket: who delivers is handed in.
//!
//! Invariant: an attempt is counted only where a request was sent; an event is claimed only if its
//! attempt starts at once; every claim is settled, or given back when the process stops.
//!
//! Order of steps, per destination: [`lane`] says how many → [`Backlog::claim`] → [`Deliver::deliver`]
//! with [`headers()`] → [`verdict::judge`] → [`Backlog::settle`].

pub mod backoff;
mod headers;
pub mod lane;
mod pace;
mod ramp;
pub mod retry_after;
mod run;
pub mod verdict;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use headers::headers;
pub use run::{Dispatch, Settings, Stop, run};

use crate::kernel::clock::UnixMs;
use crate::webhook::inbox::{Attempt, Claimed, EntryId, Inbox, Settlement, Unwritable};

/// How deliveries are made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Attempts in all, the first included; then the event is dead.
    pub attempts_max: u32,
    /// Longest time from the first failed attempt to the last one.
    pub age_max_s: u32,
    /// Longest time in which an event is tried at all, from its receipt or its redelivery.
    pub kept_max_s: u32,
    /// Longest wait after the first attempt; each further one is [`backoff::FACTOR`] times as long.
    pub backoff_base_ms: u64,
    /// Longest wait at all.
    pub backoff_cap_ms: u64,
    /// Attempts in flight to one destination.
    pub concurrency_max: u32,
    /// Attempts per second that start to one destination.
    pub rate_max: u32,
    /// Whole time for one attempt, the answer's body included.
    pub attempt_timeout_ms: u64,
    /// What differs by endpoint. Events of an endpoint that is gone keep their order, and claim nothing.
    pub endpoints: BTreeMap<Arc<str>, EndpointPolicy>,
}

/// How deliveries of one endpoint's events are made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EndpointPolicy {
    /// How long an event that fails may hold back those of its order key; `None` = until it is
    /// delivered or dead.
    pub order_timeout_s: Option<NonZeroU32>,
}

impl Policy {
    /// How long a failing event of `endpoint` may hold back its order key; `None` = to its end.
    #[must_use]
    pub fn order_timeout_s(&self, endpoint: &str) -> Option<NonZeroU32> {
        self.endpoints.get(endpoint)?.order_timeout_s
    }
}

/// What became of the request for one event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    Answered(Answered),
    /// Nothing was sent: breaker open, no healthy endpoint, no place. Ask again after about this time.
    Away {
        for_: Duration,
    },
}

/// An attempt that was made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answered {
    pub attempt: Attempt,
    /// What the API asked for, read by [`retry_after::read`].
    pub retry_after: Option<Duration>,
}

/// Whoever can send an event to its destination.
pub trait Deliver: Send + Sync + 'static {
    /// Makes one attempt and ends within `within`. Dropped in mid-flight it may or may not have had
    /// its effect.
    fn deliver(&self, claimed: &Claimed, within: Duration) -> impl Future<Output = Answer> + Send;
}

/// The verbs of the inbox that dispatch uses.
pub trait Backlog: Send + Sync + 'static {
    /// Up to `max` entries of `destination` that may be attempted now. Nobody else gets them until
    /// they are settled. None while they could not be settled.
    fn claim(
        &self,
        destination: &str,
        max: usize,
        now: UnixMs,
    ) -> impl Future<Output = Vec<Claimed>> + Send;

    /// Keeps what became of claims. On an error nothing is settled.
    fn settle(
        &self,
        settled: Vec<(EntryId, Settlement)>,
        now: UnixMs,
    ) -> impl Future<Output = Result<(), Unwritable>> + Send;

    /// When the first unclaimed entry is due; `None` = there is none.
    fn next_due(&self, destination: &str) -> impl Future<Output = Option<UnixMs>> + Send;

    /// Counts up whenever something may have become due earlier than [`Self::next_due`] said.
    fn subscribe(&self) -> watch::Receiver<u64>;
}

impl Backlog for Inbox {
    async fn claim(&self, destination: &str, max: usize, now: UnixMs) -> Vec<Claimed> {
        Self::claim(self, destination, max, now).await
    }

    async fn settle(
        &self,
        settled: Vec<(EntryId, Settlement)>,
        now: UnixMs,
    ) -> Result<(), Unwritable> {
        Self::settle(self, settled, now).await
    }

    async fn next_due(&self, destination: &str) -> Option<UnixMs> {
        Self::next_due(self, destination).await
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        Self::subscribe(self)
    }
}

#[cfg(test)]
impl Default for Policy {
    /// As `default.toml` has it; the configuration's tests hold the two together.
    fn default() -> Self {
        Self {
            attempts_max: 10,
            age_max_s: 86_400,
            kept_max_s: 259_200,
            backoff_base_ms: 10_000,
            backoff_cap_ms: 36_000_000,
            concurrency_max: 64,
            rate_max: 2_000,
            attempt_timeout_ms: 15_000,
            endpoints: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests;
