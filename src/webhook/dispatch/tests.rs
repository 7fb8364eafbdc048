mod driver;
mod outage;
mod sim;
mod world;

use std::sync::Arc;
use std::time::Duration;

use super::lane::{self, HOLD_MAX, HOLD_MIN, Lane, Sign, Turn};
use super::{Answer, Answered, EndpointPolicy, Policy, verdict};
use crate::kernel::clock::{Clock, UnixMs};
use crate::webhook::inbox::{Attempt, Claimed, DeadReason, EntryId, Event, Outcome, Settlement};

const NOW: UnixMs = UnixMs(1_700_000_000_000);
const MINUTE_MS: i64 = 60_000;

/// A claimed event that was never tried.
pub(super) fn claimed(id: u64, order_key: Option<&str>) -> Claimed {
    Claimed {
        id: EntryId(id),
        event: Arc::new(Event {
            endpoint: "billing".into(),
            provider: "chefcloud".into(),
            destination: "api".into(),
            event_id: format!("evt_{id}").into(),
            received_at: NOW,
            content_type: None,
            headers: Vec::new(),
            authenticated: "body".into(),
            traceparent: None,
            order_key: order_key.map(Arc::from),
            body: "{}".into(),
        }),
        attempts: 0,
        first_failed_at: None,
        patience_from: NOW,
    }
}

fn answered(at: UnixMs, outcome: Outcome) -> Answered {
    Answered {
        attempt: Attempt {
            at,
            took_ms: 0,
            outcome,
        },
        retry_after: None,
    }
}

fn status(status: u16) -> Outcome {
    Outcome::Status(status)
}

fn due(settlement: &Settlement) -> (i64, bool) {
    match settlement {
        Settlement::Retry {
            due, yield_order, ..
        } => (due.0 - NOW.0, *yield_order),
        other @ (Settlement::Delivered(_) | Settlement::Dead { .. } | Settlement::Unclaim) => {
            panic!("{other:?}")
        }
    }
}

fn reason(settlement: &Settlement) -> Option<DeadReason> {
    match settlement {
        Settlement::Dead { reason, .. } => Some(*reason),
        Settlement::Delivered(_) | Settlement::Retry { .. } | Settlement::Unclaim => None,
    }
}

#[test]
fn what_each_status_means() {
    let policy = Policy::default();
    let of = |outcome| verdict::judge(&claimed(1, None), answered(NOW, outcome), &policy, 0.5);
    for code in [200, 202, 204, 299] {
        assert!(
            matches!(of(status(code)), Settlement::Delivered(_)),
            "{code}"
        );
    }
    for code in [400, 401, 404, 409, 410, 422, 499] {
        assert_eq!(
            reason(&of(status(code))),
            Some(DeadReason::Refused),
            "{code}"
        );
    }
    for code in [301, 304, 408, 425, 429, 500, 502, 503, 504, 599] {
        assert_eq!(due(&of(status(code))), (5_000, false), "{code}");
    }
    assert_eq!(due(&of(Outcome::NoAnswer("reset".into()))), (5_000, false));
}

#[test]
fn what_the_api_asks_for_is_the_least_wait() {
    let policy = Policy::default();
    let mut throttled = answered(NOW, status(429));
    throttled.retry_after = Some(Duration::from_secs(30));
    let settled = verdict::judge(&claimed(1, None), throttled.clone(), &policy, 0.5);
    assert_eq!(due(&settled).0, 30_000);
    throttled.retry_after = Some(Duration::from_secs(1));
    let settled = verdict::judge(&claimed(1, None), throttled, &policy, 0.5);
    assert_eq!(due(&settled).0, 5_000, "the longer one counts");
}

#[test]
fn the_last_attempt_is_the_last() {
    let policy = Policy::default();
    let mut claimed = claimed(1, None);
    claimed.attempts = 8;
    let judge =
        |claimed: &Claimed| verdict::judge(claimed, answered(NOW, status(500)), &policy, 0.5);
    assert_eq!(reason(&judge(&claimed)), None);
    claimed.attempts = 9;
    assert_eq!(
        reason(&judge(&claimed)),
        Some(DeadReason::AttemptsExhausted)
    );
}

#[test]
fn the_time_is_used_to_its_end_and_not_beyond() {
    let policy = Policy::default();
    let day_ms = i64::from(policy.age_max_s) * 1_000;
    let mut claimed = claimed(1, None);
    claimed.attempts = 7;
    claimed.first_failed_at = Some(UnixMs(NOW.0 - day_ms + MINUTE_MS));
    let late = verdict::judge(&claimed, answered(NOW, status(500)), &policy, 0.9);
    assert_eq!(due(&late).0, MINUTE_MS, "one attempt when the time is up");
    claimed.first_failed_at = Some(UnixMs(NOW.0 - day_ms));
    let over = verdict::judge(&claimed, answered(NOW, status(500)), &policy, 0.9);
    assert_eq!(reason(&over), Some(DeadReason::TooOld));

    claimed.first_failed_at = Some(UnixMs(NOW.0 - day_ms + MINUTE_MS));
    let mut refused = answered(NOW, status(503));
    refused.retry_after = Some(Duration::from_secs(61));
    let beyond = verdict::judge(&claimed, refused, &policy, 0.0);
    assert_eq!(
        reason(&beyond),
        Some(DeadReason::TooOld),
        "no attempt is allowed in time"
    );
}

#[test]
fn an_event_that_waited_for_its_first_attempt_is_not_too_old() {
    let policy = Policy::default();
    let after_days = |days: i64| {
        let later = UnixMs(NOW.0 + days * 86_400_000);
        let answered = answered(later, status(500));
        reason(&verdict::judge(&claimed(1, None), answered, &policy, 0.5))
    };
    assert_eq!(after_days(2), None);
    // There is an end to that, too.
    assert_eq!(after_days(3), Some(DeadReason::TooOld));
}

/// Attempts of an event that always fails: when each is made, in seconds, and whether it yielded.
fn fate(
    policy: &Policy,
    order_key: Option<&str>,
    fraction: f64,
) -> (Vec<i64>, Option<i64>, Option<DeadReason>) {
    let mut claimed = claimed(1, order_key);
    let (mut at, mut times, mut yielded) = (NOW, Vec::new(), None);
    loop {
        let settled = verdict::judge(&claimed, answered(at, status(500)), policy, fraction);
        times.push((at.0 - NOW.0) / 1_000);
        if let Some(reason) = reason(&settled) {
            return (times, yielded, Some(reason));
        }
        let (due, yields) = due(&settled);
        if yields && yielded.is_none() {
            yielded = Some((at.0 - NOW.0) / 1_000);
        }
        claimed.attempts += 1;
        claimed.first_failed_at.get_or_insert(at);
        at = UnixMs(NOW.0 + due);
    }
}

#[test]
fn ten_attempts_span_most_of_a_day() {
    let policy = Policy::default();
    let (times, _, reason) = fate(&policy, None, 0.5);
    let documented = [0, 5, 25, 105, 425, 1_705, 6_825, 24_825, 42_825, 60_825];
    assert_eq!(times, documented);
    assert_eq!(reason, Some(DeadReason::AttemptsExhausted));
    let (times, _, _) = fate(&policy, None, 0.99);
    assert_eq!(times.last(), Some(&86_400), "the day is not exceeded");
}

#[test]
fn the_head_of_a_key_yields_when_its_time_is_up_and_is_tried_then() {
    let mut policy = Policy::default();
    assert_eq!(
        fate(&policy, Some("k"), 0.5).1,
        None,
        "without a time-out it keeps its place"
    );
    let yields = EndpointPolicy {
        order_timeout_s: Some(300.try_into().unwrap()),
    };
    policy.endpoints.insert("billing".into(), yields);
    let (times, yielded, _) = fate(&policy, Some("k"), 0.99);
    assert_eq!(yielded, Some(300));
    assert!(times.contains(&300), "{times:?}");
    assert_eq!(
        fate(&policy, None, 0.99).1,
        None,
        "an unordered event holds back nobody"
    );

    let mut throttled = answered(NOW, status(429));
    throttled.retry_after = Some(Duration::from_secs(301));
    let settled = verdict::judge(&claimed(1, Some("k")), throttled, &policy, 0.5);
    assert_eq!(
        due(&settled),
        (301_000, true),
        "no attempt could be made in time"
    );
}

fn start() -> std::time::Instant {
    Clock::manual(NOW).0.instant()
}

/// Ends everything in flight with `sign`, then fills up again; how many are in flight now.
fn round(lane: &mut Lane, sign: Sign, policy: &Policy, now: std::time::Instant) -> usize {
    for _ in 0..lane.in_flight() {
        lane.ended(sign, policy, now);
    }
    fill(lane, policy, now)
}

fn fill(lane: &mut Lane, policy: &Policy, now: std::time::Instant) -> usize {
    if let Turn::Claim(count) = lane.turn(policy, now) {
        lane.started(count, policy, now);
    }
    lane.in_flight()
}

#[test]
fn a_destination_starts_slowly_doubles_and_falls_back() {
    let policy = Policy {
        rate_max: 1_000_000,
        ..Policy::default()
    };
    let now = start();
    let mut lane = Lane::new(now);
    assert_eq!(fill(&mut lane, &policy, now), 4);
    let widths: Vec<_> = (0..8)
        .map(|_| round(&mut lane, Sign::AtWork, &policy, now))
        .collect();
    assert_eq!(widths, [8, 16, 32, 64, 64, 64, 64, 64]);
    // One that fails alone costs nothing; a whole round that fails ends at a few.
    lane.ended(Sign::Failed, &policy, now);
    lane.ended(Sign::AtWork, &policy, now);
    assert_eq!(lane.width(&policy), 64);
    assert_eq!(round(&mut lane, Sign::Failed, &policy, now), 4);
}

#[test]
fn while_the_destination_is_away_nothing_is_claimed_then_one_probe() {
    let policy = Policy::default();
    let now = start();
    let mut lane = Lane::new(now);
    fill(&mut lane, &policy, now);
    round(&mut lane, Sign::AtWork, &policy, now);
    round(&mut lane, Sign::AtWork, &policy, now);
    assert_eq!(
        round(&mut lane, Sign::Away(Duration::from_secs(10)), &policy, now),
        0
    );
    let back = now + Duration::from_secs(10);
    assert_eq!(lane.turn(&policy, now), Turn::Wait { until: Some(back) });
    assert_eq!(fill(&mut lane, &policy, back), 1);
    assert_eq!(
        lane.turn(&policy, back),
        Turn::Wait { until: None },
        "one probe at a time"
    );

    lane.ended(Sign::Away(Duration::from_secs(3_600)), &policy, back);
    assert_eq!(
        lane.turn(&policy, back),
        Turn::Wait {
            until: Some(back + HOLD_MAX)
        }
    );
    let mut lane = Lane::new(now);
    fill(&mut lane, &policy, now);
    lane.ended(Sign::Throttled(Duration::ZERO), &policy, now);
    assert_eq!(
        lane.turn(&policy, now),
        Turn::Wait {
            until: Some(now + HOLD_MIN)
        }
    );
}

#[test]
fn no_more_start_than_the_rate_allows() {
    let policy = Policy {
        rate_max: 100,
        ..Policy::default()
    };
    let begin = start();
    let mut lane = Lane::new(begin);
    let mut started = 0;
    for ms in 0..10_000u64 {
        let now = begin + Duration::from_millis(ms);
        let before = lane.in_flight();
        started += fill(&mut lane, &policy, now) - before;
        (0..lane.in_flight()).for_each(|_| lane.ended(Sign::AtWork, &policy, now));
    }
    assert!((1_000..=1_010).contains(&started), "{started} in 10 s");
}

#[test]
fn after_stop_nothing_is_claimed() {
    let (policy, now) = (Policy::default(), start());
    let mut lane = Lane::new(now);
    lane.stop();
    assert_eq!(lane.turn(&policy, now), Turn::Wait { until: None });
}

#[test]
fn what_an_answer_says_of_the_destination() {
    let of = |outcome, retry_after| {
        let mut answered = answered(NOW, outcome);
        answered.retry_after = retry_after;
        lane::sign(&Answer::Answered(answered))
    };
    let asked = Some(Duration::from_secs(7));
    assert_eq!(of(status(204), None), Sign::AtWork);
    assert_eq!(of(status(404), asked), Sign::AtWork);
    assert_eq!(of(status(500), asked), Sign::Failed);
    assert_eq!(of(status(429), None), Sign::Failed);
    assert_eq!(
        of(status(429), asked),
        Sign::Throttled(Duration::from_secs(7))
    );
    assert_eq!(
        of(status(503), asked),
        Sign::Throttled(Duration::from_secs(7))
    );
    let away = Duration::from_secs(1);
    assert_eq!(lane::sign(&Answer::Away { for_: away }), Sign::Away(away));
}
