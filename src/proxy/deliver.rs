//! Delivers what the inbox keeps: one request per attempt, to the pool that the event names. Whether
//! and when there is an attempt is decided by `webhook::dispatch`.
//!
//! The pool's breakers, health and bulkhead count here as for every other request, so there is one
//! opinion of an endpoint. A pool that gives no lease is away: nothing is sent and nothing counts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;

use super::attempt;
use super::shared::{Live, Shared};
use crate::cache::key;
use crate::cache::phases::Change;
use crate::egress::{self, EgressError};
use crate::kernel::clock::UnixMs;
use crate::upstream::pool::PickError;
use crate::webhook::dispatch::lane::HOLD_MAX;
use crate::webhook::dispatch::{Answer, Answered, Deliver, headers, retry_after};
use crate::webhook::inbox::{Attempt, Claimed, Outcome};

/// An answer's body is read no farther, only so that the connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// When to look again for a place in a full pool, and for a healthy endpoint.
const FULL_PAUSE: Duration = Duration::from_millis(100);
const UNHEALTHY_PAUSE: Duration = Duration::from_secs(1);

/// Sends events to pools.
pub struct Courier {
    shared: Arc<Shared>,
}

impl Courier {
    /// Uses the pools and the signer of whatever configuration is in force at each attempt.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Deliver for Courier {
    async fn deliver(&self, claimed: &Claimed, within: Duration) -> Answer {
        let shared = &*self.shared;
        let live = shared.live.load_full();
        let Some(pool) = live.pools.get(&claimed.event.destination) else {
            // A reload took the pool away; another one may bring it back.
            return Answer::Away { for_: HOLD_MAX };
        };
        let (at, started) = (shared.clock.unix(), shared.clock.instant());
        let mut lease = match pool.pick(None, shared.random.bits(), started) {
            Ok(lease) => lease,
            Err(error) => return away(error),
        };
        let elapsed = || shared.clock.instant().saturating_duration_since(started);
        let answer = match request(shared, &live, claimed, at) {
            Ok(request) => attempt::send(shared, &mut lease, request, within).await,
            Err(error) => Err(EgressError::Address {
                what: error.to_string(),
            }),
        };
        let now = shared.clock.unix();
        let (outcome, asked) = match answer {
            Ok(response) => {
                let asked = retry_after::read(response.headers(), now);
                let status = response.status().as_u16();
                forget(shared, claimed, &response);
                // The status is the API's word, and nobody wants the rest.
                let left = within.saturating_sub(elapsed());
                let _ = egress::read_whole(response.into_body(), ANSWER_BYTES_MAX, left).await;
                (Outcome::Status(status), asked)
            }
            Err(error) => (Outcome::NoAnswer(error.to_string()), None),
        };
        let took_ms = u32::try_from(elapsed().as_millis()).unwrap_or(u32::MAX);
        Answer::Answered(Answered {
            attempt: Attempt {
                at,
                took_ms,
                outcome,
            },
            retry_after: asked,
        })
    }
}

/// When to ask a pool again that gave no lease.
fn away(error: PickError) -> Answer {
    let for_ = match error {
        PickError::Full => FULL_PAUSE,
        PickError::NoneHealthy => UNHEALTHY_PAUSE,
        PickError::Open { for_s } => Duration::from_secs(for_s.into()),
    };
    Answer::Away { for_ }
}

fn request(
    shared: &Shared,
    live: &Live,
    claimed: &Claimed,
    now: UnixMs,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let event = &claimed.event;
    let span = shared.random.bits();
    let mut headers = headers(claimed, &live.deliveries, span, now);
    // hyper leaves it out for an empty body, and some servers want it for every POST.
    headers.insert(CONTENT_LENGTH, event.body.len().into());
    let mut request = Request::post(path(claimed)).body(Full::new(event.body.clone()))?;
    *request.headers_mut() = headers;
    Ok(request)
}

fn path(claimed: &Claimed) -> String {
    format!("/internal/webhooks/{}", claimed.event.endpoint)
}

/// An event may have changed what is cached; the API says so as it does for any mutation.
fn forget(shared: &Shared, claimed: &Claimed, response: &Response<Incoming>) {
    let target = key::target("", &path(claimed));
    let change = Change {
        method: &Method::POST,
        target: &target,
        principal: None,
        org: None,
    };
    shared
        .cache
        .forget(&change, response.status(), response.headers());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::away;
    use crate::upstream::pool::PickError;
    use crate::webhook::dispatch::Answer;

    #[test]
    fn a_pool_without_a_lease_is_away_and_says_for_how_long() {
        let for_ = |error| match away(error) {
            Answer::Away { for_ } => for_,
            Answer::Answered(answered) => panic!("{answered:?}"),
        };
        assert_eq!(for_(PickError::Open { for_s: 7 }), Duration::from_secs(7));
        assert!(for_(PickError::Full) < for_(PickError::NoneHealthy));
    }
}
