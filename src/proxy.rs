//! The only `ProxyHttp`. It sequences the features and decides nothing itself: the order of checks is
//! in [`admit`], each lane has a file, and every phase here is a few lines of delegation.
//!
//! Order of steps: `early_request_filter` (deadline off, protocol) → `request_filter` (facts, admit,
//! then the lane) → for plain requests cache phases, `upstream_peer`, header filters → `logging`.

pub mod admit;
pub mod body;
pub mod builtin;
pub mod cached;
pub mod cors;
pub mod ctx;
pub mod deliver;
pub mod facts;
pub mod fields;
pub mod forward;
pub mod ingest;
pub mod reply;
pub mod shared;
pub mod subscribe;

mod attempt;
mod log;
mod redirect;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::cache::key::HashBinary;
use pingora::cache::{CacheKey, CacheMeta, CachePhase, ForcedFreshness, HitHandler, RespCacheable};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};

use self::admit::{Charge, Verdict};
use self::attempt::Failed;
use self::ctx::{Admitted, Attempts, Ctx, Seen};
use self::facts::Connection;
use self::shared::Shared;
use crate::cache::phases;
use crate::guard;
use crate::kernel::facts::{Protocol, Scheme};
use crate::kernel::header::X_REQUEST_ID;
use crate::kernel::id::RequestId;
use crate::kernel::reject::Reject;
use crate::listener::guarded;
use crate::plan::Then;
use crate::upstream::breaker::Outcome;

/// What a listener serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Every route.
    Routes(Scheme),
    /// 308 to https; health endpoints are answered in place.
    Redirect,
}

/// The proxy behind one listener.
pub struct Edge {
    pub shared: Arc<Shared>,
    pub role: Role,
}

impl Edge {
    fn scheme(&self) -> Scheme {
        match self.role {
            Role::Routes(scheme) => scheme,
            Role::Redirect => Scheme::Http,
        }
    }

    /// How long the connection may stand still: until its next request (not at all on the way out),
    /// or while the client takes nothing of a response.
    fn keep_alive(&self, session: &mut Session, ctx: &Ctx) {
        let config = &ctx.live.config;
        let policy = match self.scheme() {
            Scheme::Https => config.https.as_ref().map(|(policy, _)| policy),
            Scheme::Http => config.http.as_ref().map(|http| &http.listener),
        };
        let kept_ms = policy.map(|policy| policy.keepalive_timeout_ms);
        session.set_write_timeout(kept_ms.map(Duration::from_millis));
        if !self.shared.drain.may_keep_alive() {
            session.set_keepalive(None);
        } else if let (Some(kept_ms), true) = (kept_ms, session.get_keepalive().is_some()) {
            session.set_keepalive(Some(kept_ms.div_ceil(1000)));
        }
    }

    /// Facts, checks, lane. `Ok(false)` sends the request on to the upstream phases.
    async fn serve(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let served = match self.admit(session, ctx).await {
            Ok(Verdict::Admitted(admitted)) => {
                let admitted = Arc::new(admitted);
                ctx.admitted = Some(admitted.clone());
                self.lane(session, ctx, &admitted).await
            }
            Ok(Verdict::Answered(reply)) => Ok(Some(reply)),
            Err(reject) => Err(reject),
        };
        match served {
            Ok(None) => Ok(ctx.outcome.is_some()),
            Ok(Some(reply)) => reply::write(session, ctx, &self.shared, reply)
                .await
                .map(|()| true),
            Err(reject) => reply::refuse(session, ctx, &self.shared, reject)
                .await
                .map(|()| true),
        }
    }

    async fn admit(&self, session: &Session, ctx: &mut Ctx) -> Result<Verdict, Reject> {
        let connection = connection(session, ctx);
        let policy = &ctx.live.config.guard;
        if let Some(http1) = session.as_downstream().as_http1() {
            guard::raw::check(&http1.get_headers_raw_bytes())?;
        }
        let facts = facts::read(
            session.req_header(),
            connection,
            ctx.request_id.clone(),
            policy,
            |sni, host| {
                self.shared
                    .tls
                    .as_ref()
                    .is_some_and(|t| t.certificates().same_leaf(sni, host))
            },
        )?;
        let facts = Arc::new(facts);
        if self.role == Role::Redirect
            && let Some(reply) = redirect::answer(&ctx.live, &facts)
        {
            return Ok(Verdict::Answered(reply));
        }
        let charge = if session.as_downstream().is_subrequest() {
            Charge::Waive
        } else {
            Charge::Take
        };
        let live = ctx.live.clone();
        let parts = session.req_header();
        admit::admit(&self.shared, &live, parts, facts, charge, &mut ctx.seen).await
    }

    /// `Ok(None)` = nothing left to write here: a stream was carried, or the upstream phases follow.
    async fn lane(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        admitted: &Admitted,
    ) -> Result<Option<crate::kernel::reply::Reply>, Reject> {
        let shared = &self.shared;
        match &admitted.plan.then {
            Then::Forward { .. } => Ok(None),
            Then::Reply(which) => Ok(Some(builtin::answer(*which, shared, &ctx.live))),
            Then::Ingest(endpoint) => {
                let lane = Box::pin(ingest::run(session, ctx, shared, admitted, endpoint));
                lane.await.map(Some)
            }
            Then::Subscribe(policy) => {
                let lane = Box::pin(subscribe::run(session, ctx, shared, admitted, policy));
                match lane.await? {
                    subscribe::Served::Stream => Ok(None),
                    subscribe::Served::Refused(reply) => Ok(Some(reply)),
                }
            }
        }
    }
}

fn connection(session: &Session, ctx: &Ctx) -> Connection {
    let known = guarded::connection(session);
    Connection {
        peer: known.map(|c| c.client.ip()),
        protocol: ctx.protocol,
        scheme: ctx.scheme,
        sni: known
            .and_then(|c| c.tls.as_ref())
            .and_then(|tls| tls.sni.clone()),
    }
}

/// Ends the upstream phases with a refusal, which `fail_to_proxy` writes.
fn fail(ctx: &mut Ctx, reject: Reject) -> Box<Error> {
    let status = ErrorType::HTTPStatus(reject.code.row().status);
    let error = Error::explain(status, reject.label);
    ctx.reject = Some(reject);
    error
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        let shared = &self.shared;
        Ctx {
            started: shared.clock.instant(),
            live: shared.live.load_full(),
            in_flight: shared.drain.enter(),
            request_id: shared.random.request_id(),
            protocol: Protocol::Http1,
            scheme: self.scheme(),
            admitted: None,
            seen: Seen::default(),
            reject: None,
            upstream: Attempts::default(),
            body_bytes: 0,
            cache: None,
            outcome: None,
        }
    }

    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {
        // No compression at the edge: it would buffer streams and change what was signed.
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        guarded::disarm(session);
        if session.downstream_session.is_http2() {
            ctx.protocol = Protocol::Http2;
            facts::h2_as_h1(session.req_header_mut())?;
        }
        let given = session
            .req_header()
            .headers
            .get(X_REQUEST_ID)
            .and_then(|v| v.to_str().ok());
        if let Some(id) = given.and_then(RequestId::parse) {
            ctx.request_id = id;
        }
        self.keep_alive(session, ctx);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        self.serve(session, ctx).await
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        _end: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let Some(admitted) = &ctx.admitted else {
            return Ok(());
        };
        let plan = admitted.plan.clone();
        ctx.body_bytes += body.as_ref().map_or(0, |b| b.len() as u64);
        let took = self
            .shared
            .clock
            .instant()
            .saturating_duration_since(ctx.started);
        let within = Duration::from_millis(plan.body_timeout_ms);
        let reject = if ctx.body_bytes > plan.body_bytes_max as u64 {
            body::too_large(plan.body_bytes_max)
        } else if body.is_some() && took > within {
            body::too_slow(within)
        } else {
            return Ok(());
        };
        // The rest of this connection is a body that nobody reads.
        session.set_keepalive(None);
        Err(fail(ctx, reject))
    }

    fn request_cache_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        cached::enable(&self.shared, session, ctx);
        Ok(())
    }

    fn cache_key_callback(&self, _: &Session, ctx: &mut Ctx) -> Result<CacheKey> {
        cached::lookup_key(&self.shared, ctx)
    }

    async fn cache_hit_filter(
        &self,
        session: &mut Session,
        meta: &CacheMeta,
        found: &mut HitHandler,
        _is_fresh: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<ForcedFreshness>> {
        Ok(cached::hit(&self.shared, session, meta, found, ctx))
    }

    fn cache_vary_filter(
        &self,
        meta: &CacheMeta,
        _ctx: &mut Ctx,
        request: &RequestHeader,
    ) -> Option<HashBinary> {
        phases::vary(meta, request)
    }

    async fn proxy_upstream_filter(&self, _: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        match cached::may_fetch(ctx) {
            Ok(()) => Ok(true),
            Err(reject) => Err(fail(ctx, reject)),
        }
    }

    fn response_cache_filter(
        &self,
        _: &Session,
        response: &ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<RespCacheable> {
        Ok(cached::cacheable(&self.shared, response, ctx))
    }

    fn should_serve_stale(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        error: Option<&Error>,
    ) -> bool {
        let stale = phases::should_serve_stale(session.req_header(), error);
        if let (true, Some(_), Some(lease)) = (stale, error, &mut ctx.upstream.lease) {
            // The answer that is passed over is shown to no other filter.
            lease.report(Outcome::Failure, self.shared.clock.instant());
        }
        stale
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        match attempt::next_peer(&self.shared, session, ctx).await {
            Ok(peer) => Ok(Box::new(peer)),
            Err(reject) => {
                let mut error = fail(ctx, reject);
                // As for any error of the upstream's, a stale response may be served instead.
                error.as_up();
                Err(error)
            }
        }
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let Some(admitted) = ctx.admitted.clone() else {
            return Ok(());
        };
        let query = cached::fetch_starts(&self.shared, session, ctx);
        let query = query.or(admitted.facts.query.as_deref());
        let now = self.shared.clock.unix();
        let prepared = forward::request(upstream, &admitted, query, &ctx.live.assertions, now);
        session.set_read_timeout(Some(Duration::from_millis(admitted.plan.body_timeout_ms)));
        prepared.map_err(|reject| fail(ctx, reject))
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let now = self.shared.clock.instant();
        let outcome = if response.status.is_server_error() {
            Outcome::Failure
        } else {
            Outcome::Success
        };
        if let Some(lease) = &mut ctx.upstream.lease {
            lease.report(outcome, now);
        }
        forward::response(response);
        cached::upstream_response(&self.shared, session, response, ctx);
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        // Asked again: the way out may have begun while the upstream was at work.
        self.keep_alive(session, ctx);
        if session.cache.phase() == CachePhase::Stale {
            // Pingora closes the connection when a stored response covers an error up.
            session.set_keepalive(None);
        }
        cached::explain(&self.shared, session, response, ctx);
        reply::decorate(response, session, ctx);
        Ok(())
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Ctx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let method = session.req_header().method.clone();
        error.set_retry(attempt::failed(&self.shared, ctx, &method, Failed::Unsent));
        error
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Ctx,
        _client_reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("peer {peer}"));
        if *error.esource() != ErrorSource::Upstream {
            error.set_retry(false);
            return error;
        }
        let method = session.req_header().method.clone();
        let how = attempt::judge(session, &error);
        error.set_retry(attempt::failed(&self.shared, ctx, &method, how));
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Ctx,
    ) -> FailToProxy {
        let mut gone = FailToProxy {
            error_code: 0,
            can_reuse_downstream: false,
        };
        let body_pending = !session.as_downstream_mut().is_body_done();
        let reject = ctx
            .reject
            .take()
            .or_else(|| forward::refusal(error, body_pending));
        let Some(reject) = reject else { return gone };
        if session.response_written().is_some() {
            // Half an answer is out: all that is left is to break it off visibly.
            reply::note(ctx, &self.shared, &reject);
            ctx.reject = Some(reject);
            return gone;
        }
        gone.error_code = reject.code.row().status;
        // Pingora closes the connection after this; the answer says so.
        session.set_keepalive(None);
        // The client may be gone by now; the outcome is in the log either way.
        let _ = reply::refuse(session, ctx, &self.shared, reject).await;
        gone
    }

    fn suppress_error_log(&self, _: &Session, _: &Ctx, _: &Error) -> bool {
        // The access line says it once, with the request's id.
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Ctx,
        _: &Error,
        _: pingora::proxy::ProxyWarnLogContext,
    ) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        guarded::rearm(session);
        if let Some(mut lease) = ctx.upstream.lease.take() {
            let failed = error.is_some_and(|e| *e.esource() == ErrorSource::Upstream);
            let outcome = if failed {
                Outcome::Failure
            } else {
                Outcome::Unknown
            };
            lease.report(outcome, self.shared.clock.instant());
            attempt::count(&self.shared, &lease);
        }
        log::access(&self.shared, session, error, ctx);
    }
}
