//! The only place that reads the wall clock; everything else is handed a [`Millis`].

use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

pub(crate) const SECOND_MS: i64 = 1_000;
pub(crate) const MINUTE_MS: i64 = 60 * SECOND_MS;
pub(crate) const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// Always three digits of milliseconds, so that texts sort as their times do.
const RFC3339_MS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Unix time in milliseconds, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub i64);

impl Millis {
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(SECOND_MS)
    }

    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    pub fn minus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_sub(ms))
    }

    /// The UTC day this moment belongs to.
    pub fn day(self) -> Day {
        Day(self.0.div_euclid(DAY_MS))
    }

    pub fn rfc3339(self) -> String {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .ok()
            .and_then(|moment| moment.format(RFC3339_MS).ok())
            .unwrap_or_else(|| self.0.to_string())
    }
}

/// Days since 1970-01-01, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub i64);

impl Day {
    pub fn start(self) -> Millis {
        Millis(self.0.saturating_mul(DAY_MS))
    }

    pub fn plus(self, days: i64) -> Self {
        Self(self.0.saturating_add(days))
    }
}

/// Hands out the time; a test may shift it.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    shift_ms: std::sync::Arc<std::sync::atomic::AtomicI64>,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one reading of the wall clock that all others come from"
    )]
    pub fn now(&self) -> Millis {
        let elapsed = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let wall_ms = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        Millis(wall_ms.saturating_add(self.shift_ms.load(std::sync::atomic::Ordering::Relaxed)))
    }

    /// Moves this clock, for tests of expiry and of the turn of the day.
    pub fn shift(&self, ms: i64) {
        self.shift_ms
            .fetch_add(ms, std::sync::atomic::Ordering::Relaxed);
    }
}
