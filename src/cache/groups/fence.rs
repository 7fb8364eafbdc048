//! Decides whether a response was fetched too early to be stored: before an invalidation that
//! concerns it. Keeps no responses.
//!
//! Invariant: once [`Fences::raise`] has returned and its caller has removed what it found, no
//! response whose fetch started earlier is in the store or can get there. Storing happens under the
//! read side of the lock, raising under the write side, so either the store's insertion came first
//! and the removal finds it, or the fence came first and the insertion is refused.
//!
//! Bounded twice. A fetch that takes longer than `fetch_ms_max` is refused whatever happened, hence
//! a fence is forgotten after twice that time (twice, since a fence's own clock was read a moment
//! before it stood). Beyond `fences_max` the oldest fences become the floor: a
//! fetch that started below it is refused whatever it concerns.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::{Label, Selector};

/// Remembers recent invalidations.
#[derive(Debug)]
pub struct Fences {
    /// Sequence number of the latest invalidation. Written under the write lock, after the fence is
    /// in place: a fetch that reads it here started after that.
    latest: AtomicU64,
    book: RwLock<Book>,
    epoch: Instant,
    fetch_max: Duration,
    fences_max: usize,
}

/// When a fetch started, in terms of time and of invalidations. One per request; a retry starts anew.
#[derive(Debug, Default)]
pub struct Ticket {
    after: AtomicU64,
    /// Milliseconds since the fences' epoch.
    at_ms: AtomicU64,
}

/// Why a response may not be stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// It was invalidated while it was being fetched.
    Fenced,
    /// Its fetch took longer than fences are remembered.
    TooLate,
}

impl Ticket {
    /// When the fetch started, in milliseconds since the fences began.
    #[must_use]
    pub fn at_ms(&self) -> u64 {
        self.at_ms.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Book {
    fences: BTreeMap<u64, (Selector, Instant)>,
    /// Each selector's latest fence, which makes its earlier one superfluous.
    latest_of: HashMap<Selector, u64>,
    /// Fetches that started before this one are refused.
    floor: u64,
}

impl Fences {
    /// None yet. `now` is the origin of the tickets' time.
    #[must_use]
    pub fn new(fetch_max: Duration, fences_max: usize, now: Instant) -> Self {
        Self {
            latest: AtomicU64::new(0),
            book: RwLock::default(),
            epoch: now,
            fetch_max,
            fences_max,
        }
    }

    /// A fetch starts now: call before the first byte of the request leaves.
    pub fn stamp(&self, ticket: &Ticket, now: Instant) {
        let since = now.saturating_duration_since(self.epoch).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        ticket.at_ms.store(since, Ordering::Relaxed);
        // Pairs with the store in `raise`: what is seen here was written after its cause.
        let latest = self.latest.load(Ordering::Acquire);
        ticket.after.store(latest, Ordering::Relaxed);
    }

    /// Runs `store` unless the response is fenced. `store` must insert before it returns and must
    /// not raise a fence itself.
    ///
    /// # Errors
    /// Why it was not run.
    pub fn admit<T>(
        &self,
        label: &Label,
        ticket: &Ticket,
        now: Instant,
        store: impl FnOnce() -> T,
    ) -> Result<T, Refused> {
        let started = self.epoch + Duration::from_millis(ticket.at_ms());
        if now.saturating_duration_since(started) > self.fetch_max {
            return Err(Refused::TooLate);
        }
        let after = ticket.after.load(Ordering::Relaxed);
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        if book.concerns(label, after) {
            return Err(Refused::Fenced);
        }
        Ok(store())
    }

    /// Refuses from now on what `selector` matches and is already being fetched. The caller then
    /// removes what is stored.
    pub fn raise(&self, selector: Selector, now: Instant) {
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        let sequence = self.latest.load(Ordering::Relaxed) + 1;
        book.forget_until(now.checked_sub(self.fetch_max * 2));
        if let Some(earlier) = book.latest_of.insert(selector.clone(), sequence) {
            book.fences.remove(&earlier);
        }
        book.fences.insert(sequence, (selector, now));
        while book.fences.len() > self.fences_max {
            book.fold_oldest();
        }
        self.latest.store(sequence, Ordering::Release);
        debug_assert!(book.is_sound());
    }

    /// Invalidations remembered one by one.
    #[must_use]
    pub fn len(&self) -> usize {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        book.fences.len()
    }

    /// Whether none is remembered one by one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Book {
    fn concerns(&self, label: &Label, after: u64) -> bool {
        let later = self.fences.range(after.saturating_add(1)..);
        after < self.floor || { later }.any(|(_, (selector, _))| selector.matches(label))
    }

    /// Drops what no fetch that may still be stored can have started before.
    fn forget_until(&mut self, horizon: Option<Instant>) {
        while let (Some(horizon), Some(oldest)) = (horizon, self.fences.first_entry()) {
            if oldest.get().1 >= horizon {
                return;
            }
            let (selector, _) = oldest.remove();
            self.latest_of.remove(&selector);
        }
    }

    fn fold_oldest(&mut self) {
        if let Some((sequence, (selector, _))) = self.fences.pop_first() {
            self.latest_of.remove(&selector);
            self.floor = sequence;
        }
    }

    fn is_sound(&self) -> bool {
        self.fences.len() == self.latest_of.len()
            && self.fences.keys().all(|s| *s > self.floor)
            && self
                .latest_of
                .iter()
                .all(|(selector, at)| self.fences.get(at).is_some_and(|(s, _)| s == selector))
    }
}

#[cfg(test)]
mod tests;
