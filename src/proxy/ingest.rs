//! The webhook lane: read, verify, reserve, deliver, commit. The request ends at the edge; what goes
//! to the API is a request of the edge's own, and only after every check has passed.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::Full;
use pingora::proxy::Session;

use super::ctx::{Admitted, Ctx};
use super::shared::Shared;
use super::{attempt, body};
use crate::cache::key;
use crate::cache::phases::Change;
use crate::egress::{self, EgressError};
use crate::kernel::clock::UnixMs;
use crate::kernel::reject::{Code, Reject};
use crate::kernel::reply::Reply;
use crate::limit::Quota;
use crate::limit::key::Key;
use crate::webhook::delivery::Delivery;
use crate::webhook::replay::Arrival;
use crate::webhook::{Endpoint, Refusal, SignedParts, Verified, verify};

/// Largest answer of the API that is relayed to a provider.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The named limit for webhooks that fail verification, per address.
const FAILURES_CLASS: &str = "webhooks_failed";

/// Handles one webhook to its end.
pub async fn run(
    session: &mut Session,
    ctx: &mut Ctx,
    shared: &Shared,
    admitted: &Admitted,
    endpoint: &Endpoint,
) -> Result<Reply, Reject> {
    let result = handle(session, ctx, shared, admitted, endpoint).await;
    let outcome = match &result {
        Ok(_) => ctx.outcome.unwrap_or("answered"),
        Err(reject) => reject.label,
    };
    shared
        .metrics
        .webhooks
        .with_label_values(&[&endpoint.name, outcome])
        .inc();
    result
}

async fn handle(
    session: &mut Session,
    ctx: &mut Ctx,
    shared: &Shared,
    admitted: &Admitted,
    endpoint: &Endpoint,
) -> Result<Reply, Reject> {
    let received_at = shared.clock.unix();
    let failures = Failures::of(ctx, shared, admitted);
    let limits = body::Limits {
        bytes_max: endpoint.body_bytes_max,
        within: Duration::from_millis(endpoint.body_timeout_ms),
    };
    let declared = admitted.facts.content_length;
    let (body, _held) = body::read_whole(session, limits, declared, &shared.bodies).await?;
    let verified = check(session, shared, endpoint, admitted, &body)
        .map_err(|refusal| failures.refuse(refusal))?;
    let secret = [endpoint.name.as_ref(), verified.secret_name.as_ref()];
    shared
        .metrics
        .webhook_secret
        .with_label_values(&secret)
        .inc();

    let on_replay = endpoint.scheme.on_replay();
    let now = shared.clock.unix();
    let arrival = shared
        .replay
        .reserve(&endpoint.name, &verified, on_replay, now)
        .await;
    let reservation = match arrival.map_err(|refusal| failures.refuse(refusal))? {
        Arrival::Fresh(reservation) => reservation,
        Arrival::Duplicate => {
            ctx.outcome = Some("duplicate");
            return Ok(duplicate(&verified));
        }
    };
    // Dropped without a commit it gives the message free again, so that the provider's next attempt
    // is no replay.
    let parts = session.req_header();
    let content_type = parts.headers.get(CONTENT_TYPE).cloned();
    let event = Event {
        body,
        content_type,
        received_at,
    };
    let reply = deliver(ctx, shared, admitted, endpoint, &verified, event).await?;
    if reply.status.is_success() {
        if let Err(away) = reservation.commit(shared.clock.unix()).await {
            // It was applied, so the provider must not hear of a failure.
            tracing::warn!(endpoint = %endpoint.name, reason = %away, "an accepted webhook is not remembered yet");
        }
        ctx.outcome = Some("accepted");
    } else {
        // Not applied, so not remembered: the API judges the same bytes again.
        ctx.outcome = Some("unprocessable");
    }
    Ok(reply)
}

struct Event {
    body: Bytes,
    content_type: Option<HeaderValue>,
    received_at: UnixMs,
}

fn check(
    session: &Session,
    shared: &Shared,
    endpoint: &Endpoint,
    admitted: &Admitted,
    body: &[u8],
) -> Result<Verified, Refusal> {
    let parts = session.req_header();
    let signed = SignedParts {
        method: parts.method.as_str(),
        query: admitted.facts.query.as_deref().unwrap_or(""),
        headers: &parts.headers,
        body,
    };
    verify(endpoint, &signed, shared.clock.unix())
}

fn duplicate(verified: &Verified) -> Reply {
    let body = serde_json::json!({ "status": "duplicate", "id": verified.event_id.as_str() });
    Reply::json(StatusCode::OK, &body)
}

async fn deliver(
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

/// What fails verification is counted by address. What passes is not: a provider's burst from an
/// address that somebody else forges from must get through.
struct Failures<'a> {
    shared: &'a Shared,
    limit: Option<(std::sync::Arc<str>, Quota)>,
    key: Key,
}

impl<'a> Failures<'a> {
    fn of(ctx: &Ctx, shared: &'a Shared, admitted: &Admitted) -> Self {
        let class = ctx.live.config.classes.get(FAILURES_CLASS);
        let limit = class.map(|class| (class.name.clone(), class.quota));
        Self {
            shared,
            limit,
            key: Key::ip(admitted.facts.client_ip),
        }
    }

    /// The answer to a webhook that was refused: the refusal itself, or 429 once the address has had
    /// too many of them. Our own trouble is not the sender's failure.
    fn refuse(&self, refusal: Refusal) -> Reject {
        let ours = matches!(
            refusal,
            Refusal::InProgress | Refusal::StoreFull | Refusal::StoreAway | Refusal::NoActiveSecret
        );
        if let (false, Some((name, quota))) = (ours, &self.limit) {
            let taken = self.shared.limiter.take(name, *quota, &self.key);
            if let Some(seconds) = taken.retry_after_s {
                let reason = format!("{refusal}, as too many from this address before it");
                return Reject::new(Code::RateLimited, refusal.label(), reason)
                    .retry_after(seconds);
            }
        }
        refusal.into()
    }
}
