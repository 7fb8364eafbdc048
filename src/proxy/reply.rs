//! Writes the edge's own answers, and the headers that every answer carries whoever wrote it.

use http::header::{CONTENT_LENGTH, SERVER, VARY};
use http::{HeaderName, HeaderValue};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::ctx::Ctx;
use super::shared::Shared;
use super::{body, cached, cors, fields};
use crate::kernel::facts::{Protocol, Scheme};
use crate::kernel::header;
use crate::kernel::reject::{Code, Reject};
use crate::kernel::reply::Reply;
use crate::limit;

/// Headers that tell strangers what runs behind the edge, or that are meant for the edge alone.
const INTERNAL: [HeaderName; 5] = [
    SERVER,
    HeaderName::from_static("x-powered-by"),
    header::CACHE_GROUPS,
    header::CACHE_GROUP_INVALIDATION,
    header::X_MAITRED_IDENTITY,
];

const SECURITY: [(HeaderName, HeaderValue); 4] = [
    (
        http::header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        http::header::X_FRAME_OPTIONS,
        HeaderValue::from_static("DENY"),
    ),
    (
        http::header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (
        http::header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
];

/// Room for what `decorate` adds, so that the map grows once.
const FIELDS_ADDED: usize = 16;

const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000; includeSubDomains");

/// Adds what every response carries and removes what must not leave.
pub fn decorate(response: &mut ResponseHeader, session: &Session, ctx: &Ctx) {
    fields::edit_response(response, |headers| {
        headers.reserve(FIELDS_ADDED);
        for name in &INTERNAL {
            headers.remove(name);
        }
        for (name, value) in SECURITY {
            headers.insert(name, value);
        }
        if ctx.scheme == Scheme::Https {
            headers.insert(http::header::STRICT_TRANSPORT_SECURITY, HSTS);
        }
        if let Ok(id) = HeaderValue::from_str(ctx.request_id.as_str()) {
            headers.insert(header::X_REQUEST_ID, id);
        }
        let cors = cors::response_headers(&ctx.live.config.cors, &session.req_header().headers);
        for (name, value) in cors {
            if name == VARY {
                // An upstream's own `Vary` stays.
                headers.append(name, value);
            } else {
                headers.insert(name, value);
            }
        }
        if let Some(decision) = &ctx.seen.limit {
            for (name, value) in limit::headers::of(decision) {
                headers.insert(name, value);
            }
        }
    });
}

/// Writes a whole answer of the edge's own.
pub async fn write(
    session: &mut Session,
    ctx: &Ctx,
    shared: &Shared,
    reply: Reply,
) -> pingora::Result<()> {
    let mut response = ResponseHeader::build(reply.status, Some(reply.headers.len() + 12))?;
    for (name, value) in reply.headers {
        response.append_header(name, value)?;
    }
    // A refusal on a cached route says what the cache did as well.
    cached::explain(shared, session, &mut response, ctx);
    decorate(&mut response, session, ctx);
    let bodiless = reply.status.is_informational() || reply.status == http::StatusCode::NO_CONTENT;
    if !bodiless {
        response.insert_header(CONTENT_LENGTH, reply.body.len())?;
    }
    // The cache turns a HEAD into a GET on its way to the upstream; the client asked for no body.
    let asked = ctx.admitted.as_ref().map(|a| &a.facts.method);
    let is_head = *asked.unwrap_or(&session.req_header().method) == http::Method::HEAD;
    let ends_here = bodiless || is_head || reply.body.is_empty();
    session
        .write_response_header(Box::new(response), ends_here)
        .await?;
    if !ends_here {
        session.write_response_body(Some(reply.body), true).await?;
    } else if ctx.protocol == Protocol::Http2 {
        // Pingora keeps to itself that the header was all, and a failed request's stream is then reset.
        session.write_response_body(None, true).await?;
    }
    Ok(())
}

/// Refuses the request, counts it, and remembers why for the operator.
pub async fn refuse(
    session: &mut Session,
    ctx: &mut Ctx,
    shared: &Shared,
    reject: Reject,
) -> pingora::Result<()> {
    note(ctx, shared, &reject);
    // After a framing error nobody knows where the next request would begin.
    if matches!(
        reject.code,
        Code::BadRequest | Code::RequestTimeout | Code::PayloadTooLarge
    ) {
        session.set_keepalive(None);
    }
    let reply = reject.to_reply(&ctx.request_id);
    let loses_answer = matches!(reject.code, Code::PayloadTooLarge | Code::RequestTimeout);
    ctx.reject = Some(reject);
    let written = write(session, ctx, shared, reply).await;
    if loses_answer {
        body::drain(session).await;
    }
    written
}

/// Counts a refusal and keeps it for the admin listener.
pub fn note(ctx: &Ctx, shared: &Shared, reject: &Reject) {
    let code = reject.code.row().slug;
    shared
        .metrics
        .refusals
        .with_label_values(&[code, reject.label])
        .inc();
    shared.refusals.push(
        reject,
        ctx.request_id.as_str(),
        ctx.route(),
        shared.clock.unix(),
    );
}
