//! When something is due on a stream: the next heartbeat, the end of its life. Pure arithmetic over
//! `now`; randomness comes in as a fraction.

use std::time::{Duration, Instant};

use super::Policy;
use crate::kernel::clock::UnixMs;

/// Share of the life time by which streams differ, so that they do not all come back at once.
const LIFETIME_SPREAD: f64 = 0.2;
/// Base of `retry:`; each client gets between this and twice this.
const RETRY_MS: f64 = 1000.0;

/// The times of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    silence: Duration,
    heartbeat_at: Instant,
    ends_at: Instant,
    end: End,
}

/// Why a stream's time is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    Lifetime,
    CredentialExpired,
}

/// What is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Due {
    Heartbeat,
    End(End),
}

impl Pace {
    /// A stream that begins now and may live as long as its credential. `fraction` is in `[0, 1)`.
    #[must_use]
    pub fn begin(
        policy: &Policy,
        now: Instant,
        now_unix: UnixMs,
        credential_expires: UnixMs,
        fraction: f64,
    ) -> Self {
        let factor = 1.0 - LIFETIME_SPREAD + 2.0 * LIFETIME_SPREAD * fraction;
        let life = Duration::from_secs(policy.lifetime_s.into()).mul_f64(factor);
        let good_ms = u64::try_from(credential_expires.0 - now_unix.0).unwrap_or(0);
        let credential = Duration::from_millis(good_ms);
        let (span, end) = if credential < life {
            (credential, End::CredentialExpired)
        } else {
            (life, End::Lifetime)
        };
        let silence = Duration::from_secs(policy.heartbeat_s.max(1).into());
        Self {
            silence,
            heartbeat_at: now + silence,
            ends_at: now + span,
            end,
        }
    }

    /// Something was sent: silence begins anew.
    pub fn sent(&mut self, now: Instant) {
        self.heartbeat_at = now + self.silence;
    }

    /// The moment at which to look again.
    #[must_use]
    pub fn next(&self) -> Instant {
        self.heartbeat_at.min(self.ends_at)
    }

    /// What is due at `now`, the end of the stream first.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Due> {
        if now >= self.ends_at {
            return Some(Due::End(self.end));
        }
        (now >= self.heartbeat_at).then_some(Due::Heartbeat)
    }
}

/// `retry:` in milliseconds for one client. `fraction` is in `[0, 1)`.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 1000 and 2000 by construction"
)]
pub fn retry_ms(fraction: f64) -> u64 {
    (RETRY_MS * (1.0 + fraction.clamp(0.0, 1.0))) as u64
}

/// When, within the window, a draining stream says goodbye. `fraction` is in `[0, 1)`.
#[must_use]
pub fn drain_after(window: Duration, fraction: f64) -> Duration {
    window.mul_f64(fraction.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Due, End, Pace};
    use crate::kernel::clock::{Clock, UnixMs};
    use crate::stream::Policy;

    fn policy() -> Policy {
        Policy {
            upstream: "api".into(),
            heartbeat_s: 30,
            connects_per_min: std::num::NonZeroU32::MIN,
            concurrent_per_user: 2,
            lifetime_s: 3600,
            write_timeout_ms: 1000,
        }
    }

    fn pace(expires_ms: i64, fraction: f64) -> (Pace, Instant) {
        let now = Clock::manual(UnixMs(0)).0.instant();
        (
            Pace::begin(&policy(), now, UnixMs(0), UnixMs(expires_ms), fraction),
            now,
        )
    }

    #[test]
    fn a_heartbeat_is_due_after_silence_only() {
        let (mut pace, start) = pace(i64::MAX, 0.5);
        let s = Duration::from_secs;
        assert_eq!(pace.due(start + s(29)), None);
        assert_eq!(pace.due(start + s(30)), Some(Due::Heartbeat));
        pace.sent(start + s(29));
        assert_eq!(pace.due(start + s(30)), None);
        assert_eq!(pace.next(), start + s(59));
    }

    #[test]
    fn life_time_is_spread_by_a_fifth() {
        let s = Duration::from_secs;
        for (fraction, life) in [(0.0, 2880), (0.5, 3600), (1.0, 4320)] {
            let (pace, start) = pace(i64::MAX, fraction);
            assert_ne!(pace.due(start + s(life - 1)), Some(Due::End(End::Lifetime)));
            assert_eq!(pace.due(start + s(life + 1)), Some(Due::End(End::Lifetime)));
        }
    }

    #[test]
    fn no_stream_outlives_its_credential() {
        let (pace, start) = pace(900_000, 0.5);
        let after = start + Duration::from_secs(900);
        assert_eq!(pace.due(after), Some(Due::End(End::CredentialExpired)));
    }
}
