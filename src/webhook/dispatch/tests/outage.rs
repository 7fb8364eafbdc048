//! The API is away for ten minutes while events keep coming: what is promised of the time after, in
//! virtual time over the inbox's own state machine. At a twentieth of the promised 500 events a second,
//! because a debug build needs minutes for 300,000 events; `OUTAGE_EVENTS_PER_S=500` is the full size.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::super::{Answer, Answered, Deliver, Dispatch, Policy, Settings, Stop, run};
use super::{NOW, claimed};
use crate::kernel::clock::Clock;
use crate::kernel::id::Random;
use crate::telemetry::metrics::Metrics;
use crate::webhook::inbox::{self, Attempt, Claimed, Inbox, Outcome};

const EVENTS_PER_S: u64 = 25;
const AWAY_S: u64 = 600;
/// Events keep coming while the backlog is worked off.
const GOES_ON_S: u64 = 60;
/// Attempts that may start per second, for each event that comes.
const CATCH_UP: u64 = 4;
const KEYS: u64 = 20;
const LATENCY: Duration = Duration::from_millis(20);
/// As `defaults.upstream.breaker.open_s`.
const OPEN_FOR: Duration = Duration::from_secs(10);

/// An API that is away until a moment, behind a pool whose breaker is open meanwhile.
struct Api {
    clock: Clock,
    back_at_ms: i64,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    open_until: Option<i64>,
    failed: u64,
    aways: u64,
    in_flight: usize,
    in_flight_most: usize,
    /// Deliveries by second since the API is back.
    by_second: HashMap<i64, u64>,
    /// Last event of each key.
    last: HashMap<String, u64>,
    delivered: u64,
    overtaken: u64,
    retried: u64,
}

impl Deliver for Api {
    async fn deliver(&self, claimed: &Claimed, _: Duration) -> Answer {
        let at = self.clock.unix();
        let is_away = at.0 < self.back_at_ms;
        {
            let mut seen = self.seen.lock().unwrap();
            if let Some(until) = seen.open_until.filter(|until| *until > at.0) {
                seen.aways += 1;
                return Answer::Away {
                    for_: Duration::from_millis(u64::try_from(until - at.0).unwrap()),
                };
            }
            seen.in_flight += 1;
            seen.in_flight_most = seen.in_flight_most.max(seen.in_flight);
        }
        tokio::time::sleep(LATENCY).await;
        let mut seen = self.seen.lock().unwrap();
        seen.in_flight -= 1;
        let outcome = if is_away {
            seen.failed += 1;
            seen.open_until = Some(at.0 + i64::try_from(OPEN_FOR.as_millis()).unwrap());
            Outcome::NoAnswer("connection refused".into())
        } else {
            seen.take(claimed, (at.0 - self.back_at_ms).div_euclid(1_000));
            Outcome::Status(204)
        };
        let attempt = Attempt {
            at,
            took_ms: 20,
            outcome,
        };
        Answer::Answered(Answered {
            attempt,
            retry_after: None,
        })
    }
}

impl Seen {
    fn take(&mut self, claimed: &Claimed, second: i64) {
        self.delivered += 1;
        self.retried += u64::from(claimed.attempts > 0);
        *self.by_second.entry(second).or_default() += 1;
        if let Some(key) = &claimed.event.order_key {
            let before = self.last.insert(key.to_string(), claimed.id.0);
            self.overtaken += u64::from(before.is_some_and(|before| before > claimed.id.0));
        }
    }

    fn check(&self, events: u64, rate_max: u64, policy: &Policy) {
        let peak = self.by_second.values().max().copied().unwrap();
        println!(
            "{} attempts while away, {} refused leases, peak {peak}/s, {} in flight",
            self.failed, self.aways, self.in_flight_most
        );
        assert_eq!((self.delivered, self.overtaken), (events, 0));
        // The bucket and the second's edges let a little more through.
        let most = rate_max + rate_max / 10 + 1;
        assert!((rate_max / 2..=most).contains(&peak), "{peak}");
        assert!(self.in_flight_most <= policy.concurrency_max as usize);
        // One probe each time that the breaker allows one; an event pays with one attempt at most.
        let probes = AWAY_S / OPEN_FOR.as_secs();
        assert!(
            (probes / 2..=probes + 1).contains(&self.failed),
            "{}",
            self.failed
        );
        assert!(self.retried <= self.failed);
    }
}

#[test]
fn after_ten_minutes_away_everything_arrives_in_order_and_not_at_once() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(ten_minutes());
}

async fn ten_minutes() {
    let asked = std::env::var("OUTAGE_EVENTS_PER_S").ok();
    let events_per_s: u64 = asked
        .and_then(|text| text.parse().ok())
        .unwrap_or(EVENTS_PER_S);
    let rate_max = events_per_s * CATCH_UP;
    let clock = Clock::simulated(NOW);
    let inbox = Inbox::in_memory(inbox::Policy::default());
    let api = Arc::new(Api {
        clock: clock.clone(),
        back_at_ms: NOW.0 + i64::try_from(AWAY_S * 1_000).unwrap(),
        seen: Mutex::default(),
    });
    let policy = Arc::new(Policy {
        rate_max: u32::try_from(rate_max).unwrap(),
        ..Policy::default()
    });
    let (_settings, settings) = watch::channel(Settings {
        policy: policy.clone(),
        destinations: ["api".into()].into(),
    });
    let (stop, stop_seen) = watch::channel(Stop::Running);
    let task = tokio::spawn(run(Dispatch {
        backlog: Arc::new(inbox.clone()),
        deliver: api.clone(),
        clock: clock.clone(),
        random: Arc::new(Random::seeded(1)),
        metrics: Arc::new(Metrics::new().unwrap()),
        settings,
        stop: stop_seen,
    }));

    let events = events_per_s * (AWAY_S + GOES_ON_S);
    for number in 0..events {
        // Two of three have a key.
        let key = (number % 3 > 0).then(|| (number % KEYS).to_string());
        let mut event = claimed(number, key.as_deref()).event.as_ref().clone();
        event.received_at = clock.unix();
        // The provider has its 2xx as soon as this returns, whatever the API does.
        inbox.append(event, Vec::new()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_000 / events_per_s)).await;
    }
    let all = async {
        while api.seen.lock().unwrap().delivered < events {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let minutes = Duration::from_secs(1_200);
    tokio::time::timeout(minutes, all)
        .await
        .expect("all delivered");
    stop.send_replace(Stop::DrainUntil(clock.instant() + Duration::from_secs(1)));
    task.await.unwrap();

    let took = clock.unix().0 - NOW.0;
    println!("{events} events in {took} ms");
    api.seen.lock().unwrap().check(events, rate_max, &policy);
    let stats = inbox.stats().await.unwrap();
    let dead = stats
        .endpoints
        .iter()
        .filter(|e| e.standing == inbox::Standing::Dead);
    assert_eq!((dead.count(), stats.claimed), (0, 0));
}
