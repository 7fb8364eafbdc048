//! The only source of time. Decisions take `now` as an argument; what has to ask, asks a [`Clock`]
//! that `app` hands in, so that a test can hold time still.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Hash)]
pub struct UnixMs(pub i64);

impl UnixMs {
    /// Whole seconds since 1970, rounded down.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This moment and `span` more; saturates at the end of time.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)),
        )
    }
}

/// Wall clock and monotonic clock in one handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock {
    epoch: Instant,
    /// Milliseconds added to the real clocks; a test's hand on the dial.
    offset_ms: Option<Arc<AtomicI64>>,
    /// Set in tests: the wall clock at `epoch`, after which only the dial moves time.
    frozen_at: Option<UnixMs>,
    /// Set in simulations: the runtime's clock moves time, not the dial.
    #[cfg(test)]
    follows: Option<tokio::time::Instant>,
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the machine"
    )]
    pub fn system() -> Self {
        Self {
            epoch: Instant::now(),
            offset_ms: None,
            frozen_at: None,
            #[cfg(test)]
            follows: None,
        }
    }

    /// A clock that stands at `start` until the returned dial moves it.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant has no other constructor"
    )]
    pub fn manual(start: UnixMs) -> (Self, Dial) {
        let offset = Arc::new(AtomicI64::new(0));
        let clock = Self {
            epoch: Instant::now(),
            offset_ms: Some(offset.clone()),
            frozen_at: Some(start),
            #[cfg(test)]
            follows: None,
        };
        (clock, Dial(offset))
    }

    /// A clock that stands at `start` now and goes as the runtime's does, which a simulation pauses.
    #[cfg(test)]
    #[must_use]
    pub fn simulated(start: UnixMs) -> Self {
        let mut clock = Self::manual(start).0;
        clock.follows = Some(tokio::time::Instant::now());
        clock
    }

    /// Wall-clock time.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the machine"
    )]
    pub fn unix(&self) -> UnixMs {
        if let Some(start) = self.frozen_at {
            return UnixMs(start.0 + self.offset());
        }
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        UnixMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Monotonic time, for spans and deadlines.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the machine"
    )]
    pub fn instant(&self) -> Instant {
        match self.frozen_at {
            Some(_) => {
                self.epoch + Duration::from_millis(u64::try_from(self.offset()).unwrap_or(0))
            }
            None => Instant::now(),
        }
    }

    fn offset(&self) -> i64 {
        #[cfg(test)]
        if let Some(start) = self.follows {
            return i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX);
        }
        self.offset_ms
            .as_ref()
            .map_or(0, |o| o.load(Ordering::Relaxed))
    }
}

/// Moves a manual [`Clock`] forward.
#[derive(Clone, Debug)]
pub struct Dial(Arc<AtomicI64>);

impl Dial {
    /// Lets `span` pass.
    pub fn advance(&self, span: Duration) {
        let ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}
