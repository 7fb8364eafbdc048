//! Decides what one attempt makes of an event: done, once more and when, or dead and why. Pure.

use std::time::Duration;

use super::{Answered, Policy, backoff};
use crate::kernel::clock::UnixMs;
use crate::webhook::inbox::{Attempt, Claimed, DeadReason, Outcome, Settlement};

/// What an answer means for the event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Meaning {
    Delivered,
    /// The same bytes will never be accepted.
    Refused,
    /// It may go better another time.
    Failed,
}

/// The meaning of an outcome. A redirect is a failure: where an event goes is not the API's to choose.
#[must_use]
pub fn meaning(outcome: &Outcome) -> Meaning {
    match outcome {
        Outcome::Status(200..=299) => Meaning::Delivered,
        Outcome::Status(408 | 425 | 429) => Meaning::Failed,
        Outcome::Status(400..=499) => Meaning::Refused,
        Outcome::Status(_) | Outcome::NoAnswer(_) => Meaning::Failed,
    }
}

/// Judges an attempt. `fraction` is random in `[0, 1)`.
#[must_use]
pub fn judge(claimed: &Claimed, answered: Answered, policy: &Policy, fraction: f64) -> Settlement {
    let attempt = answered.attempt;
    match meaning(&attempt.outcome) {
        Meaning::Delivered => Settlement::Delivered(attempt),
        Meaning::Refused => Settlement::Dead {
            attempt,
            reason: DeadReason::Refused,
        },
        Meaning::Failed => retry(claimed, attempt, answered.retry_after, policy, fraction),
    }
}

fn retry(
    claimed: &Claimed,
    attempt: Attempt,
    retry_after: Option<Duration>,
    policy: &Policy,
    fraction: f64,
) -> Settlement {
    let made = claimed.attempts.saturating_add(1);
    if made >= policy.attempts_max {
        let reason = DeadReason::AttemptsExhausted;
        return Settlement::Dead { attempt, reason };
    }
    let now = attempt
        .at
        .plus(Duration::from_millis(attempt.took_ms.into()));
    // Counted from the first failure: time in which the destination was away and nothing was tried is
    // not held against the event, nor is the time before an operator's redelivery.
    let first_failed_at = claimed.first_failed_at.unwrap_or(attempt.at);
    let tried_until = first_failed_at.plus(Duration::from_secs(policy.age_max_s.into()));
    let kept_until = Duration::from_secs(policy.kept_max_s.into());
    let too_old_at = tried_until.min(claimed.patience_from.plus(kept_until));
    let earliest = now.plus(retry_after.unwrap_or_default());
    if now >= too_old_at || earliest > too_old_at {
        let reason = DeadReason::TooOld;
        return Settlement::Dead { attempt, reason };
    }
    // The last attempt is made when the time is up, not before and not after.
    let due = now.plus(backoff::wait(policy, made, fraction));
    let due = due.max(earliest).min(too_old_at);
    let Some(yield_at) = yield_at(claimed, first_failed_at, policy) else {
        let yield_order = false;
        return Settlement::Retry {
            attempt,
            due,
            yield_order,
        };
    };
    // One attempt at the moment when the time-out runs out. Where the API forbids even that, waiting
    // on would keep back the key for nothing.
    let yield_order = now >= yield_at || earliest > yield_at;
    let due = if yield_order { due } else { due.min(yield_at) };
    Settlement::Retry {
        attempt,
        due,
        yield_order,
    }
}

/// From when on the event must not hold back those behind it; `None` = it never does, or for ever.
fn yield_at(claimed: &Claimed, first_failed_at: UnixMs, policy: &Policy) -> Option<UnixMs> {
    claimed.event.order_key.as_ref()?;
    let timeout_s = policy.order_timeout_s(&claimed.event.endpoint)?;
    Some(first_failed_at.plus(Duration::from_secs(timeout_s.get().into())))
}
