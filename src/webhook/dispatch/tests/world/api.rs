//! A pool with a breaker, and an API behind it that fails in every way that counts.

use std::time::Duration;

use rand::Rng;
use tokio::sync::oneshot;

use super::{Fate, Shared, SimBreaker, World};
use crate::webhook::dispatch::{Answer, Answered, Deliver};
use crate::webhook::inbox::{Attempt, Claimed, Outcome};

/// How long a connection to an API that is down may take to fail.
const REFUSED_MS_MAX: u64 = 20;
/// A breaker's time until its probe.
const OPEN_FOR: Duration = Duration::from_secs(5);
/// Failures in a row that open it.
const OPENS_AFTER: u32 = 5;

/// The pool and the API behind it.
pub(in super::super) struct FlakyApi(pub(in super::super) Shared);

/// What the API will do with one request.
struct Course {
    works_for: Duration,
    has_effect: bool,
    /// `None` = the answer is lost.
    status: Option<u16>,
    retry_after: Option<Duration>,
}

impl Deliver for FlakyApi {
    async fn deliver(&self, claimed: &Claimed, within: Duration) -> Answer {
        let at = self.0.clock.unix();
        let number: usize = claimed.event.event_id.parse().unwrap();
        let (course, life) = {
            let mut world = self.0.look();
            if let Some(for_) = world.refusal(at.0) {
                world.check_away();
                (world.answers, world.away_at) = (0, at.0);
                return Answer::Away { for_ };
            }
            world.check_start(number, at.0);
            (world.course(number, at.0), world.life)
        };
        // The API goes on with what it has received, whatever becomes of the one who asked.
        let (answer, answered) = oneshot::channel();
        let shared = self.0.clone();
        let (status, asked) = (course.status, course.retry_after);
        tokio::spawn(async move {
            tokio::time::sleep(course.works_for).await;
            if course.has_effect {
                shared.look().known[number].effects += 1;
            }
            let _ = answer.send(status);
        });
        let outcome = match tokio::time::timeout(within, answered).await {
            Ok(Ok(Some(status))) => Outcome::Status(status),
            Ok(Ok(None) | Err(_)) => Outcome::NoAnswer("reset".into()),
            Err(_) => Outcome::NoAnswer("no answer in time".into()),
        };
        let now = self.0.clock.unix();
        let mut world = self.0.look();
        world.check_end(number, life);
        let good = matches!(outcome, Outcome::Status(..500));
        world.report(good, now.0);
        let retry_after = asked.filter(|_| outcome == Outcome::Status(429));
        if let Some(span) = retry_after {
            world.known[number].not_before = now.plus(span).0;
            (world.answers, world.away_at) = (0, now.0);
        } else if good {
            world.answers += 1;
        }
        let took_ms = u32::try_from(now.0 - at.0).unwrap();
        Answer::Answered(Answered {
            attempt: Attempt {
                at,
                took_ms,
                outcome,
            },
            retry_after,
        })
    }
}

impl World {
    /// How long the pool gives no lease; takes the probe's place where there is one.
    fn refusal(&mut self, now: i64) -> Option<Duration> {
        let until = self.breaker.open_until?;
        if now < until {
            return Some(Duration::from_millis(u64::try_from(until - now).unwrap()));
        }
        if self.breaker.is_probing {
            return Some(OPEN_FOR);
        }
        self.breaker.is_probing = true;
        None
    }

    fn report(&mut self, good: bool, now: i64) {
        let was_open = self.breaker.open_until.is_some();
        if good {
            self.breaker = SimBreaker::default();
            return;
        }
        self.breaker.failed_in_row += 1;
        self.breaker.is_probing = false;
        if was_open || self.breaker.failed_in_row >= OPENS_AFTER {
            let open_ms = i64::try_from(OPEN_FOR.as_millis()).unwrap();
            self.breaker.open_until = Some(now + open_ms);
        }
    }

    fn course(&mut self, number: usize, now: i64) -> Course {
        let latency = self.rng.random_range(1..=self.weather.latency_ms_max);
        let mut course = Course {
            works_for: Duration::from_millis(latency),
            has_effect: false,
            status: Some(200),
            retry_after: None,
        };
        if self.is_down(now) {
            let refused_ms = self.rng.random_range(0..REFUSED_MS_MAX);
            course.works_for = Duration::from_millis(refused_ms);
            course.status = None;
            return course;
        }
        let weather = self.weather.clone();
        let dice = self.rng.random_range(0..100);
        let lost = weather.failing + weather.throttling + weather.lost;
        match self.known[number].fate {
            Fate::Refused => course.status = Some(422),
            Fate::Cursed => course.status = Some(500),
            Fate::Fine if dice < weather.failing => course.status = Some(503),
            Fate::Fine if dice < weather.failing + weather.throttling => {
                course.status = Some(429);
                course.retry_after = Some(Duration::from_secs(self.rng.random_range(0..3)));
            }
            Fate::Fine => {
                course.has_effect = true;
                if dice < lost {
                    course.status = None;
                } else if dice < lost + weather.slow {
                    course.works_for += Duration::from_millis(weather.policy.attempt_timeout_ms);
                }
            }
        }
        course
    }
}
