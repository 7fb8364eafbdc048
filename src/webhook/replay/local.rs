//! The memory of one process: two tables of sharded maps, one by message and one by event id.
//!
//! Locks are taken table by table in that order, so two claims cannot wait for each other. Expired
//! entries go a few at a time with each claim, so no claim pays for all of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Claim, Policy, ReplayKey, Standing};
use crate::kernel::clock::UnixMs;
use crate::webhook::inbox::{Memory, MemoryOf};

const SHARDS: usize = 16;
/// Below this many entries one shard holds them all, so that the limit is exact.
const SHARDED_FROM: usize = 4096;
/// Expired entries removed with one claim; more than one, so that a table shrinks under load.
const SWEEP_MAX: usize = 16;

/// Handle of the store; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Local(Arc<Tables>);

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

    /// Takes over what was remembered before a restart. All of it: whatever the limit is now, what
    /// was accepted must not be accepted again.
    pub(super) fn remember(&self, remembered: &[Memory]) {
        for memory in remembered {
            let table = match memory.of {
                MemoryOf::Message => &self.0.messages,
                MemoryOf::Event => &self.0.events,
            };
            table.shard(memory.key).put(memory.key, done(memory));
        }
    }

    pub(super) fn claim(&self, claim: Claim, now: UnixMs) -> Standing<Held> {
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
                        messages.put(claim.message, done(&claim.message(&tables.policy, now)));
                    }
                    return Standing::EventDone;
                }
                Seen::InFlight => return Standing::InFlight,
                Seen::Nothing => {}
            }
            // Only a convenience for honest retries that were signed anew; what keeps replays out is the
            // message. So it makes room instead of turning everybody away.
            if shard.is_full(*key) && !shard.forget_oldest() {
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
        Standing::Fresh(Held {
            store: self.clone(),
            claim,
            holder,
            settled: false,
        })
    }
}

fn done(memory: &Memory) -> Entry {
    Entry {
        state: State::Done,
        until: memory.until,
    }
}

/// What one claim holds; gives it free when dropped.
#[derive(Debug)]
pub(super) struct Held {
    store: Local,
    claim: Claim,
    holder: u64,
    settled: bool,
}

impl Held {
    pub(super) fn memory(&self, now: UnixMs) -> Vec<Memory> {
        self.claim.memory(&self.store.0.policy, now)
    }

    pub(super) fn commit(mut self, now: UnixMs) {
        self.settled = true;
        self.store.remember(&self.memory(now));
    }
}

impl Drop for Held {
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

    /// Forgets the accepted entry that would go first; `false` when all that is first is under way.
    fn forget_oldest(&mut self) -> bool {
        let done = |(_, key): &&(UnixMs, ReplayKey)| {
            self.entries
                .get(key)
                .is_some_and(|entry| entry.state == State::Done)
        };
        let Some(oldest) = self.by_expiry.iter().take(SWEEP_MAX).find(done).copied() else {
            return false;
        };
        self.by_expiry.remove(&oldest);
        self.entries.remove(&oldest.1);
        self.check_invariants();
        true
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
