//! The stream lane: admission, one upstream leg per client, heartbeats between events, and an end
//! that the client is told about. Nothing is buffered: the next piece is read from the upstream when
//! the last one is on the client's socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, TRANSFER_ENCODING};
use http::{HeaderName, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use prometheus::IntGauge;
use tokio::time::{Instant, sleep_until};

use super::ctx::{Admitted, Ctx};
use super::shared::Shared;
use super::{attempt, forward, reply};
use crate::egress;
use crate::kernel::facts::Protocol;
use crate::kernel::header::{LAST_EVENT_ID, X_MAITRED_IDENTITY, X_REQUEST_ID};
use crate::kernel::principal::Principal;
use crate::kernel::reject::{Code, Reject};
use crate::kernel::reply::Reply;
use crate::limit::Quota;
use crate::limit::concurrency::Permit;
use crate::limit::key::Key;
use crate::stream::Policy;
use crate::stream::frame::{self, Boundary};
use crate::stream::pace::{self, Due, End, Pace};

/// Longest `Last-Event-ID` passed on.
const LAST_EVENT_ID_BYTES_MAX: usize = 256;
/// Largest body relayed when the upstream refuses the stream.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// What became of the request.
pub enum Served {
    /// The stream was carried to its end; nothing is left to write.
    Stream,
    /// The upstream did not open a stream; this is its answer.
    Refused(Reply),
}

/// Carries one stream from admission to its end.
pub async fn run(
    session: &mut Session,
    ctx: &mut Ctx,
    shared: &Shared,
    admitted: &Admitted,
    policy: &Policy,
) -> Result<Served, Reject> {
    let caller = admitted.caller.as_ref().ok_or_else(|| {
        Reject::new(
            Code::Unauthenticated,
            "anonymous",
            "streams are for known callers",
        )
    })?;
    if session.req_header().method == Method::HEAD {
        // What a GET would begin with; a client that is gone by now needs no answer.
        let _ = open(session, ctx, policy, true).await;
        ctx.outcome = Some("head");
        return Ok(Served::Stream);
    }
    let _slot = enter(ctx, shared, caller, policy)?;
    let Some(upstream) = connect(session, ctx, shared, admitted, policy).await? else {
        ctx.outcome = Some("client-gone");
        return Ok(Served::Stream);
    };
    if !is_stream(&upstream) {
        return refused(upstream, ctx).await.map(Served::Refused);
    }
    let route = admitted.plan.name.clone();
    let _open = Open::new(shared.metrics.streams.with_label_values(&[&route]));
    let end = carry(session, ctx, shared, caller, policy, upstream.into_body()).await;
    shared
        .metrics
        .streams_closed
        .with_label_values(&[&route, end])
        .inc();
    ctx.outcome = Some(end);
    Ok(Served::Stream)
}

/// Counts a stream in while it is open, however it ends.
struct Open(IntGauge);

impl Open {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Connection rate first, then concurrency: a client that reconnects in a loop must not get past the
/// rate by giving its slot back each time.
fn enter(
    ctx: &mut Ctx,
    shared: &Shared,
    caller: &Principal,
    policy: &Policy,
) -> Result<Permit, Reject> {
    let minute = std::num::NonZeroU32::MIN.saturating_add(59);
    let quota = Quota {
        requests: policy.connects_per_min,
        window_s: minute,
    };
    let name: Arc<str> = Arc::from("stream-connects");
    let taken = shared
        .limiter
        .take(&name, quota, &Key::subject(&caller.subject));
    let refused = taken.retry_after_s;
    ctx.seen.limit = Some(taken);
    if let Some(seconds) = refused {
        let reason = "too many stream connections per minute";
        return Err(Reject::new(Code::RateLimited, "stream_connects", reason).retry_after(seconds));
    }
    let key = Key::subject(&caller.subject);
    Ok(shared
        .slots
        .acquire(&Arc::from("streams"), key, policy.concurrent_per_user)?)
}

/// `None` when the client left before the upstream answered.
async fn connect(
    session: &mut Session,
    ctx: &mut Ctx,
    shared: &Shared,
    admitted: &Admitted,
    policy: &Policy,
) -> Result<Option<Response<Incoming>>, Reject> {
    let pool = ctx.live.pool(&policy.upstream)?.clone();
    let mut lease = pool.pick(None, shared.random.bits(), shared.clock.instant())?;
    let request = request(session, ctx, shared, admitted)?;
    let within = Duration::from_millis(pool.policy().first_byte_timeout_ms);
    let answer = tokio::select! {
        answer = attempt::send(shared, &mut lease, request, within) => answer,
        _ = session.downstream_session.read_body_or_idle(true) => return Ok(None),
    };
    answer.map(Some).map_err(|error| match error {
        egress::EgressError::Timeout { .. } => {
            Reject::new(Code::GatewayTimeout, "upstream_timeout", error.to_string())
        }
        egress::EgressError::Connect { .. }
        | egress::EgressError::Broken { .. }
        | egress::EgressError::Address { .. } => {
            Reject::new(Code::BadGateway, "upstream", error.to_string()).retry_after(5)
        }
    })
}

fn request(
    session: &Session,
    ctx: &Ctx,
    shared: &Shared,
    admitted: &Admitted,
) -> Result<Request<Full<Bytes>>, Reject> {
    let facts = &admitted.facts;
    let target = match &facts.query {
        Some(query) => format!("{}?{query}", facts.path),
        None => facts.path.clone(),
    };
    let mut request = Request::get(target)
        .header(ACCEPT, "text/event-stream")
        .header(X_REQUEST_ID, facts.request_id.as_str())
        .body(Full::default())
        .map_err(|e| Reject::new(Code::BadRequest, "target", e.to_string()))?;
    let headers = request.headers_mut();
    let assertions = &ctx.live.assertions;
    if let Some(identity) = forward::identity(admitted, assertions, shared.clock.unix())? {
        headers.insert(X_MAITRED_IDENTITY, identity);
    }
    let last_id = session.req_header().headers.get(LAST_EVENT_ID);
    if let Some(id) = last_id.filter(|id| id.len() <= LAST_EVENT_ID_BYTES_MAX) {
        headers.insert(LAST_EVENT_ID, id.clone());
    }
    Ok(request)
}

fn is_stream(response: &Response<Incoming>) -> bool {
    let kind = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("");
    response.status() == StatusCode::OK && kind.starts_with("text/event-stream")
}

async fn refused(response: Response<Incoming>, ctx: &mut Ctx) -> Result<Reply, Reject> {
    ctx.outcome = Some("upstream-refused");
    let status = response.status();
    if status.is_server_error() {
        let reason = format!("the upstream answered {status}");
        return Err(Reject::new(Code::Unavailable, "api", reason).retry_after(5));
    }
    let told = |name: HeaderName| {
        let value = response.headers().get(&name).cloned();
        value.map(|value| (name, value))
    };
    let headers = [CONTENT_TYPE, RETRY_AFTER].into_iter().filter_map(told);
    let headers = headers.collect();
    let body = egress::read_whole(
        response.into_body(),
        REFUSAL_BYTES_MAX,
        Duration::from_secs(5),
    )
    .await;
    let body = body.map_err(|e| Reject::new(Code::BadGateway, "upstream", e.to_string()))?;
    Ok(Reply {
        status,
        headers,
        body,
    })
}

/// Why the pump stopped, and what the client hears of it.
enum Stop {
    ClientGone,
    SlowClient,
    UpstreamEnded,
    /// Time is over, between two events.
    Goodbye(&'static str),
    /// Time is over within an event: a word of ours would become part of it, and a client drops what
    /// has no end.
    Silent(&'static str),
}

impl Stop {
    fn over(reason: &'static str, boundary: Boundary) -> Self {
        if boundary.is_open() {
            Self::Goodbye(reason)
        } else {
            Self::Silent(reason)
        }
    }
}

async fn carry(
    session: &mut Session,
    ctx: &mut Ctx,
    shared: &Shared,
    caller: &Principal,
    policy: &Policy,
    upstream: Incoming,
) -> &'static str {
    if open(session, ctx, policy, false).await.is_err() {
        return "client-gone";
    }
    let stop = pump(session, ctx, shared, caller, policy, upstream).await;
    match stop {
        Stop::ClientGone => "client-gone",
        Stop::SlowClient => "slow-client",
        Stop::UpstreamEnded => {
            let _ = session.write_response_body(None, true).await;
            "upstream-ended"
        }
        Stop::Silent(reason) => {
            let _ = session.write_response_body(None, true).await;
            reason
        }
        Stop::Goodbye(reason) => {
            let words = frame::goodbye(reason, pace::retry_ms(shared.random.fraction()));
            let _ = session.write_response_body(Some(words.into()), true).await;
            reason
        }
    }
}

/// Writes the header that a stream begins with; it `ends` there for HEAD.
async fn open(
    session: &mut Session,
    ctx: &Ctx,
    policy: &Policy,
    ends: bool,
) -> pingora::Result<()> {
    let mut header = ResponseHeader::build(StatusCode::OK, Some(16))?;
    header.insert_header(CONTENT_TYPE, "text/event-stream")?;
    header.insert_header(CACHE_CONTROL, "no-store")?;
    // Tells nginx-like hops in front of us not to buffer.
    header.insert_header("x-accel-buffering", "no")?;
    if ctx.protocol == Protocol::Http1 && !ends {
        // HTTP/1.0 knows no chunks: there, the stream ends with the connection.
        if session.req_header().version != Version::HTTP_10 {
            header.insert_header(TRANSFER_ENCODING, "chunked")?;
        }
        session.set_keepalive(None);
    }
    reply::decorate(&mut header, session, ctx);
    session.set_write_timeout(Some(Duration::from_millis(policy.write_timeout_ms)));
    session.write_response_header(Box::new(header), ends).await
}

async fn pump(
    session: &mut Session,
    ctx: &Ctx,
    shared: &Shared,
    caller: &Principal,
    policy: &Policy,
    mut upstream: Incoming,
) -> Stop {
    let clock = &shared.clock;
    let random = &shared.random;
    let mut boundary = Boundary::default();
    let (now, unix) = (clock.instant(), clock.unix());
    let mut pace = Pace::begin(policy, now, unix, caller.expires_at, random.fraction());
    let drained = shared.drain.stream_end(random.fraction());
    tokio::pin!(drained);
    let heartbeats = shared
        .metrics
        .stream_heartbeats
        .with_label_values(&[ctx.route()]);
    loop {
        let wake = sleep_until(Instant::from_std(pace.next()));
        let piece = tokio::select! {
            biased;
            () = &mut drained => return Stop::over("drain", boundary),
            frame = upstream.frame() => match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(_trailers) => continue,
                },
                Some(Err(_)) | None => return Stop::UpstreamEnded,
            },
            // Resolves when the client closes, resets, or sends what it should not.
            _ = session.downstream_session.read_body_or_idle(true) => return Stop::ClientGone,
            () = wake => match pace.due(clock.instant()) {
                None => continue,
                Some(Due::End(End::Lifetime)) => return Stop::over("lifetime", boundary),
                Some(Due::End(End::CredentialExpired)) => {
                    return Stop::over("credential-expired", boundary);
                }
                Some(Due::Heartbeat) => {
                    pace.sent(clock.instant());
                    if !boundary.is_open() {
                        continue;
                    }
                    heartbeats.inc();
                    Bytes::from_static(frame::HEARTBEAT)
                }
            },
        };
        boundary.feed(&piece);
        if let Err(error) = session.write_response_body(Some(piece), false).await {
            let slow = *error.etype() == pingora::ErrorType::WriteTimedout;
            return if slow {
                Stop::SlowClient
            } else {
                Stop::ClientGone
            };
        }
        pace.sent(clock.instant());
    }
}
