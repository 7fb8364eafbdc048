//! The limiter: GCRA by the `governor` crate over a bounded table. Decides yes or no for one key; in
//! this process only, so N nodes allow N times the quota.
//!
//! Never fails and never waits. When a class has `keys_max` keys, newcomers share 256 overflow keys
//! between them: known callers keep their own count, and a flood of new addresses is limited as if
//! it were a few.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::ops::Add;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use governor::RateLimiter;
use governor::clock::{Clock as GovernorClock, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;

use super::key::Key;
use super::{Decision, Quota};
use crate::kernel::clock::Clock;

/// A class that nobody used for this long and its window is forgotten, with all its keys.
const CLASS_IDLE: Duration = Duration::from_secs(24 * 3600);

/// All limits of this process, by class name and quota.
///
/// A quota that changes on reload begins a count of its own, and the other classes keep theirs. The
/// old count stays until it is idle, so that requests of both configurations cannot reset each other.
#[derive(Debug)]
pub struct Limiter {
    clock: Clock,
    keys_max: usize,
    classes: ArcSwap<Vec<Arc<Class>>>,
    /// Held while `classes` is changed.
    changing: Mutex<()>,
}

impl Limiter {
    /// Memory: about 64 bytes for each key, at most `keys_max` keys a class.
    #[must_use]
    pub fn new(clock: Clock, keys_max: usize) -> Self {
        let classes = ArcSwap::from_pointee(Vec::new());
        Self {
            clock,
            keys_max,
            classes,
            changing: Mutex::new(()),
        }
    }

    /// Counts one request and says whether it may pass.
    #[must_use]
    pub fn take(&self, class: &Arc<str>, quota: Quota, key: &Key) -> Decision {
        let class = self.class(class, quota);
        let key = class.table.admit(key);
        let outcome = class
            .take
            .check_key(&key)
            .map(|state| state.remaining_burst_capacity());
        class
            .decide(outcome.map_err(|not_until| not_until.wait_time_from(class.take.clock().now())))
    }

    /// Says whether [`Self::take`] would let a request pass, and counts nothing. For limits on what
    /// goes wrong: look first, take only on failure.
    #[must_use]
    pub fn look(&self, class: &Arc<str>, quota: Quota, key: &Key) -> Decision {
        let class = self.class(class, quota);
        let key = class.table.place(key);
        let outcome = class.look.check_key(&key).map(|state| {
            // What was not taken is still there.
            state.remaining_burst_capacity().saturating_add(1)
        });
        class
            .decide(outcome.map_err(|not_until| not_until.wait_time_from(class.look.clock().now())))
    }

    /// Forgets keys whose quota is whole again, and classes that nobody uses. Call it now and then,
    /// e.g. once a minute.
    pub fn sweep(&self) {
        let now = self.clock.instant();
        for class in self.classes.load().iter() {
            class.take.retain_recent();
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let classes = self.classes.load();
        let used = |class: &&Arc<Class>| !class.is_idle(now);
        let kept: Vec<_> = classes.iter().filter(used).cloned().collect();
        if kept.len() < classes.len() {
            self.classes.store(Arc::new(kept));
        }
    }

    /// Keys held at present, for the metric.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.classes
            .load()
            .iter()
            .map(|class| class.table.len())
            .sum()
    }

    /// There are few classes, so a walk is faster than a map and takes no lock.
    fn class(&self, name: &Arc<str>, quota: Quota) -> Arc<Class> {
        if let Some(class) = find(&self.classes.load(), name, quota) {
            return class;
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let classes = self.classes.load_full();
        if let Some(class) = find(&classes, name, quota) {
            return class;
        }
        let class = Arc::new(Class::new(name, quota, self.clock.clone(), self.keys_max));
        let mut more = classes.as_ref().clone();
        more.push(class.clone());
        self.classes.store(Arc::new(more));
        class
    }
}

fn find(classes: &[Arc<Class>], name: &Arc<str>, quota: Quota) -> Option<Arc<Class>> {
    classes
        .iter()
        .find(|class| class.quota == quota && class.name == *name)
        .cloned()
}

type Governor<S> = RateLimiter<Key, S, Time, StateInformationMiddleware>;

/// One quota and everybody who is counted under it.
#[derive(Debug)]
struct Class {
    name: Arc<str>,
    quota: Quota,
    table: Arc<Table>,
    take: Governor<Counted>,
    /// The same arithmetic over the same table, but what it computes is not written back.
    look: Governor<Uncounted>,
}

impl Class {
    fn new(name: &Arc<str>, quota: Quota, clock: Clock, keys_max: usize) -> Self {
        let rate = rate(quota);
        // Each limiter counts from the moment it is made; the few nanoseconds between do not matter.
        let time = Time {
            started: clock.instant(),
            clock,
        };
        let table = Arc::new(Table::new(keys_max, time.clone()));
        Self {
            name: name.clone(),
            quota,
            take: RateLimiter::new(rate, Counted(table.clone()), time.clone()),
            look: RateLimiter::new(rate, Uncounted(table.clone()), time),
            table,
        }
    }

    fn decide(&self, outcome: Result<u32, Duration>) -> Decision {
        let (remaining, wait) = match outcome {
            Ok(remaining) => (remaining.min(self.quota.requests.get()), None),
            Err(wait) => (0, Some(wait)),
        };
        let missing = self.quota.requests.get() - remaining;
        let each = self.each();
        // A refused caller misses the whole quota and a part of the next request.
        let until_whole = each.saturating_mul(match wait {
            None => missing,
            Some(_) => missing.saturating_sub(1),
        });
        Decision {
            policy: self.name.clone(),
            quota: self.quota,
            remaining,
            reset_s: seconds_up(until_whole.saturating_add(wait.unwrap_or_default())),
            retry_after_s: wait.map(|wait| seconds_up(wait).max(1)),
        }
    }

    fn is_idle(&self, now: Instant) -> bool {
        let window = Duration::from_secs(u64::from(self.quota.window_s.get()));
        self.table.unused(now) > CLASS_IDLE + window
    }

    /// The time in which one request is earned.
    fn each(&self) -> Duration {
        rate(self.quota).replenish_interval()
    }
}

fn rate(quota: Quota) -> governor::Quota {
    let window = Duration::from_secs(u64::from(quota.window_s.get()));
    // A period is at least a nanosecond for any quota that a process could serve.
    governor::Quota::with_period(window / quota.requests.get())
        .unwrap_or_else(|| governor::Quota::per_second(NonZeroU32::MAX))
        .allow_burst(quota.requests)
}

fn seconds_up(span: Duration) -> u32 {
    let up = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    u32::try_from(up).unwrap_or(u32::MAX)
}

/// The arrival times of one class's keys.
#[derive(Debug)]
struct Table {
    times: DashMap<Key, Nanos>,
    /// Length of `times`; asking the map would lock all of it.
    len: AtomicUsize,
    keys_max: usize,
    spread: RandomState,
    time: Time,
    /// Milliseconds after `time.started` at which somebody last asked.
    last_used_ms: AtomicUsize,
}

impl Table {
    fn new(keys_max: usize, time: Time) -> Self {
        Self {
            times: DashMap::new(),
            len: AtomicUsize::new(0),
            keys_max,
            spread: RandomState::new(),
            time,
            last_used_ms: AtomicUsize::new(0),
        }
    }

    /// The key under which `key` is counted.
    fn admit(&self, key: &Key) -> Key {
        let used = self
            .time
            .now()
            .0
            .duration_since(self.time.started)
            .as_millis();
        self.last_used_ms.store(
            usize::try_from(used).unwrap_or(usize::MAX),
            Ordering::Relaxed,
        );
        self.place(key)
    }

    fn place(&self, key: &Key) -> Key {
        if self.len.load(Ordering::Relaxed) < self.keys_max || self.times.contains_key(key) {
            return *key;
        }
        let [slot, ..] = self.spread.hash_one(key).to_be_bytes();
        Key::Overflow(slot)
    }

    fn unused(&self, now: Instant) -> Duration {
        let used = self.last_used_ms.load(Ordering::Relaxed);
        let used = Duration::from_millis(u64::try_from(used).unwrap_or(u64::MAX));
        now.saturating_duration_since(self.time.started)
            .saturating_sub(used)
    }

    fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }
}

/// The table as a limiter that counts sees it.
#[derive(Debug)]
struct Counted(Arc<Table>);

impl StateStore for Counted {
    type Key = Key;

    fn measure_and_replace<T, F, E>(&self, key: &Key, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        match self.0.times.entry(*key) {
            Entry::Occupied(mut entry) => {
                let (outcome, next) = decide(Some(*entry.get()))?;
                entry.insert(next);
                Ok(outcome)
            }
            Entry::Vacant(entry) => {
                let (outcome, next) = decide(None)?;
                entry.insert(next);
                self.0.len.fetch_add(1, Ordering::Relaxed);
                Ok(outcome)
            }
        }
    }
}

impl ShrinkableKeyedStateStore<Key> for Counted {
    fn retain_recent(&self, drop_below: Nanos) {
        let mut dropped = 0;
        self.0.times.retain(|_, time| {
            let keep = *time > drop_below;
            dropped += usize::from(!keep);
            keep
        });
        self.0.len.fetch_sub(dropped, Ordering::Relaxed);
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.len() == 0
    }
}

/// The table as a limiter that only looks sees it.
#[derive(Debug)]
struct Uncounted(Arc<Table>);

impl StateStore for Uncounted {
    type Key = Key;

    fn measure_and_replace<T, F, E>(&self, key: &Key, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let time = self.0.times.get(key).map(|time| *time);
        decide(time).map(|(outcome, _)| outcome)
    }
}

/// Our clock as `governor` sees it.
#[derive(Clone, Debug)]
struct Time {
    clock: Clock,
    started: Instant,
}

impl GovernorClock for Time {
    type Instant = Moment;

    fn now(&self) -> Moment {
        Moment(self.clock.instant())
    }
}

/// An `Instant`; `governor` has its own implementation for the standard one, but this one cannot
/// overflow.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Moment(Instant);

impl Add<Nanos> for Moment {
    type Output = Self;

    fn add(self, span: Nanos) -> Self {
        Self(self.0.checked_add(span.into()).unwrap_or(self.0))
    }
}

impl Reference for Moment {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_duration_since(earlier.0).into()
    }

    fn saturating_sub(&self, span: Nanos) -> Self {
        Self(self.0.checked_sub(span.into()).unwrap_or(self.0))
    }
}

#[cfg(test)]
mod tests;
