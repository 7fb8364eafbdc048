//! `mode = "pass"`: the event goes to the API while the provider waits, and the provider gets the
//! API's verdict.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::Full;

use super::Event;
use crate::cache::key;
use crate::cache::phases::Change;
use crate::egress::{self, EgressError};
use crate::kernel::reject::{Code, Reject};
use crate::kernel::reply::Reply;
use crate::proxy::attempt;
use crate::proxy::ctx::{Admitted, Ctx};
use crate::proxy::shared::Shared;
use crate::webhook::delivery::Delivery;
use crate::webhook::{Endpoint, Verified};

/// Largest answer of the API that is relayed to a provider.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Delivers once and gives the API's verdict.
pub(super) async fn deliver(
    ctx: &Ctx,
    shared: &Shared,
    admitted: &Admitted,
    endpoint: &Endpoint,
    verified: &Verified,
    event: Event,
) -> Result<Reply, Reject> {
    let pool = ctx.live.pool(&endpoint.upstream)?;
    let mut lease = pool.pick(None, shared.random.bits(), shared.clock.instant())?;
    let request = request(ctx, shared, endpoint, verified, event)?;
    let within = Duration::from_millis(pool.policy().first_byte_timeout_ms);
    let response = attempt::send(shared, &mut lease, request, within)
        .await
        .map_err(|error| undelivered(&error))?;

    let status = response.status();
    forget(shared, admitted, status, response.headers());
    let content_type = response.headers().get(CONTENT_TYPE).cloned();
    // Half an answer is no word to rely on; the API's dedupe makes the next delivery harmless.
    let body = egress::read_whole(response.into_body(), ANSWER_BYTES_MAX, within)
        .await
        .map_err(|error| undelivered(&error))?;
    relay(status, content_type, body)
}

/// An event may have changed what is cached; the API says so as it does for any mutation.
fn forget(shared: &Shared, admitted: &Admitted, status: StatusCode, headers: &HeaderMap) {
    let facts = &admitted.facts;
    let target = key::target(&facts.host, &facts.path);
    let change = Change {
        method: &facts.method,
        target: &target,
        principal: None,
        org: None,
    };
    shared.cache.forget(&change, status, headers);
}

fn request(
    ctx: &Ctx,
    shared: &Shared,
    endpoint: &Endpoint,
    verified: &Verified,
    event: Event,
) -> Result<Request<Full<Bytes>>, Reject> {
    let delivery = Delivery {
        event_id: verified.event_id.as_str(),
        provider: &endpoint.provider,
        received_at: event.received_at,
        attempt: 1,
        authenticated: verified.covers.as_str(),
        content_type: event.content_type.as_ref(),
        body: &event.body,
    };
    let mut headers = ctx.live.deliveries.headers(&delivery, shared.clock.unix());
    // hyper leaves it out for an empty body, and some servers want it for every POST.
    headers.insert(CONTENT_LENGTH, event.body.len().into());
    let mut request = Request::post(format!("/internal/webhooks/{}", endpoint.name))
        .body(Full::new(event.body))
        .map_err(|e| Reject::new(Code::Internal, "delivery", e.to_string()))?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// The API's verdict as the provider sees it. What is our trouble must never look like the
/// provider's mistake: some providers never send again after a 4xx.
fn relay(
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: Bytes,
) -> Result<Reply, Reject> {
    if status.is_success() || status == StatusCode::UNPROCESSABLE_ENTITY {
        let mut reply = Reply {
            status,
            headers: Vec::new(),
            body,
        };
        reply
            .headers
            .extend(content_type.map(|value| (CONTENT_TYPE, value)));
        return Ok(reply);
    }
    let reason = format!("the API answered {status}");
    Err(Reject::new(Code::Unavailable, "api", reason).retry_after(5))
}

fn undelivered(error: &EgressError) -> Reject {
    let (code, label) = match error {
        EgressError::Timeout { .. } => (Code::GatewayTimeout, "upstream_timeout"),
        EgressError::Connect { .. } => (Code::Unavailable, "upstream_connect"),
        EgressError::Broken { .. } | EgressError::Address { .. } => (Code::BadGateway, "upstream"),
    };
    Reject::new(code, label, error.to_string()).retry_after(5)
}
