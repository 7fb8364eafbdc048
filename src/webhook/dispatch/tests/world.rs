//! What surrounds the dispatcher in the simulation: a provider's events, a disk that loses what it has
//! not synced, a pool with a breaker, and an API that fails. Everything is observed here, and checked
//! against the rules.

mod api;
mod disk;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub(super) use api::FlakyApi;
pub(super) use disk::{Disk, verdicts};

use super::super::Policy;
use crate::kernel::clock::{Clock, UnixMs};
use crate::webhook::inbox::{DeadReason, EntryId, Event, Settlement};

/// Between what the pool says and what the dispatcher makes of it, settling included.
/// A process that starts knows nothing of its destination and tries a few at a time, as after so many
/// answers.
const HEAD_START: u32 = 3;
const NOTICED_WITHIN_MS: i64 = 50;

/// How the world of one seed is.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    pub(super) events: u64,
    pub(super) keys: u64,
    /// Mean time between two events.
    pub(super) gap_ms: u64,
    /// Outages of the API: from and to, in milliseconds from the start.
    pub(super) outages: Vec<(i64, i64)>,
    /// In hundred: 5xx, 429 with `Retry-After`, answers lost after the effect, too slow.
    pub(super) failing: u32,
    pub(super) throttling: u32,
    pub(super) lost: u32,
    pub(super) slow: u32,
    pub(super) latency_ms_max: u64,
    /// In hundred: commits of settlements that fail.
    pub(super) disk_failing: u32,
    /// Whether a process is killed at all; else nobody asks what was synced.
    pub(super) kills: bool,
    pub(super) policy: Policy,
}

/// What the API does with an event, whenever it comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    Fine,
    /// It will never take it: 422.
    Refused,
    /// It always fails on it: 500.
    Cursed,
}

/// What is known of one event, from all sides.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) fate: Fate,
    pub(super) key: Option<u64>,
    /// Requests that the API saw, and how often one had its effect if nobody deduplicated.
    pub(super) requests: u32,
    /// Requests whose settlement was lost with a process that was killed.
    pub(super) forgotten: u32,
    pub(super) effects: u32,
    pub(super) told: Told,
    /// What the last `Retry-After` asked for.
    not_before: i64,
    in_flight: u32,
}

/// What the dispatcher has told the inbox of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    pub(super) attempts: u32,
    first_failed_at: Option<i64>,
    pub(super) is_delivered: bool,
    pub(super) dead: Option<DeadReason>,
    pub(super) has_yielded: bool,
}

impl Told {
    /// Whether those behind it may go.
    fn lets_by(self) -> bool {
        self.is_over() || self.has_yielded
    }

    pub(super) fn is_over(self) -> bool {
        self.is_delivered || self.dead.is_some()
    }
}

/// Everything that is observed. One lock: the simulation has one thread.
pub(super) struct World {
    pub(super) weather: Weather,
    pub(super) known: Vec<Known>,
    pub(super) ids: HashMap<EntryId, u64>,
    pub(super) started_at: UnixMs,
    pub(super) requests: u64,
    /// Leases that were refused since the last one that was not.
    aways_in_row: u32,
    /// Breaches of the rules, in words.
    pub(super) breaches: Vec<String>,
    /// Starts of requests in this life of the process.
    starts: Vec<i64>,
    in_flight: u32,
    life: u32,
    /// Answers since the destination was last away, and when that was.
    answers: u32,
    away_at: i64,
    breaker: SimBreaker,
    rng: StdRng,
}

#[derive(Default)]
struct SimBreaker {
    failed_in_row: u32,
    open_until: Option<i64>,
    is_probing: bool,
}

/// Clones share it.
#[derive(Clone)]
pub(super) struct Shared {
    world: Arc<Mutex<World>>,
    pub(super) clock: Clock,
}

impl Shared {
    pub(super) fn new(weather: Weather, clock: Clock, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let known = (0..weather.events)
            .map(|_| Known::draw(&weather, &mut rng))
            .collect();
        let world = World {
            weather,
            known,
            ids: HashMap::new(),
            started_at: clock.unix(),
            requests: 0,
            aways_in_row: 0,
            breaches: Vec::new(),
            starts: Vec::new(),
            in_flight: 0,
            life: 0,
            answers: HEAD_START,
            away_at: 0,
            breaker: SimBreaker::default(),
            rng,
        };
        Self {
            world: Arc::new(Mutex::new(world)),
            clock,
        }
    }

    pub(super) fn look(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn now_ms(&self) -> i64 {
        self.clock.unix().0
    }

    /// A new process: what it knew of the destination is gone.
    pub(super) fn new_life(&self) {
        let now = self.now_ms();
        let mut world = self.look();
        world.life += 1;
        world.starts.clear();
        world.in_flight = 0;
        world.answers = HEAD_START;
        world.away_at = now - NOTICED_WITHIN_MS;
        world.breaker = SimBreaker::default();
        let forgets = world.weather.disk_failing > 0;
        for known in &mut world.known {
            known.in_flight = 0;
            if forgets {
                // The last settlement before a stop may have failed for good.
                known.not_before = 0;
            }
        }
    }

    pub(super) fn event(&self, number: u64) -> Event {
        let key = self.look().known[usize::try_from(number).unwrap()].key;
        Event {
            endpoint: "billing".into(),
            provider: "chefcloud".into(),
            destination: "api".into(),
            event_id: number.to_string().into(),
            received_at: self.clock.unix(),
            content_type: None,
            headers: Vec::new(),
            authenticated: "body".into(),
            traceparent: None,
            order_key: key.map(|key| key.to_string().into()),
            body: bytes::Bytes::new(),
        }
    }
}

impl Known {
    fn draw(weather: &Weather, rng: &mut StdRng) -> Self {
        Self {
            fate: match rng.random_range(0..100) {
                0..4 => Fate::Refused,
                4..7 => Fate::Cursed,
                _ => Fate::Fine,
            },
            key: rng
                .random_bool(0.7)
                .then(|| rng.random_range(0..weather.keys)),
            requests: 0,
            forgotten: 0,
            effects: 0,
            told: Told::default(),
            not_before: 0,
            in_flight: 0,
        }
    }
}

impl World {
    fn breach(&mut self, what: String) {
        if self.breaches.len() < 5 {
            self.breaches.push(what);
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn is_down(&self, now: i64) -> bool {
        let at = now - self.started_at.0;
        self.weather
            .outages
            .iter()
            .any(|(from, to)| (*from..*to).contains(&at))
    }

    /// An open breaker is not asked over and over.
    fn check_away(&mut self) {
        self.aways_in_row += 1;
        let most = self.weather.policy.concurrency_max + 2;
        if self.aways_in_row > most {
            self.breach(format!(
                "the pool refused {} times in a row",
                self.aways_in_row
            ));
        }
    }

    /// The rules, from where the API sees them, as a request starts.
    fn check_start(&mut self, number: usize, now: i64) {
        self.requests += 1;
        self.in_flight += 1;
        self.aways_in_row = 0;
        self.starts.push(now);
        let policy = self.weather.policy.clone();
        if self.in_flight > policy.concurrency_max {
            self.breach(format!("{} in flight", self.in_flight));
        }
        if now - self.away_at > NOTICED_WITHIN_MS && self.in_flight > self.answers + 1 {
            let (now_open, answered) = (self.in_flight, self.answers);
            self.breach(format!(
                "{now_open} in flight after {answered} answers since the outage"
            ));
        }
        let since = self.starts.partition_point(|at| *at <= now - 1_000);
        let rate = self.starts.len() - since;
        // What the bucket saved up comes on top: a tenth of a second's worth, one at least.
        let most = policy.rate_max + (policy.rate_max / 10).max(1) + 1;
        if rate > most as usize {
            self.breach(format!("{rate} requests within a second"));
        }
        let known = &mut self.known[number];
        known.requests += 1;
        known.in_flight += 1;
        let (key, twice) = (known.key, known.in_flight > 1);
        let too_soon = now < known.not_before;
        if too_soon {
            self.breach(format!("event {number} is tried before the API allows it"));
        }
        if twice {
            self.breach(format!("event {number} is in flight twice"));
        }
        if self.known[number].told.is_over() {
            self.breach(format!(
                "event {number} is tried after it was settled for good"
            ));
        }
        if key.is_some() {
            let earlier = self.known[..number].iter().enumerate();
            let mut waiting = earlier.filter(|(_, k)| k.key == key && !k.told.lets_by());
            if let Some((first, _)) = waiting.next() {
                self.breach(format!("event {number} overtakes {first} of its key"));
            }
        }
    }

    /// A retry comes within the age allowed; a key is given up when its time-out is over, or no
    /// attempt can be made in time, and not before.
    fn wrong_retry(&self, number: usize, settlement: &Settlement) -> Option<String> {
        let Settlement::Retry {
            attempt,
            due,
            yield_order,
        } = settlement
        else {
            return None;
        };
        let (known, policy) = (&self.known[number], &self.weather.policy);
        let since = known.told.first_failed_at.unwrap_or(attempt.at.0);
        if due.0 > since + i64::from(policy.age_max_s) * 1_000 {
            return Some(format!(
                "event {number}: {due:?} is later than its age allows"
            ));
        }
        let timeout_s = policy.order_timeout_s("billing");
        let (Some(timeout_s), Some(_)) = (timeout_s, known.key) else {
            return yield_order.then(|| format!("event {number} yields and need not"));
        };
        let now = attempt.at.0 + i64::from(attempt.took_ms);
        let until = since + i64::from(timeout_s.get()) * 1_000;
        let is_over = now >= until || known.not_before > until;
        let keeps_late = !yield_order && due.0 > until;
        (is_over != *yield_order || keeps_late).then(|| {
            format!("event {number}: {settlement:?}, and its key is to be given up at {until}")
        })
    }

    fn check_end(&mut self, number: usize, life: u32) {
        if self.life == life {
            self.in_flight -= 1;
            self.known[number].in_flight -= 1;
        }
    }
}
