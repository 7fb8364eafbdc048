//! One access line per request, and the request metrics. Never a credential, a body or a raw query:
//! a query may carry a ticket.

use pingora::Error;
use pingora::proxy::Session;

use super::ctx::Ctx;
use super::forward;
use super::shared::Shared;
use crate::kernel::facts::Protocol;
use crate::plan::Then;

/// Writes the line and counts the request.
pub(super) fn access(shared: &Shared, session: &Session, error: Option<&Error>, ctx: &Ctx) {
    let status = session.response_written().map_or(0, |r| r.status.as_u16());
    let method = session.req_header().method.as_str();
    let took = shared
        .clock
        .instant()
        .saturating_duration_since(ctx.started);
    let route = ctx.route();
    let known_method = known(method);
    let labels = [route, known_method, &status.to_string()];
    shared.metrics.requests.with_label_values(&labels).inc();
    let is_stream = ctx
        .admitted
        .as_ref()
        .is_some_and(|a| matches!(a.plan.then, Then::Subscribe(_)));
    if !is_stream {
        let seconds = shared.metrics.request_seconds.with_label_values(&[route]);
        seconds.observe(took.as_secs_f64());
    }
    let version = match ctx.protocol {
        Protocol::Http1 => "1.1",
        Protocol::Http2 => "2",
    };
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let bytes_sent = u64::try_from(session.body_bytes_sent()).unwrap_or(u64::MAX);
    let refusal = ctx.reject.as_ref();
    tracing::event!(
        target: "maitred::access",
        tracing::Level::INFO,
        request.id = ctx.request_id.as_str(),
        route.name = route,
        http.method = known_method,
        http.status = status,
        http.version = version,
        duration_ms = duration_ms,
        body.bytes_sent = bytes_sent,
        upstream.attempts = ctx.upstream.made,
        outcome = ctx.outcome.unwrap_or(""),
        refusal.code = refusal.map_or("", |r| r.code.row().slug),
        refusal.reason = refusal.map_or("", |r| r.reason.as_ref()),
        error = error.map(forward::describe).unwrap_or_default(),
        "request"
    );
}

/// Methods are a label, so strangers must not invent new ones.
fn known(method: &str) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|k| *k == method).unwrap_or("other")
}
