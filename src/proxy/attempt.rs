//! Attempts on the upstream for the plain lane: which endpoint next, what a failure means for the
//! breaker, and whether there is another attempt.

use std::time::Duration;

use http::Method;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;

use super::ctx::Ctx;
use super::shared::Shared;
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

/// Reports a failed attempt and says whether another one is in order. `sent` = the upstream may
/// have seen the request.
pub(super) fn failed(shared: &Shared, ctx: &mut Ctx, method: &Method, sent: bool) -> bool {
    let now = shared.clock.instant();
    let Some(mut lease) = ctx.upstream.lease.take() else {
        return false;
    };
    lease.report(Outcome::Failure, now);
    count(shared, &lease, "failure");
    let pool = lease.pool().clone();
    ctx.upstream.failed = Some(lease.endpoint().address().clone());
    let harmless = !sent || retry::is_repeatable(method);
    harmless && ctx.upstream.made < pool.policy().retry.attempts_max && pool.may_retry(now)
}

pub(super) fn count(shared: &Shared, lease: &Lease, outcome: &str) {
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
