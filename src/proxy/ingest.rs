//! The webhook lane: read, verify, reserve, then keep (or pass on), commit. The request ends at the
//! edge; what goes to the API is a request of the edge's own, and only after every check has passed.
//!
//! Order of steps: body read whole → [`verify()`] → a handshake is answered at once → the books are lent → `reserve` → `keep` answers
//! after the fsync, `pass` with the API's verdict → `commit`. A reservation that is dropped gives the
//! message free, so that the provider's next attempt is no replay.

mod keep;
mod pass;

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use pingora::proxy::Session;

use super::body;
use super::ctx::{Admitted, Ctx};
use super::shared::Shared;
use crate::kernel::clock::UnixMs;
use crate::kernel::reject::{Code, Reject};
use crate::kernel::reply::Reply;
use crate::limit::Quota;
use crate::limit::key::Key;
use crate::webhook::books::{Away, Books};
use crate::webhook::inbox::{self, Unwritable};
use crate::webhook::replay::{Arrival, Reservation};
use crate::webhook::{Endpoint, Mode, Refusal, SignedParts, Verified, handshake, verify};

/// The named limit for webhooks that fail verification, per address.
const FAILURES_CLASS: &str = "webhooks_failed";
/// How long a webhook waits for books that are not open yet, as in an upgrade. Most providers wait as
/// long; for one that gives up sooner it is the same as a refusal, it comes again.
const BOOKS_WAIT: Duration = Duration::from_secs(8);
/// When a provider should come again after trouble of ours.
const TROUBLE_RETRY_S: u32 = 5;

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
    if session.req_header().method == Method::GET {
        ctx.outcome = Some("handshake");
        return challenge(admitted, endpoint, received_at);
    }
    // Counted from before the body is read: on the way out the books wait for it.
    let _seat = shared.books.enter();
    let failures = Failures::of(ctx, shared, admitted);
    let limits = body::Limits {
        bytes_max: endpoint.body_bytes_max,
        within: Duration::from_millis(endpoint.body_timeout_ms),
    };
    let declared = admitted.facts.content_length;
    let (body, _held) = body::read_whole(session, limits, declared, &shared.bodies).await?;
    let judged = judge(session, shared, admitted, endpoint, &body, &failures).await?;
    let verified = match judged {
        Judged::Event(verified) => verified,
        Judged::Handshake(reply) => {
            ctx.outcome = Some("handshake");
            return Ok(reply);
        }
    };
    let secret = [endpoint.name.as_ref(), verified.secret_name.as_ref()];
    shared
        .metrics
        .webhook_secret
        .with_label_values(&secret)
        .inc();
    let books = shared.books.lend(BOOKS_WAIT).await.map_err(closed)?;
    let (on_replay, now) = (endpoint.scheme.on_replay(), shared.clock.unix());
    let arrival = books
        .replay
        .reserve(&endpoint.name, &verified, on_replay, now)
        .await;
    let reservation = match arrival.map_err(|refusal| failures.refuse(refusal))? {
        Arrival::Fresh(reservation) => reservation,
        Arrival::Duplicate => {
            ctx.outcome = Some("duplicate");
            return Ok(answer("duplicate", &verified));
        }
    };
    let parts = session.req_header();
    let event = Event {
        content_type: parts.headers.get(CONTENT_TYPE).cloned(),
        body,
        received_at,
    };
    match endpoint.mode {
        Mode::Store => {
            let event = keep::event(endpoint, &verified, &parts.headers, event);
            store(shared, &books, reservation, event).await?;
            ctx.outcome = Some("accepted");
            Ok(answer("accepted", &verified))
        }
        Mode::Pass => {
            let reply = pass::deliver(ctx, shared, admitted, endpoint, &verified, event).await?;
            if reply.status.is_success() {
                remember(shared, &books, &reservation).await;
                commit(shared, reservation).await;
                ctx.outcome = Some("accepted");
            } else {
                // Not applied, so not remembered: the API judges the same bytes again.
                ctx.outcome = Some("unprocessable");
            }
            Ok(reply)
        }
    }
}

/// What a message turned out to be.
enum Judged {
    Event(Verified),
    /// The provider tries the URL out; nothing is kept or delivered.
    Handshake(Reply),
}

async fn judge(
    session: &Session,
    shared: &Shared,
    admitted: &Admitted,
    endpoint: &Endpoint,
    body: &[u8],
    failures: &Failures<'_>,
) -> Result<Judged, Reject> {
    let headers = &session.req_header().headers;
    let prepared = endpoint.scheme.prepare(headers, shared.clock.unix()).await;
    prepared.map_err(|refusal| failures.refuse(refusal))?;
    match check(session, shared, endpoint, admitted, body) {
        Ok(verified) => Ok(match handshake::answer(endpoint, &verified, body) {
            Some(reply) => Judged::Handshake(reply),
            None => Judged::Event(verified),
        }),
        Err(refusal) => {
            let Some((code, reply)) = handshake::code(endpoint, body) else {
                return Err(failures.refuse(refusal));
            };
            tracing::warn!(
                webhook.endpoint = %endpoint.name, code = code.reveal(),
                "an unsigned verification code has come; switch danger_clover_verification off once \
                 it is typed in"
            );
            Ok(Judged::Handshake(reply))
        }
    }
}

/// Returns once the event is on disk, with what must be remembered of it.
async fn store(
    shared: &Shared,
    books: &Books,
    reservation: Reservation,
    event: inbox::Event,
) -> Result<(), Reject> {
    let endpoint = event.endpoint.clone();
    let memories = reservation.memory(shared.clock.unix());
    let kept = books.inbox.append(event, memories).await;
    let id = kept.map_err(|error| unwritable(&error))?;
    tracing::debug!(inbox.id = %id, webhook.endpoint = %endpoint, "kept");
    commit(shared, reservation).await;
    Ok(())
}

/// What came, beside what was verified.
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

/// Some providers try a URL out with a GET before they use it.
fn challenge(admitted: &Admitted, endpoint: &Endpoint, now: UnixMs) -> Result<Reply, Reject> {
    let query = admitted.facts.query.as_deref().unwrap_or("");
    handshake::challenge(endpoint, query, now)
        .ok_or_else(|| Reject::new(Code::NotFound, "handshake", "a GET that is no challenge"))
}

fn answer(status: &str, verified: &Verified) -> Reply {
    let body = serde_json::json!({ "status": status, "id": verified.event_id.as_str() });
    Reply::json(StatusCode::OK, &body)
}

/// The event was accepted, so a store that cannot be told now changes nothing for the provider.
async fn commit(shared: &Shared, reservation: Reservation) {
    if let Err(error) = reservation.commit(shared.clock.unix()).await {
        tracing::warn!(%error, "an accepted webhook could not be marked as such yet");
    }
}

/// What was passed on is remembered over a restart. The API has applied it already: without a journal
/// it is the API's own dedupe that makes another delivery harmless.
async fn remember(shared: &Shared, books: &Books, reservation: &Reservation) {
    let memories = reservation.memory(shared.clock.unix());
    if let Err(error) = books.inbox.remember(memories).await {
        tracing::error!(%error, "a restart would forget a webhook that was passed on");
    }
}

fn closed(away: Away) -> Reject {
    let label = match away {
        Away::Opening => "inbox_opening",
        Away::Closed => "inbox_closed",
    };
    Reject::new(Code::Unavailable, label, away.to_string()).retry_after(TROUBLE_RETRY_S)
}

/// Never the provider's mistake, so never a 4xx.
fn unwritable(error: &Unwritable) -> Reject {
    let (code, label) = match error {
        Unwritable::Full { .. } => (Code::Overloaded, "inbox_full"),
        Unwritable::Failed(_) => (Code::Unavailable, "inbox_unwritable"),
    };
    Reject::new(code, label, error.to_string()).retry_after(TROUBLE_RETRY_S)
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
        if let (false, Some((name, quota))) = (refusal.is_ours(), &self.limit) {
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
