//! Circuit breaker: counts failures in a window, refuses while open, lets one probe through
//! afterwards. A pure state machine; `now` is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::BreakerPolicy;

/// What a caller may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Pass,
    /// Pass, and the outcome decides whether the breaker closes.
    Probe,
    /// Not before this much time.
    Refuse {
        for_: Duration,
    },
}

/// What an operator sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    Closed,
    Open,
    HalfOpen,
}

impl State {
    /// The state's name, for the operator.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }

    /// The state in the metric: the higher, the worse.
    #[must_use]
    pub fn as_number(self) -> i64 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// How a request to the endpoint went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Success,
    Failure,
    /// The client went away or we gave up for a reason of our own: says nothing of the endpoint.
    Unknown,
}

/// One endpoint's breaker.
#[derive(Debug)]
pub struct Breaker {
    /// Moments of the latest failures, oldest first; never longer than the threshold.
    failures: VecDeque<Instant>,
    opened_at: Option<Instant>,
    probe_since: Option<Instant>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new()
    }
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new() -> Self {
        Self {
            failures: VecDeque::new(),
            opened_at: None,
            probe_since: None,
        }
    }

    /// Whether a request may go now. A `Probe` verdict reserves the only probe place.
    pub fn admit(&mut self, policy: BreakerPolicy, now: Instant) -> Verdict {
        let verdict = self.peek(policy, now);
        if verdict == Verdict::Probe {
            self.probe_since = Some(now);
        }
        verdict
    }

    /// The verdict that [`Breaker::admit`] would give, without reserving anything.
    #[must_use]
    pub fn peek(&self, policy: BreakerPolicy, now: Instant) -> Verdict {
        let open_for = Duration::from_secs(policy.open_s.into());
        let Some(opened_at) = self.opened_at else {
            return Verdict::Pass;
        };
        let left = open_for.saturating_sub(now.saturating_duration_since(opened_at));
        if !left.is_zero() {
            return Verdict::Refuse { for_: left };
        }
        match self.probe_since {
            // A probe that never reports must not keep the endpoint out for ever.
            Some(since) if now.saturating_duration_since(since) < open_for => Verdict::Refuse {
                for_: open_for - now.saturating_duration_since(since),
            },
            Some(_) | None => Verdict::Probe,
        }
    }

    /// Takes note of how an admitted request went.
    pub fn report(&mut self, policy: BreakerPolicy, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Success => {
                if self.opened_at.is_some() && self.probe_since.is_some() {
                    *self = Self::new();
                }
            }
            Outcome::Failure => self.fail(policy, now),
            Outcome::Unknown => self.probe_since = None,
        }
    }

    /// The state for display.
    #[must_use]
    pub fn state(&self, policy: BreakerPolicy, now: Instant) -> State {
        match self.peek(policy, now) {
            Verdict::Pass => State::Closed,
            Verdict::Probe => State::HalfOpen,
            Verdict::Refuse { .. } if self.probe_since.is_some() => State::HalfOpen,
            Verdict::Refuse { .. } => State::Open,
        }
    }

    fn fail(&mut self, policy: BreakerPolicy, now: Instant) {
        if self.opened_at.is_some() {
            self.opened_at = Some(now);
            self.probe_since = None;
            return;
        }
        let window = Duration::from_secs(policy.window_s.into());
        while self
            .failures
            .front()
            .is_some_and(|t| now.saturating_duration_since(*t) > window)
        {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        if self.failures.len() >= policy.failures.max(1) as usize {
            self.failures.clear();
            self.opened_at = Some(now);
            self.probe_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Breaker, Outcome, State, Verdict};
    use crate::kernel::clock::{Clock, UnixMs};
    use crate::upstream::BreakerPolicy;

    const POLICY: BreakerPolicy = BreakerPolicy {
        failures: 3,
        window_s: 900,
        open_s: 10,
    };

    fn start() -> Instant {
        Clock::manual(UnixMs(0)).0.instant()
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new();
        for _ in 0..3 {
            breaker.report(POLICY, Outcome::Failure, now);
        }
        breaker
    }

    #[test]
    fn opens_at_the_threshold_and_not_before() {
        let now = start();
        let mut breaker = Breaker::new();
        for _ in 0..2 {
            breaker.report(POLICY, Outcome::Failure, now);
            assert_eq!(breaker.admit(POLICY, now), Verdict::Pass);
        }
        breaker.report(POLICY, Outcome::Failure, now);
        assert_eq!(
            breaker.admit(POLICY, now),
            Verdict::Refuse {
                for_: Duration::from_secs(10)
            }
        );
    }

    #[test]
    fn failures_older_than_the_window_do_not_count() {
        let now = start();
        let mut breaker = Breaker::new();
        breaker.report(POLICY, Outcome::Failure, now);
        breaker.report(POLICY, Outcome::Failure, now);
        let later = now + Duration::from_secs(901);
        breaker.report(POLICY, Outcome::Failure, later);
        assert_eq!(breaker.admit(POLICY, later), Verdict::Pass);
    }

    #[test]
    fn one_probe_at_a_time_and_its_outcome_decides() {
        let now = start();
        let mut breaker = opened(now);
        let later = now + Duration::from_secs(10);
        assert_eq!(breaker.admit(POLICY, later), Verdict::Probe);
        assert!(matches!(
            breaker.admit(POLICY, later),
            Verdict::Refuse { .. }
        ));
        assert_eq!(breaker.state(POLICY, later), State::HalfOpen);
        breaker.report(POLICY, Outcome::Failure, later);
        assert_eq!(breaker.state(POLICY, later), State::Open);

        let again = later + Duration::from_secs(10);
        assert_eq!(breaker.admit(POLICY, again), Verdict::Probe);
        breaker.report(POLICY, Outcome::Success, again);
        assert_eq!(breaker.state(POLICY, again), State::Closed);
    }

    #[test]
    fn a_probe_that_never_reports_frees_its_place() {
        let now = start();
        let mut breaker = opened(now);
        let probe = now + Duration::from_secs(10);
        assert_eq!(breaker.admit(POLICY, probe), Verdict::Probe);
        assert_eq!(
            breaker.admit(POLICY, probe + Duration::from_secs(10)),
            Verdict::Probe
        );
    }
}
