//! The memory of one process: two tables of sharded maps, one by message and one by event id.
//!
//! Locks are taken table by table in that order, so two claims cannot wait for each other. Expired
//! entries go a few at a time with each claim, so no claim pays for all of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Policy, ReplayKey};
use crate::kernel::clock::UnixMs;

const SHARDS: usize = 16;
/// Below this many entries one shard holds them all, so that the limit is exact.
const SHARDED_FROM: usize = 4096;
/// Expired entries removed with one claim; more than one, so that a table shrinks under load.
const SWEEP_MAX: usize = 16;

/// What a message asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) message: ReplayKey,
    pub(super) event: Option<ReplayKey>,
    pub(super) expires_at: Option<UnixMs>,
}

/// What the store knows of it.
#[derive(Debug)]
pub(super) enum Standing {
    Fresh(Reservation),
    MessageDone,
    EventDone,
    InFlight,
    Full,
}

/// Handle of the store; clones share it.
#[derive(Clone, Debug)]
pub struct Local(Arc<Tables>);

#[derive(Debug)]
struct Tables {
    messages: Table,
    events: Table,
    policy: Policy,
    /// Names reservations, so that one whose lease ran out cannot release its successor's.
    next_holder: AtomicU64,
}

impl Local {
    pub(super) fn new(policy: Policy) -> Self {
        Self(Arc::new(Tables {
            messages: Table::new(policy.entries_max),
            events: Table::new(policy.entries_max),
            policy,
            next_holder: AtomicU64::new(0),
        }))
    }

    pub(super) fn len(&self) -> usize {
        self.0.messages.len()
    }

    /// How a message is remembered that was answered with success.
    fn done(&self, claim: &Claim, now: UnixMs) -> Entry {
        Entry {
            state: State::Done,
            until: claim.expires_at.unwrap_or_else(|| self.dedupe_until(now)),
        }
    }

    fn dedupe_until(&self, now: UnixMs) -> UnixMs {
        let remembered_s = i64::from(self.0.policy.event_dedupe_s);
        UnixMs(now.0.saturating_add(remembered_s * 1000))
    }

    pub(super) fn claim(&self, claim: Claim, now: UnixMs) -> Standing {
        let tables = &self.0;
        let mut messages = tables.messages.shard(claim.message);
        messages.sweep(now);
        match messages.look(claim.message, now) {
            Seen::Done => return Standing::MessageDone,
            Seen::InFlight => return Standing::InFlight,
            Seen::Nothing => {}
        }
        let mut events = claim.event.map(|key| (key, tables.events.shard(key)));
        if let Some((key, shard)) = &mut events {
            shard.sweep(now);
            match shard.look(*key, now) {
                Seen::Done => {
                    // These bytes were answered with success once; the next copy is a replay.
                    if !messages.is_full(claim.message) {
                        messages.put(claim.message, self.done(&claim, now));
                    }
                    return Standing::EventDone;
                }
                Seen::InFlight => return Standing::InFlight,
                Seen::Nothing => {}
            }
            if shard.is_full(*key) {
                return Standing::Full;
            }
        }
        if messages.is_full(claim.message) {
            return Standing::Full;
        }
        let holder = tables.next_holder.fetch_add(1, Ordering::Relaxed);
        let lease_until = UnixMs(now.0.saturating_add(i64::from(tables.policy.lease_ms)));
        let entry = Entry {
            state: State::InFlight { holder },
            until: lease_until,
        };
        messages.put(claim.message, entry);
        if let Some((key, shard)) = &mut events {
            shard.put(*key, entry);
        }
        Standing::Fresh(Reservation {
            store: self.clone(),
            claim,
            holder,
            settled: false,
        })
    }
}

/// The right to deliver one message. Dropped without a commit it gives the message free again, so
/// that the provider's retry after our failure is not called a replay.
#[derive(Debug)]
#[must_use = "dropping a reservation releases it"]
pub struct Reservation {
    store: Local,
    claim: Claim,
    holder: u64,
    settled: bool,
}

impl Reservation {
    /// The message was accepted; the same again is a replay from now on. Holds also when the lease
    /// has run out meanwhile, for the delivery did happen.
    pub fn commit(mut self, now: UnixMs) {
        self.settled = true;
        let tables = &self.store.0;
        let done = self.store.done(&self.claim, now);
        tables
            .messages
            .shard(self.claim.message)
            .put(self.claim.message, done);
        if let Some(event) = self.claim.event {
            // Never shorter than the message itself: the two answers must not contradict.
            let until = self.store.dedupe_until(now).max(done.until);
            tables
                .events
                .shard(event)
                .put(event, Entry { until, ..done });
        }
    }

    /// The message was not accepted and may come again. The same as dropping it.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let tables = &self.store.0;
        tables
            .messages
            .shard(self.claim.message)
            .release(self.claim.message, self.holder);
        if let Some(event) = self.claim.event {
            tables.events.shard(event).release(event, self.holder);
        }
    }
}

#[derive(Debug)]
struct Table {
    shards: Box<[Mutex<Shard>]>,
}

impl Table {
    fn new(entries_max: usize) -> Self {
        let shards = if entries_max < SHARDED_FROM {
            1
        } else {
            SHARDS
        };
        let each = entries_max.div_ceil(shards);
        Self {
            shards: (0..shards).map(|_| Mutex::new(Shard::new(each))).collect(),
        }
    }

    /// Keys are digests, so their first byte spreads them evenly.
    fn shard(&self, key: ReplayKey) -> MutexGuard<'_, Shard> {
        let [first, ..] = key.0;
        let at = usize::from(first) % self.shards.len();
        self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> usize {
        let len = |shard: &Mutex<Shard>| {
            shard
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entries
                .len()
        };
        self.shards.iter().map(len).sum()
    }
}

/// Invariant: `by_expiry` has exactly one item for each of `entries`.
#[derive(Debug)]
struct Shard {
    entries: HashMap<ReplayKey, Entry>,
    by_expiry: BTreeSet<(UnixMs, ReplayKey)>,
    entries_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: State,
    /// From this moment on the entry counts no longer.
    until: UnixMs,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    InFlight { holder: u64 },
    Done,
}

enum Seen {
    Nothing,
    InFlight,
    Done,
}

impl Shard {
    fn new(entries_max: usize) -> Self {
        Self {
            entries: HashMap::new(),
            by_expiry: BTreeSet::new(),
            entries_max,
        }
    }

    fn look(&self, key: ReplayKey, now: UnixMs) -> Seen {
        match self.entries.get(&key) {
            Some(entry) if entry.until > now => match entry.state {
                State::InFlight { .. } => Seen::InFlight,
                State::Done => Seen::Done,
            },
            Some(_) | None => Seen::Nothing,
        }
    }

    fn is_full(&self, key: ReplayKey) -> bool {
        self.entries.len() >= self.entries_max && !self.entries.contains_key(&key)
    }

    fn put(&mut self, key: ReplayKey, entry: Entry) {
        if let Some(old) = self.entries.insert(key, entry) {
            self.by_expiry.remove(&(old.until, key));
        }
        self.by_expiry.insert((entry.until, key));
        self.check_invariants();
    }

    fn release(&mut self, key: ReplayKey, holder: u64) {
        let Some(entry) = self.entries.get(&key).copied() else {
            return;
        };
        if entry.state == (State::InFlight { holder }) {
            self.entries.remove(&key);
            self.by_expiry.remove(&(entry.until, key));
        }
        self.check_invariants();
    }

    fn sweep(&mut self, now: UnixMs) {
        for _ in 0..SWEEP_MAX {
            match self.by_expiry.first().copied() {
                Some((until, key)) if until <= now => {
                    self.by_expiry.pop_first();
                    self.entries.remove(&key);
                }
                Some(_) | None => return,
            }
        }
    }

    fn check_invariants(&self) {
        debug_assert_eq!(self.entries.len(), self.by_expiry.len());
    }
}
