//! Whether and when something is tried again: only what is safe to repeat, with full jitter, and only
//! while retries stay a small share of all requests.

use std::time::{Duration, Instant};

use http::Method;

use super::RetryPolicy;

/// Whether repeating a request could do harm (RFC 9110, section 9.2.2).
#[must_use]
pub fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Pause before attempt number `attempt` (2 = the first retry): a random part of an exponentially
/// growing, capped span. `fraction` is in `[0, 1)`.
#[must_use]
pub fn pause(policy: RetryPolicy, attempt: u32, fraction: f64) -> Duration {
    let doublings = attempt.saturating_sub(2).min(20);
    let span = policy
        .backoff_base_ms
        .saturating_mul(1 << doublings)
        .min(policy.backoff_cap_ms);
    Duration::from_millis(span).mul_f64(fraction.clamp(0.0, 1.0))
}

/// Spans over which the budget looks back.
const SLOTS: usize = 10;
const SLOT: Duration = Duration::from_secs(1);
/// Retries that are always allowed in the window, so that a quiet pool can retry at all.
const FREE_RETRIES: u32 = 3;

/// Requests and retries of the last ten seconds.
#[derive(Debug)]
pub struct Budget {
    slots: [(u32, u32); SLOTS],
    current: usize,
    started: Instant,
}

impl Budget {
    /// An empty window that begins now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            slots: [(0, 0); SLOTS],
            current: 0,
            started: now,
        }
    }

    /// Counts a first attempt.
    pub fn request(&mut self, now: Instant) {
        self.turn(now);
        self.slots[self.current].0 += 1;
    }

    /// Takes one retry out of the budget, if there is one.
    pub fn take(&mut self, policy: RetryPolicy, now: Instant) -> bool {
        self.turn(now);
        let (requests, retries) = self.slots.iter().fold((0u64, 0u64), |(a, b), s| {
            (a + u64::from(s.0), b + u64::from(s.1))
        });
        let allowed =
            (requests * u64::from(policy.budget_percent) / 100).max(u64::from(FREE_RETRIES));
        if retries >= allowed {
            return false;
        }
        self.slots[self.current].1 += 1;
        true
    }

    fn turn(&mut self, now: Instant) {
        let mut steps = 0;
        while now.saturating_duration_since(self.started) >= SLOT && steps < SLOTS {
            self.started += SLOT;
            self.current = (self.current + 1) % SLOTS;
            self.slots[self.current] = (0, 0);
            steps += 1;
        }
        if steps == SLOTS {
            self.started = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;
    use proptest::prelude::{ProptestConfig, prop_assert, proptest};

    use super::{Budget, is_repeatable, pause};
    use crate::kernel::clock::{Clock, UnixMs};
    use crate::upstream::RetryPolicy;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts_max: 3,
        backoff_base_ms: 50,
        backoff_cap_ms: 1000,
        budget_percent: 20,
    };

    #[test]
    fn only_safe_methods_are_repeated() {
        assert!(is_repeatable(&Method::GET));
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert!(!is_repeatable(&method), "{method}");
        }
    }

    #[test]
    fn retries_stay_a_fifth_of_the_requests() {
        let now = Clock::manual(UnixMs(0)).0.instant();
        let mut budget = Budget::new(now);
        (0..100).for_each(|_| budget.request(now));
        let granted = (0..100).filter(|_| budget.take(POLICY, now)).count();
        assert_eq!(granted, 20);
        assert!(!budget.take(POLICY, now + Duration::from_secs(9)));
        assert!(
            budget.take(POLICY, now + Duration::from_secs(20)),
            "the window moved on"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn pauses_are_bounded(attempt in 0u32..1000, fraction in 0.0f64..1.0) {
            prop_assert!(pause(POLICY, attempt, fraction) <= Duration::from_millis(1000));
        }
    }
}
