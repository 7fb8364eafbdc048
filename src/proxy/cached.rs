//! Hands the cache lane's decisions to Pingora's phases. What may be stored and for whom is decided in
//! `cache`; here is only which request asks and where the answer goes.

use pingora::cache::{CacheKey, CacheMeta, ForcedFreshness, HitHandler, RespCacheable};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::ctx::Ctx;
use super::shared::Shared;
use crate::cache::phases::{self, Change};
use crate::cache::status::Outcome;
use crate::cache::{self, Bypass, Lookup, Question, key};
use crate::kernel::reject::Reject;
use crate::plan::Then;

/// A request's dealings with the cache.
pub enum Cached {
    Taking(Box<Lookup>),
    Bypassing {
        name: std::sync::Arc<str>,
        why: Bypass,
    },
}

/// Lets a request of a cached route take part, or notes why it does not.
pub(super) fn enable(shared: &Shared, session: &mut Session, ctx: &mut Ctx) {
    let Some(admitted) = &ctx.admitted else {
        return;
    };
    let Then::Forward {
        cache: Some(policy),
        ..
    } = &admitted.plan.then
    else {
        return;
    };
    let considered = cache::consider(&Question {
        policy,
        prefix: &ctx.live.config.cache.prefix,
        request: session.req_header(),
        facts: &admitted.facts,
        principal: admitted.caller.as_deref(),
        org: admitted.org.as_deref(),
    });
    // Over HTTP/2 a body needs no header field to announce it.
    let bodiless = session.as_downstream_mut().is_body_empty();
    ctx.cache = Some(match considered {
        Ok(_) if !bodiless => Cached::Bypassing {
            name: policy.name.clone(),
            why: Bypass::Body,
        },
        Ok(lookup) => {
            shared.cache.enable(&mut session.cache, &lookup);
            Cached::Taking(Box::new(lookup))
        }
        Err(why) => Cached::Bypassing {
            name: policy.name.clone(),
            why,
        },
    });
}

/// The key under which the response is looked up.
pub(super) fn lookup_key(shared: &Shared, ctx: &Ctx) -> Result<CacheKey> {
    match lookup(ctx) {
        Some(lookup) => Ok(shared.cache.key(lookup)),
        None => Error::e_explain(
            ErrorType::InternalError,
            "cache key of a request without lookup",
        ),
    }
}

/// Whether what was found will do.
pub(super) fn hit(
    shared: &Shared,
    session: &Session,
    meta: &CacheMeta,
    found: &HitHandler,
    ctx: &Ctx,
) -> Option<ForcedFreshness> {
    shared.cache.hit(
        &session.cache,
        meta,
        found,
        lookup(ctx)?,
        shared.clock.unix(),
    )
}

/// Whether the origin may be asked at all.
pub(super) fn may_fetch(ctx: &Ctx) -> std::result::Result<(), Reject> {
    lookup(ctx).map_or(Ok(()), phases::may_fetch)
}

/// A fetch begins: from here on an invalidation makes its answer unfit to be stored. Gives the query
/// that the key was made of.
pub(super) fn fetch_starts<'a>(
    shared: &Shared,
    session: &Session,
    ctx: &'a Ctx,
) -> Option<&'a str> {
    let lookup = lookup(ctx)?;
    shared.cache.fetch_starts(&session.cache);
    Some(lookup.key.query().unwrap_or(""))
}

/// The upstream answered: removes what the request changed, and keeps what a 304 renews.
pub(super) fn upstream_response(
    shared: &Shared,
    session: &Session,
    response: &ResponseHeader,
    ctx: &mut Ctx,
) {
    if let Some(admitted) = &ctx.admitted {
        let change = Change {
            method: &session.req_header().method,
            target: &key::target(&admitted.facts.host, &admitted.facts.path),
            principal: admitted.caller.as_deref(),
            org: admitted.org.as_deref(),
        };
        shared.cache.changed(&change, response);
    }
    if let Some(Cached::Taking(lookup)) = &mut ctx.cache {
        phases::upstream_response(lookup, response);
    }
}

/// Whether the response is stored.
pub(super) fn cacheable(shared: &Shared, response: &ResponseHeader, ctx: &Ctx) -> RespCacheable {
    use pingora::cache::NoCacheReason::Custom;
    lookup(ctx).map_or(RespCacheable::Uncacheable(Custom("no-lookup")), |lookup| {
        phases::cacheable(response, lookup, shared.clock.unix())
    })
}

/// Says on the response what the cache did, and counts it.
pub(super) fn explain(
    shared: &Shared,
    session: &Session,
    response: &mut ResponseHeader,
    ctx: &Ctx,
) {
    let now = shared.clock.unix();
    let (name, outcome) = match &ctx.cache {
        None => return,
        Some(Cached::Taking(lookup)) => (&lookup.policy.name, phases::outcome(&session.cache, now)),
        Some(Cached::Bypassing { name, why }) => (name, Outcome::Bypass(*why)),
    };
    phases::finish_header(outcome, &session.cache, response, now);
    let label = outcome.x_cache().to_ascii_lowercase();
    shared
        .metrics
        .cache
        .with_label_values(&[name.as_ref(), label.as_str()])
        .inc();
}

fn lookup(ctx: &Ctx) -> Option<&Lookup> {
    match ctx.cache.as_ref()? {
        Cached::Taking(lookup) => Some(lookup),
        Cached::Bypassing { .. } => None,
    }
}
