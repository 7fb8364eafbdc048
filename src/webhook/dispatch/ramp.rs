//! How many attempts a destination gets at a time: slow start. One after an outage and a few at first,
//! so that one that hangs does not hold up the rest; then one more for each that is answered, which doubles it every round trip; less again when attempts
//! fail in a row. What the API can take shows itself this way, and a backlog does not fall on it.

/// Failures in a row from which on each one halves the width. One alone may be the event's own fault.
const ROW: u32 = 2;

/// Where nothing is known yet, and the least while some attempts fail and some may not.
const FIRST: u32 = 4;

/// The width of one destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ramp {
    width: u32,
    failed_in_row: u32,
}

impl Ramp {
    /// A few at a time.
    #[must_use]
    pub(super) fn new() -> Self {
        Self {
            width: FIRST,
            failed_in_row: 0,
        }
    }

    /// Attempts at a time.
    #[must_use]
    pub(super) fn width(&self, concurrency_max: u32) -> u32 {
        self.width.min(concurrency_max).max(1)
    }

    /// The API took or refused an event: it is at work.
    pub(super) fn answered(&mut self, concurrency_max: u32) {
        self.failed_in_row = 0;
        self.width = self.width.saturating_add(1).min(concurrency_max).max(1);
    }

    /// An attempt failed.
    pub(super) fn failed(&mut self) {
        self.failed_in_row = self.failed_in_row.saturating_add(1);
        if self.failed_in_row >= ROW {
            self.width = (self.width / 2).max(FIRST.min(self.width));
        }
    }

    /// The destination is away: the next attempt is a probe.
    pub(super) fn restart(&mut self) {
        *self = Self {
            width: 1,
            failed_in_row: 0,
        };
    }
}

impl Default for Ramp {
    fn default() -> Self {
        Self::new()
    }
}
