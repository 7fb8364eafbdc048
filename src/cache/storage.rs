//! Keeps responses in memory, bounded by bytes, behind the framework's `Storage`. Decides what makes
//! room for what (S3-FIFO-like, by `quick_cache`: one pass over many cold entries does not push out
//! the warm ones) and removes what is invalidated. Does not judge freshness.
//!
//! * Bodies are `Bytes` in one piece of exactly their size; a hit copies the header map and no body.
//! * Not streaming: a response appears when it is complete. One that turns out too large, is cut off
//!   or is fenced passes through to its client untouched.
//! * A hit compares the whole key, not only its hash: what separates tenants is not a probability.
//! * One store per process ([`Store::leak`]); a config reload keeps it.

mod entry;
mod fill;
mod presence;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora::cache::key::{CacheHashKey, HashBinary};
use pingora::cache::storage::{MissHandler, PurgeOutcome, PurgeTarget, PurgeType, Storage};
use pingora::cache::trace::SpanHandle;
use pingora::cache::{CacheKey, CacheMeta, HitHandler};
use pingora::{Error, ErrorType, Result};
use quick_cache::sync::{Cache, EntryAction};
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use crate::kernel::clock::Clock;

use super::Limits;
use super::groups::fence::{Fences, Refused, Ticket};
use super::groups::{Label, Selector, Which};
use super::owner::Owner;

use self::entry::Origin;
use self::presence::{Presence, Present};

pub use entry::{Entry, Hit};

/// What travels in a `CacheKey` from the request to the store, beside the key itself.
#[derive(Debug)]
pub struct Claim {
    pub owner: Owner,
    /// The policy's name: the group that every entry belongs to.
    pub name: Arc<str>,
    /// Host and path.
    pub target: Arc<str>,
    /// When the fetch started that may fill this key.
    pub ticket: Ticket,
    /// Which entry the lookup found, so that a 304 updates that one and no later one. 0 = none.
    found: AtomicU64,
}

impl Claim {
    /// Nothing found yet, not stamped yet.
    #[must_use]
    pub fn new(owner: Owner, name: Arc<str>, target: Arc<str>) -> Self {
        Self {
            owner,
            name,
            target,
            ticket: Ticket::default(),
            found: AtomicU64::new(0),
        }
    }

    fn label(&self, declared: &[Arc<str>]) -> Label {
        let own = std::iter::once(&self.name);
        Label {
            orgs: self.owner.orgs().into(),
            groups: own.chain(declared).cloned().collect(),
            target: self.target.clone(),
        }
    }
}

/// The groups that a response declared, on their way to the store in `CacheMeta`'s extensions.
#[derive(Clone, Debug)]
pub struct Declared(pub Arc<[Arc<str>]>);

/// What the store holds and has seen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    pub entries: usize,
    pub bytes: u64,
    pub bytes_max: u64,
    pub hits: u64,
    pub misses: u64,
    pub stored: u64,
    pub evicted: u64,
    pub invalidated: u64,
    /// Not stored: invalidated while it was fetched.
    pub fenced: u64,
    /// Not stored: fetch too slow, body larger than a shard, cut off, or too many fills at once.
    pub refused: u64,
    pub fences: usize,
}

/// The process's one store.
#[derive(Debug)]
pub struct Store {
    entries: Cache<HashBinary, Arc<Entry>, Bytewise, DefaultHashBuilder, Evictions>,
    fences: Fences,
    presence: Arc<Presence>,
    clock: Clock,
    /// Bytes of bodies that are still coming in.
    filling_bytes: AtomicU64,
    filling_bytes_max: u64,
    /// Numbers entries, so that one can be told from its successor under the same key.
    generation: AtomicU64,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    stored: AtomicU64,
    evicted: Arc<AtomicU64>,
    invalidated: AtomicU64,
    fenced: AtomicU64,
    refused: AtomicU64,
}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new(limits: &Limits, clock: Clock) -> Self {
        let counts = Counts::default();
        let evictions = Evictions(counts.evicted.clone());
        let shards = (limits.bytes_max / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
        let items = limits.bytes_max / ENTRY_BYTES_TYPICAL;
        let options = OptionsBuilder::new()
            .shards(usize::try_from(shards).unwrap_or(1))
            .estimated_items_capacity(usize::try_from(items).unwrap_or(usize::MAX).max(1))
            .weight_capacity(limits.bytes_max)
            .build();
        let hasher = DefaultHashBuilder::default();
        let entries = match options {
            Ok(options) => Cache::with_options(options, Bytewise, hasher, evictions),
            // Both capacities are set above; without them the builder would refuse.
            Err(_) => Cache::with(1, limits.bytes_max, Bytewise, hasher, evictions),
        };
        let fetch_max = Duration::from_millis(limits.fetch_ms_max);
        Self {
            entries,
            fences: Fences::new(fetch_max, limits.fences_max, clock.instant()),
            presence: Arc::new(Presence::new()),
            clock,
            filling_bytes: AtomicU64::new(0),
            filling_bytes_max: limits.bytes_max / FILLING_SHARE,
            generation: AtomicU64::new(0),
            counts,
        }
    }

    /// The one store, for the rest of the process's life: the framework wants it `'static`.
    #[must_use]
    pub fn leak(limits: &Limits, clock: Clock) -> &'static Self {
        Box::leak(Box::new(Self::new(limits, clock)))
    }

    /// Marks the start of a fetch; before the first byte of the request leaves.
    pub fn fetch_starts(&self, claim: &Claim) {
        self.fences.stamp(&claim.ticket, self.clock.instant());
    }

    /// Removes what `selector` matches, keeps out what is being fetched of it, and says so in the
    /// log. Once this returns, nothing of it is served.
    pub fn invalidate(&self, selector: &Selector) -> usize {
        self.fences.raise(selector.clone(), self.clock.instant());
        let removed = AtomicU64::new(0);
        if self.presence.may_match(selector) {
            self.entries.retain(|_, entry| {
                let gone = selector.matches(&entry.label);
                removed.fetch_add(u64::from(gone), Ordering::Relaxed);
                !gone
            });
        }
        let removed = removed.into_inner();
        self.counts
            .invalidated
            .fetch_add(removed, Ordering::Relaxed);
        let removed = usize::try_from(removed).unwrap_or(usize::MAX);
        let line = selector.log_line(removed);
        match selector.which {
            Which::Everything | Which::Groups(_) => tracing::info!("{line}"),
            // One for every unsafe request.
            Which::Target(_) => tracing::debug!("{line}"),
        }
        removed
    }

    /// How many entries `selector` matches: an invalidation's dry run.
    #[must_use]
    pub fn matching(&self, selector: &Selector) -> usize {
        let entries = self.entries.iter();
        entries.filter(|(_, e)| selector.matches(&e.label)).count()
    }

    /// Counters and levels.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Stats {
            entries: self.entries.len(),
            bytes: self.entries.weight(),
            bytes_max: self.entries.capacity(),
            hits: read(&self.counts.hits),
            misses: read(&self.counts.misses),
            stored: read(&self.counts.stored),
            evicted: read(&self.counts.evicted),
            invalidated: read(&self.counts.invalidated),
            fenced: read(&self.counts.fenced),
            refused: read(&self.counts.refused),
            fences: self.fences.len(),
        }
    }

    /// Inserts, unless the response was fetched too early, too slowly, or fits nowhere.
    fn insert(&self, key: HashBinary, entry: Entry, ticket: &Ticket) {
        let label = entry.label.clone();
        let entry = Arc::new(entry);
        let admitted = self.fences.admit(&label, ticket, self.clock.instant(), || {
            self.entries.insert(key, entry);
        });
        let count = match admitted {
            Ok(()) => &self.counts.stored,
            Err(Refused::Fenced) => &self.counts.fenced,
            Err(Refused::TooLate) => &self.counts.refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Puts new metadata to the entry that was validated, unless it is gone, replaced or fenced.
    fn freshen(&self, key: HashBinary, meta: &CacheMeta, claim: &Claim) -> bool {
        let found = claim.found.load(Ordering::Relaxed);
        let Some(held) = self
            .entries
            .peek(&key)
            .filter(|e| e.origin.generation == found)
        else {
            return false;
        };
        let label = match meta.extensions().get::<Declared>() {
            Some(declared) => Arc::new(claim.label(&declared.0)),
            None => held.label.clone(),
        };
        let present = self.present(label.clone());
        let fresh = Arc::new(held.with_meta(meta, present, self.origin(claim)));
        let now = self.clock.instant();
        let replaced = self.fences.admit(&label, &claim.ticket, now, || {
            let replace = |_: &HashBinary, current: &mut Arc<Entry>| {
                let same = current.origin.generation == found;
                if same {
                    *current = fresh;
                }
                EntryAction::Retain(same)
            };
            let result = self.entries.entry(&key, Some(Duration::ZERO), replace);
            matches!(result, quick_cache::sync::EntryResult::Retained(true))
        });
        match replaced {
            Ok(replaced) => replaced,
            Err(Refused::Fenced) => {
                self.counts.fenced.fetch_add(1, Ordering::Relaxed);
                false
            }
            Err(Refused::TooLate) => false,
        }
    }

    fn origin(&self, claim: &Claim) -> Origin {
        Origin {
            generation: self.generation.fetch_add(1, Ordering::Relaxed) + 1,
            fetch_started_ms: claim.ticket.at_ms(),
        }
    }

    fn present(&self, label: Arc<Label>) -> Present {
        Present::new(self.presence.clone(), label)
    }
}

#[async_trait]
impl Storage for Store {
    async fn lookup(
        &'static self,
        key: &CacheKey,
        _trace: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let held = self.entries.get(&key.combined_bin());
        let Some(entry) = held.filter(|e| *e.key == *key.primary_key()) else {
            self.counts.misses.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        };
        self.counts.hits.fetch_add(1, Ordering::Relaxed);
        if let Some(claim) = claim(key) {
            claim
                .found
                .store(entry.origin.generation, Ordering::Relaxed);
        }
        let meta = entry.meta();
        Ok(Some((meta, Box::new(Hit::new(entry)))))
    }

    async fn get_miss_handler(
        &'static self,
        key: &CacheKey,
        meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> Result<MissHandler> {
        // Without a claim nobody could say whose entry it is.
        let Some(claim) = claim(key) else {
            return Error::e_explain(ErrorType::InternalError, "cache key without a claim");
        };
        Ok(Box::new(fill::Fill::new(self, key, meta, claim.clone())))
    }

    async fn purge(
        &'static self,
        target: PurgeTarget<'_>,
        _type: PurgeType,
        _trace: &SpanHandle,
    ) -> Result<PurgeOutcome> {
        Ok(match self.entries.remove(&target.key().combined_bin()) {
            Some(_) => PurgeOutcome::Purged(None),
            None => PurgeOutcome::NotFound,
        })
    }

    async fn update_meta(
        &'static self,
        key: &CacheKey,
        meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> Result<bool> {
        Ok(claim(key).is_some_and(|claim| self.freshen(key.combined_bin(), meta, claim)))
    }

    fn support_streaming_partial_write(&self) -> bool {
        false
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync + 'static) {
        self
    }
}

/// The request's claim, if the key was made by `phases`.
pub(super) fn claim(key: &CacheKey) -> Option<&Arc<Claim>> {
    key.extensions.get::<Arc<Claim>>()
}

/// Weighs an entry by what it holds.
#[derive(Clone, Copy, Debug)]
struct Bytewise;

impl Weighter<HashBinary, Arc<Entry>> for Bytewise {
    fn weight(&self, _key: &HashBinary, entry: &Arc<Entry>) -> u64 {
        entry.weight
    }
}

/// Counts what had to make room, and drops it after the shard's lock.
#[derive(Clone, Debug)]
struct Evictions(Arc<AtomicU64>);

impl Lifecycle<HashBinary, Arc<Entry>> for Evictions {
    type RequestState = Vec<Arc<Entry>>;

    fn on_evict(&self, evicted: &mut Self::RequestState, _key: HashBinary, entry: Arc<Entry>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        evicted.push(entry);
    }
}

/// A shard smaller than this would refuse objects that the whole store has room for.
const SHARD_BYTES_MIN: u64 = 8 * 1024 * 1024;
const SHARDS_MAX: u64 = 64;
/// For sizing the tables only.
const ENTRY_BYTES_TYPICAL: u64 = 4 * 1024;
/// Bodies that are coming in may take this part of `bytes_max` on top of it.
const FILLING_SHARE: u64 = 4;

#[cfg(test)]
mod tests;
