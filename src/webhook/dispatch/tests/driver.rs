//! The loop itself, where the simulation would only notice that it is slow: what wakes it, and what it
//! makes of a delivery that breaks off.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::{Answer, Answered, Deliver, Dispatch, Policy, Settings, Stop, run};
use super::{NOW, claimed};
use crate::kernel::clock::Clock;
use crate::kernel::id::Random;
use crate::telemetry::metrics::Metrics;
use crate::webhook::inbox::{self, Attempt, Claimed, Inbox, Outcome};

/// Takes everything at once; panics on the first attempt of what is called `evt_1`.
struct Taker {
    clock: Clock,
    taken: Mutex<Vec<(i64, String)>>,
}

impl Deliver for Taker {
    async fn deliver(&self, claimed: &Claimed, _: Duration) -> Answer {
        let id = claimed.event.event_id.to_string();
        assert!(
            id != "evt_1" || claimed.attempts > 0,
            "a mistake of ours, simulated"
        );
        let at = self.clock.unix();
        self.taken.lock().unwrap().push((at.0 - NOW.0, id));
        let attempt = Attempt {
            at,
            took_ms: 0,
            outcome: Outcome::Status(204),
        };
        Answer::Answered(Answered {
            attempt,
            retry_after: None,
        })
    }
}

struct Running {
    inbox: Inbox,
    taker: Arc<Taker>,
    settings: watch::Sender<Settings>,
    stop: watch::Sender<Stop>,
    metrics: Arc<Metrics>,
    task: JoinHandle<()>,
}

fn settings(destinations: &[&str]) -> Settings {
    let destinations: BTreeSet<Arc<str>> = destinations.iter().map(|d| Arc::from(*d)).collect();
    Settings {
        policy: Arc::new(Policy::default()),
        destinations,
    }
}

fn start(destinations: &[&str]) -> Running {
    let clock = Clock::simulated(NOW);
    let inbox = Inbox::in_memory(inbox::Policy::default());
    let taker = Arc::new(Taker {
        clock: clock.clone(),
        taken: Mutex::default(),
    });
    let (settings, settings_seen) = watch::channel(settings(destinations));
    let (stop, stop_seen) = watch::channel(Stop::Running);
    let metrics = Arc::new(Metrics::new().unwrap());
    let task = tokio::spawn(run(Dispatch {
        backlog: Arc::new(inbox.clone()),
        deliver: taker.clone(),
        clock,
        random: Arc::new(Random::seeded(1)),
        metrics: metrics.clone(),
        settings: settings_seen,
        stop: stop_seen,
    }));
    Running {
        inbox,
        taker,
        settings,
        stop,
        metrics,
        task,
    }
}

impl Running {
    async fn append(&self, id: u64) {
        let event = claimed(id, None).event.as_ref().clone();
        self.inbox.append(event, Vec::new()).await.unwrap();
    }

    /// Waits until so many were taken; when and what, in that order.
    async fn taken(&self, count: usize) -> Vec<(i64, String)> {
        let wait = async {
            while self.taker.taken.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let minute = Duration::from_secs(60);
        tokio::time::timeout(minute, wait).await.expect("taken");
        self.taker.taken.lock().unwrap().clone()
    }

    async fn end(self) -> Arc<Metrics> {
        self.stop
            .send_replace(Stop::DrainUntil(self.taker.clock.instant()));
        self.task.await.unwrap();
        assert_eq!(self.inbox.stats().await.unwrap().claimed, 0);
        self.metrics
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_arrives_while_nothing_is_due_goes_at_once() {
    let running = start(&["api"]);
    tokio::time::sleep(Duration::from_secs(7)).await;
    running.append(2).await;
    let taken = running.taken(1).await;
    assert!((7_000..7_010).contains(&taken[0].0), "{taken:?}");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_panics_is_a_failed_attempt_and_its_lane_goes_on() {
    let running = start(&["api"]);
    running.append(1).await;
    running.append(2).await;
    let taken = running.taken(2).await;
    let ids: Vec<_> = taken.iter().map(|(_, id)| id.as_str()).collect();
    assert_eq!(
        ids,
        ["evt_2", "evt_1"],
        "the other one does not wait for the retry"
    );
    let metrics = running.end().await.text();
    for (outcome, count) in [("delivered", 2), ("failed", 1)] {
        let line = format!(
            "maitred_deliveries_total{{endpoint=\"billing\",outcome=\"{outcome}\"}} {count}"
        );
        assert!(metrics.contains(&line), "{metrics}");
    }
    assert!(
        metrics.contains("maitred_deliveries_in_flight{destination=\"api\"} 0"),
        "{metrics}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_a_reload_brings_gets_its_lane() {
    let running = start(&[]);
    running.append(2).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(running.taker.taken.lock().unwrap().len(), 0);
    running.settings.send_replace(settings(&["api"]));
    running.taken(1).await;
    running.end().await;
}
