//! Attempts on the upstream: for the plain lane which endpoint next and whether there is another
//! attempt, for every lane what the outcome means for breaker and metric.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};

use super::ctx::Ctx;
use super::shared::Shared;
use crate::egress::EgressError;
use crate::kernel::reject::{Code, Reject};
use crate::plan::Then;
use crate::upstream::breaker::Outcome;
use crate::upstream::pool::Lease;
use crate::upstream::{peer, retry};

/// Leases an endpoint for the next attempt and makes it Pingora's peer.
pub(super) async fn next_peer(
    shared: &Shared,
    session: &Session,
    ctx: &mut Ctx,
) -> Result<HttpPeer, Reject> {
    let admitted = ctx.admitted.as_ref().ok_or_else(unplanned)?;
    let Then::Forward { upstream, .. } = &admitted.plan.then else {
        return Err(unplanned());
    };
    let pool = ctx.live.pool(upstream)?.clone();
    let policy = pool.policy();
    let random = &shared.random;
    if ctx.upstream.made == 0 {
        pool.count_request(shared.clock.instant());
    } else {
        let pause = retry::pause(policy.retry, ctx.upstream.made + 1, random.fraction());
        tokio::time::sleep(pause).await;
        shared
            .metrics
            .upstream_retries
            .with_label_values(&[upstream])
            .inc();
    }
    let now = shared.clock.instant();
    let lease = pool.pick(ctx.upstream.failed.as_ref(), random.bits(), now)?;
    let sends_body = !matches!(session.req_header().method, Method::GET | Method::HEAD);
    let body_ms = if sends_body {
        admitted.plan.body_timeout_ms
    } else {
        0
    };
    let address = lease.endpoint().address().clone();
    ctx.upstream.made += 1;
    ctx.upstream.lease = Some(lease);
    peer::peer(&address, &policy, Duration::from_millis(body_ms))
        .await
        .map_err(|error| {
            Reject::new(
                Code::BadGateway,
                "upstream_address",
                format!("{address}: {error}"),
            )
        })
}

/// What went wrong with an attempt, as far as it matters for another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Failed {
    /// The upstream never saw the request.
    Unsent,
    /// It may have seen the request; the client has no answer yet and the body can be sent again.
    Unanswered,
    /// Half an answer is out, the body is gone, or the time for an answer is up.
    ForGood,
    /// The client's body did not come in time: no fault of the upstream's.
    ClientSlow,
}

/// Judges an attempt that broke after the request was sent.
pub(super) fn judge(session: &mut Session, error: &Error) -> Failed {
    let timed_out = matches!(
        error.etype(),
        ErrorType::ReadTimedout | ErrorType::WriteTimedout
    );
    if timed_out && !session.as_downstream_mut().is_body_done() {
        Failed::ClientSlow
    } else if timed_out
        || session.response_written().is_some()
        || session.as_ref().retry_buffer_truncated()
    {
        // Asking a slow service once more helps nobody and doubles its load.
        Failed::ForGood
    } else {
        Failed::Unanswered
    }
}

/// Reports a failed attempt and says whether another one is in order.
pub(super) fn failed(shared: &Shared, ctx: &mut Ctx, method: &Method, how: Failed) -> bool {
    let now = shared.clock.instant();
    let Some(mut lease) = ctx.upstream.lease.take() else {
        return false;
    };
    if how == Failed::ClientSlow {
        lease.report(Outcome::Unknown, now);
        return false;
    }
    lease.report(Outcome::Failure, now);
    count(shared, &lease);
    let pool = lease.pool().clone();
    ctx.upstream.failed = Some(lease.endpoint().address().clone());
    let harmless = match how {
        Failed::Unsent => true,
        Failed::Unanswered => retry::is_repeatable(method),
        Failed::ForGood | Failed::ClientSlow => false,
    };
    harmless && ctx.upstream.made < pool.policy().retry.attempts_max && pool.may_retry(now)
}

/// Sends a request of the edge's own, resolves at the answer's header, and tells breaker and metric how
/// it went. Says nothing of an endpoint when it is dropped before.
pub(super) async fn send(
    shared: &Shared,
    lease: &mut Lease,
    request: Request<Full<Bytes>>,
    within: Duration,
) -> Result<Response<Incoming>, EgressError> {
    let answer = lease.endpoint().client().send(request, within).await;
    let outcome = match &answer {
        Ok(response) if !response.status().is_server_error() => Outcome::Success,
        Ok(_) | Err(_) => Outcome::Failure,
    };
    lease.report(outcome, shared.clock.instant());
    count(shared, lease);
    answer
}

/// Counts an attempt whose outcome was reported.
pub(super) fn count(shared: &Shared, lease: &Lease) {
    let outcome = match lease.outcome() {
        Some(Outcome::Failure) => "failure",
        Some(Outcome::Success | Outcome::Unknown) | None => "success",
    };
    let pool = lease.pool().policy();
    shared
        .metrics
        .upstream_requests
        .with_label_values(&[&pool.name, outcome])
        .inc();
}

fn unplanned() -> Reject {
    Reject::new(
        Code::Internal,
        "lane",
        "the upstream phases ran for a request without a pool",
    )
}
