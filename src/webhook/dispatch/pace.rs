//! How many attempts may start, and when the next: a token bucket per destination. What it saves up
//! is bounded, so that a backlog never leaves at once.

use std::time::{Duration, Instant};

/// The bucket holds what fits this span.
const BURST: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

/// A bucket, kept as the moment at which it will be full: no tokens are counted, so none are rounded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    full_at: Instant,
}

impl Pace {
    /// A full bucket.
    #[must_use]
    pub(super) fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Attempts that may start now.
    #[must_use]
    pub(super) fn room(&self, rate_max: u32, now: Instant) -> usize {
        let spent = self.full_at.saturating_duration_since(now);
        let left = burst(rate_max).saturating_sub(spent);
        usize::try_from(left.as_nanos() / interval(rate_max).as_nanos().max(1))
            .unwrap_or(usize::MAX)
    }

    /// When one more may start.
    #[must_use]
    pub(super) fn ready_at(&self, rate_max: u32) -> Instant {
        let reserve = burst(rate_max).saturating_sub(interval(rate_max));
        self.full_at.checked_sub(reserve).unwrap_or(self.full_at)
    }

    /// Takes note of `count` attempts that start.
    pub(super) fn take(&mut self, count: usize, rate_max: u32, now: Instant) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.full_at = self.full_at.max(now) + interval(rate_max).saturating_mul(count);
    }
}

fn interval(rate_max: u32) -> Duration {
    SECOND / rate_max.max(1)
}

/// At least one attempt, however low the rate.
fn burst(rate_max: u32) -> Duration {
    BURST.max(interval(rate_max))
}
