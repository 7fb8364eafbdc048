//! Decides how many events of one destination are claimed, and when: places, pace, ramp, holds, stop.
//! A state machine without I/O; whoever drives it claims, delivers and settles.
//!
//! Invariant: never more in flight than `concurrency_max`, and nothing is claimed that does not start
//! at once, so what is in memory is bounded by what is in flight.

use std::time::{Duration, Instant};

use super::pace::Pace;
use super::ramp::Ramp;
use super::verdict::{Meaning, meaning};
use super::{Answer, Policy};
use crate::webhook::inbox::Outcome;

/// Longest time without a try, whatever the destination said: a reload may have brought it back.
pub const HOLD_MAX: Duration = Duration::from_secs(60);
/// Shortest time between two tries on a destination that takes nothing.
pub const HOLD_MIN: Duration = Duration::from_millis(50);
/// Claimed at once; more come with the next turn.
const CLAIM_MAX: usize = 256;

/// What to do now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Turn {
    /// Claim up to so many and start each at once.
    Claim(usize),
    /// Nothing before this moment, or before an attempt ends.
    Wait { until: Option<Instant> },
}

/// What an attempt said of its destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sign {
    /// It is at work, whether or not it liked the event.
    AtWork,
    Failed,
    /// It asked to be left alone for so long.
    Throttled(Duration),
    /// It takes nothing for about so long; nothing was sent.
    Away(Duration),
}

/// One destination.
#[derive(Clone, Debug)]
pub struct Lane {
    ramp: Ramp,
    pace: Pace,
    held_until: Option<Instant>,
    in_flight: usize,
    is_stopping: bool,
}

impl Lane {
    /// A lane that has to find out what its destination can take.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            ramp: Ramp::new(),
            pace: Pace::new(now),
            held_until: None,
            in_flight: 0,
            is_stopping: false,
        }
    }

    /// What to do now.
    #[must_use]
    pub fn turn(&self, policy: &Policy, now: Instant) -> Turn {
        if self.is_stopping {
            return Turn::Wait { until: None };
        }
        if let Some(until) = self.held_until.filter(|until| *until > now) {
            return Turn::Wait { until: Some(until) };
        }
        let width = self.width(policy);
        if self.in_flight >= width {
            return Turn::Wait { until: None };
        }
        let paced = self.pace.room(policy.rate_max, now);
        match paced.min(width - self.in_flight).min(CLAIM_MAX) {
            0 => Turn::Wait {
                until: Some(self.pace.ready_at(policy.rate_max)),
            },
            room => Turn::Claim(room),
        }
    }

    /// `count` attempts start.
    pub fn started(&mut self, count: usize, policy: &Policy, now: Instant) {
        self.in_flight += count;
        self.pace.take(count, policy.rate_max, now);
        debug_assert!(self.in_flight <= policy.concurrency_max.max(1) as usize);
    }

    /// An attempt ended.
    pub fn ended(&mut self, sign: Sign, policy: &Policy, now: Instant) {
        debug_assert!(self.in_flight > 0);
        self.in_flight = self.in_flight.saturating_sub(1);
        match sign {
            Sign::AtWork => self.ramp.answered(policy.concurrency_max),
            Sign::Failed => self.ramp.failed(),
            Sign::Throttled(span) | Sign::Away(span) => {
                self.ramp.restart();
                let until = now + span.clamp(HOLD_MIN, HOLD_MAX);
                self.held_until = Some(self.held_until.map_or(until, |held| held.max(until)));
            }
        }
    }

    /// An attempt ended for a reason of ours; it says nothing of the destination.
    pub fn abandoned(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Claims nothing any more.
    pub fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// Attempts in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Attempts at a time, as things stand.
    #[must_use]
    pub fn width(&self, policy: &Policy) -> usize {
        self.ramp.width(policy.concurrency_max) as usize
    }
}

/// What an answer says of its destination.
#[must_use]
pub fn sign(answer: &Answer) -> Sign {
    let answered = match answer {
        Answer::Away { for_ } => return Sign::Away(*for_),
        Answer::Answered(answered) => answered,
    };
    match (meaning(&answered.attempt.outcome), answered.retry_after) {
        (Meaning::Delivered | Meaning::Refused, _) => Sign::AtWork,
        (Meaning::Failed, Some(span)) if is_throttle(&answered.attempt.outcome) => {
            Sign::Throttled(span)
        }
        (Meaning::Failed, _) => Sign::Failed,
    }
}

/// The two statuses whose `Retry-After` speaks of the service and not of the one request.
fn is_throttle(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Status(429 | 503))
}
