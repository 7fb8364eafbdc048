//! Drives the lanes: one task per destination, which claims, lets deliver, and settles. Decides
//! nothing that [`super::lane`] or [`super::verdict`] could decide.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

use super::lane::{self, Lane, Turn};
use super::{Answer, Answered, Backlog, Deliver, Policy, verdict};
use crate::kernel::clock::{Clock, UnixMs};
use crate::kernel::id::Random;
use crate::telemetry::metrics::Metrics;
use crate::webhook::inbox::{Attempt, Claimed, DeadReason, EntryId, Outcome, Settlement};

/// Longest sleep: the wall clock, by which events are due, may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// Pause after an inbox that could not settle.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// Everything that the lanes share. Cheap to clone.
#[derive(Debug)]
pub struct Dispatch<B, D> {
    pub backlog: Arc<B>,
    pub deliver: Arc<D>,
    pub clock: Clock,
    pub random: Arc<Random>,
    pub metrics: Arc<Metrics>,
    /// Sent by a reload. A destination that is no longer named keeps its lane: events may be left.
    pub settings: watch::Receiver<Settings>,
    /// Sent once, when the process drains.
    pub stop: watch::Receiver<Stop>,
}

/// What a reload may change.
#[derive(Clone, Debug)]
pub struct Settings {
    pub policy: Arc<Policy>,
    /// Every destination that an endpoint names or that the inbox still has events for.
    pub destinations: BTreeSet<Arc<str>>,
}

/// Whether the lanes go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    Running,
    /// Nothing is claimed any more; what is in flight then is given back to the inbox.
    DrainUntil(Instant),
}

impl<B, D> Clone for Dispatch<B, D> {
    fn clone(&self) -> Self {
        Self {
            backlog: self.backlog.clone(),
            deliver: self.deliver.clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            metrics: self.metrics.clone(),
            settings: self.settings.clone(),
            stop: self.stop.clone(),
        }
    }
}

/// Delivers until [`Stop`] says otherwise; returns when every claim is settled or given back.
pub async fn run<B: Backlog, D: Deliver>(mut dispatch: Dispatch<B, D>) {
    let mut lanes = JoinSet::new();
    let mut known = BTreeSet::new();
    let mut stop = dispatch.stop.clone();
    loop {
        let destinations = dispatch.settings.borrow_and_update().destinations.clone();
        for destination in destinations {
            if known.insert(destination.clone()) {
                lanes.spawn(Running::new(dispatch.clone(), destination).run());
            }
        }
        tokio::select! {
            biased;
            // A sender that is gone has nothing more to change.
            changed = dispatch.settings.changed() => if changed.is_err() { break },
            _ = stop.wait_for(|stop| *stop != Stop::Running) => break,
            // A lane ends by itself only when it breaks; whoever runs this has to know.
            Some(ended) = lanes.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a lane of the dispatcher broke off");
                }
                break;
            }
        }
    }
    while let Some(ended) = lanes.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a lane of the dispatcher broke off; its claims wait for a restart");
        }
    }
}

/// One destination's task.
struct Running<B, D> {
    shared: Dispatch<B, D>,
    destination: Arc<str>,
    lane: Lane,
    attempts: JoinSet<Answer>,
    /// What each task attempts; outlives a task that panics.
    claims: HashMap<Id, (Claimed, UnixMs)>,
    /// Judged and not yet settled. Nothing is claimed while the inbox does not take them.
    ended: Vec<(EntryId, Settlement)>,
    settle_again_at: Option<Instant>,
    /// Counts up when the inbox has something new.
    changes: watch::Receiver<u64>,
}

/// What wakes a lane beside the end of an attempt.
struct Wake {
    at: Option<Instant>,
    /// Everything that is due was claimed, so a change in the inbox matters.
    on_change: bool,
}

impl<B: Backlog, D: Deliver> Running<B, D> {
    fn new(shared: Dispatch<B, D>, destination: Arc<str>) -> Self {
        Self {
            lane: Lane::new(shared.clock.instant()),
            changes: shared.backlog.subscribe(),
            shared,
            destination,
            attempts: JoinSet::new(),
            claims: HashMap::new(),
            ended: Vec::new(),
            settle_again_at: None,
        }
    }

    async fn run(mut self) {
        loop {
            let stop = *self.shared.stop.borrow_and_update();
            if let Stop::DrainUntil(until) = stop {
                return self.drain(until).await;
            }
            let policy = self.shared.settings.borrow().policy.clone();
            self.settle().await;
            let wake = self.fill(&policy).await;
            let sleep = self.sleep(&wake);
            tokio::select! {
                // One order, so that a simulation goes the same way each time.
                biased;
                changed = self.shared.stop.changed() => if changed.is_err() {
                    let now = self.shared.clock.instant();
                    return self.drain(now).await;
                },
                Some(joined) = self.attempts.join_next_with_id() => self.collect(joined, &policy),
                Ok(()) = self.changes.changed(), if wake.on_change => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Claims what may start, and starts it.
    async fn fill(&mut self, policy: &Arc<Policy>) -> Wake {
        if !self.ended.is_empty() {
            return Wake {
                at: self.settle_again_at,
                on_change: false,
            };
        }
        loop {
            let now = self.shared.clock.instant();
            let max = match self.lane.turn(policy, now) {
                Turn::Wait { until } => {
                    return Wake {
                        at: until,
                        on_change: false,
                    };
                }
                Turn::Claim(max) => max,
            };
            let unix = self.shared.clock.unix();
            // What changes after this may not be among what is claimed.
            self.changes.mark_unchanged();
            let claimed = self
                .shared
                .backlog
                .claim(&self.destination, max, unix)
                .await;
            let count = claimed.len();
            debug_assert!(count <= max);
            self.lane.started(count, policy, now);
            claimed
                .into_iter()
                .for_each(|claimed| self.start(claimed, policy));
            self.show();
            if count < max {
                let due = self.shared.backlog.next_due(&self.destination).await;
                return Wake {
                    at: due.map(|due| now + span(unix, due)),
                    on_change: true,
                };
            }
        }
    }

    fn start(&mut self, claimed: Claimed, policy: &Policy) {
        let within = Duration::from_millis(policy.attempt_timeout_ms);
        let deliver = self.shared.deliver.clone();
        let started_at = self.shared.clock.unix();
        let ours = claimed.clone();
        let task = self
            .attempts
            .spawn(async move { deliver.deliver(&ours, within).await });
        self.claims.insert(task.id(), (claimed, started_at));
    }

    /// Takes in an attempt that ended, and all that ended meanwhile.
    fn collect(&mut self, joined: Result<(Id, Answer), JoinError>, policy: &Policy) {
        let mut next = Some(joined);
        while let Some(joined) = next {
            self.end(joined, policy);
            next = self.attempts.try_join_next_with_id();
        }
        self.show();
    }

    fn end(&mut self, joined: Result<(Id, Answer), JoinError>, policy: &Policy) {
        let id = joined.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some((claimed, started_at)) = self.claims.remove(&id) else {
            return;
        };
        let now = self.shared.clock.instant();
        let answer = match joined {
            Ok((_, answer)) => answer,
            Err(error) if error.is_cancelled() => {
                self.lane.abandoned();
                self.ended.push((claimed.id, Settlement::Unclaim));
                return;
            }
            Err(error) => {
                tracing::error!(%error, "a delivery broke off");
                broke_off(started_at, self.shared.clock.unix())
            }
        };
        self.lane.ended(lane::sign(&answer), policy, now);
        let settlement = match answer {
            Answer::Away { .. } => Settlement::Unclaim,
            Answer::Answered(answered) => {
                verdict::judge(&claimed, answered, policy, self.shared.random.fraction())
            }
        };
        self.tell(&claimed, &settlement);
        self.ended.push((claimed.id, settlement));
    }

    async fn settle(&mut self) {
        let now = self.shared.clock.instant();
        if self.ended.is_empty() || self.settle_again_at.is_some_and(|at| at > now) {
            return;
        }
        let unix = self.shared.clock.unix();
        match self.shared.backlog.settle(self.ended.clone(), unix).await {
            Ok(()) => {
                self.ended.clear();
                self.settle_again_at = None;
            }
            Err(error) => {
                tracing::error!(%error, entries = self.ended.len(), "the inbox settles nothing");
                self.settle_again_at = Some(now + TROUBLE_PAUSE);
            }
        }
    }

    /// Lets what is in flight end, then gives back the rest.
    async fn drain(mut self, until: Instant) {
        self.lane.stop();
        let policy = self.shared.settings.borrow().policy.clone();
        let left = until.saturating_duration_since(self.shared.clock.instant());
        let finish = async {
            while let Some(joined) = self.attempts.join_next_with_id().await {
                self.collect(joined, &policy);
                self.settle().await;
            }
        };
        if tokio::time::timeout(left, finish).await.is_err() {
            self.attempts.abort_all();
            while let Some(joined) = self.attempts.join_next_with_id().await {
                self.end(joined, &policy);
            }
        }
        self.settle_again_at = None;
        self.settle().await;
        self.show();
    }

    fn sleep(&self, wake: &Wake) -> Duration {
        let now = self.shared.clock.instant();
        let at = wake.at.map(|at| at.saturating_duration_since(now));
        at.map_or(SLEEP_MAX, |span| span.min(SLEEP_MAX))
    }

    fn show(&self) {
        let in_flight = i64::try_from(self.attempts.len()).unwrap_or(i64::MAX);
        let gauge = &self.shared.metrics.deliveries_in_flight;
        gauge.with_label_values(&[&self.destination]).set(in_flight);
    }

    fn tell(&self, claimed: &Claimed, settlement: &Settlement) {
        let metrics = &self.shared.metrics;
        let endpoint: &str = &claimed.event.endpoint;
        let (outcome, attempt) = match settlement {
            Settlement::Delivered(attempt) => ("delivered", Some(attempt)),
            Settlement::Retry { attempt, .. } => ("failed", Some(attempt)),
            Settlement::Dead { attempt, reason } => {
                let reason = label(*reason);
                metrics
                    .dead_letters
                    .with_label_values(&[endpoint, reason])
                    .inc();
                tracing::warn!(
                    entry.id = %claimed.id, event.id = %claimed.event.event_id, endpoint.name = endpoint,
                    reason, outcome = ?attempt.outcome, "a webhook is a dead letter"
                );
                ("dead", Some(attempt))
            }
            Settlement::Unclaim => ("away", None),
        };
        metrics
            .deliveries
            .with_label_values(&[endpoint, outcome])
            .inc();
        if let Some(attempt) = attempt {
            let seconds = f64::from(attempt.took_ms) / 1_000.0;
            metrics
                .delivery_seconds
                .with_label_values(&[endpoint])
                .observe(seconds);
        }
    }
}

/// The metric's word for it.
fn label(reason: DeadReason) -> &'static str {
    match reason {
        DeadReason::Refused => "refused",
        DeadReason::AttemptsExhausted => "attempts_exhausted",
        DeadReason::TooOld => "too_old",
    }
}

fn span(from: UnixMs, to: UnixMs) -> Duration {
    Duration::from_millis(u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0))
}

/// A mistake of ours in mid-attempt: the API may have seen it.
fn broke_off(at: UnixMs, now: UnixMs) -> Answer {
    let took_ms = u32::try_from(span(at, now).as_millis()).unwrap_or(u32::MAX);
    let outcome = Outcome::NoAnswer("the edge broke off the attempt".into());
    Answer::Answered(Answered {
        attempt: Attempt {
            at,
            took_ms,
            outcome,
        },
        retry_after: None,
    })
}
