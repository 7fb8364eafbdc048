//! How long an event waits between two attempts: exponential, capped, with full jitter, so that what
//! failed together does not come back together.

use std::time::Duration;

use super::Policy;

/// Each wait may be so many times as long as the one before it. Four and not two, because ten
/// attempts are to reach from a restart of the API (seconds) to an outage over night.
pub const FACTOR: u64 = 4;

/// Longest wait after attempt number `attempt` (1, 2, …).
#[must_use]
pub fn longest(policy: &Policy, attempt: u32) -> Duration {
    let growth = FACTOR.saturating_pow(attempt.saturating_sub(1));
    let span_ms = policy.backoff_base_ms.saturating_mul(growth);
    Duration::from_millis(span_ms.min(policy.backoff_cap_ms))
}

/// The wait after attempt number `attempt`; `fraction` is random in `[0, 1)`.
#[must_use]
pub fn wait(policy: &Policy, attempt: u32, fraction: f64) -> Duration {
    longest(policy, attempt).mul_f64(fraction.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{ProptestConfig, prop_assert, proptest};

    use super::{longest, wait};
    use crate::webhook::dispatch::Policy;

    #[test]
    fn the_default_waits_are_the_documented_ones() {
        let policy = Policy::default();
        let waits: Vec<_> = (1..policy.attempts_max)
            .map(|n| longest(&policy, n).as_secs())
            .collect();
        let documented = [10, 40, 160, 640, 2_560, 10_240, 36_000, 36_000, 36_000];
        assert_eq!(waits, documented);
        let expected_s: u64 = documented.iter().sum::<u64>() / 2;
        let day_s = u64::from(policy.age_max_s);
        assert!((day_s / 3 * 2..day_s).contains(&expected_s), "{expected_s}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn waits_are_bounded(attempt in 0u32..5_000, fraction in 0.0f64..1.0) {
            let policy = Policy::default();
            let cap = Duration::from_millis(policy.backoff_cap_ms);
            prop_assert!(wait(&policy, attempt, fraction) <= cap);
        }
    }
}
