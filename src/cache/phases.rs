//! Carries the cache's decisions into the framework's phases; each function is what one `ProxyHttp`
//! callback delegates to. Decides only what cannot be said without the framework's types.
//!
//! | callback | delegates to |
//! |---|---|
//! | `request_cache_filter` | [`Cache::enable`] |
//! | `cache_key_callback` | [`Cache::key`] |
//! | `cache_hit_filter` | [`Cache::hit`] |
//! | `cache_vary_filter` | [`vary`] |
//! | `proxy_upstream_filter` | [`may_fetch`] |
//! | `upstream_request_filter` | [`Cache::fetch_starts`], and `Lookup::key.query()` as the query |
//! | `upstream_response_filter` | [`Cache::changed`], [`upstream_response`] |
//! | `response_cache_filter` | [`cacheable`] |
//! | `should_serve_stale` | [`should_serve_stale`] |
//! | `response_filter` | [`outcome`], [`finish_header`] |

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::TRANSFER_ENCODING;
use http::header::{AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, Method, StatusCode, Version, request};
use pingora::cache::key::{CacheHashKey, HashBinary};
use pingora::cache::lock::{CacheKeyLockImpl, CacheLock};
use pingora::cache::predictor::Predictor;
use pingora::cache::{
    CacheKey, CacheMeta, CacheOptionOverrides, CachePhase, ForcedFreshness, HitHandler, HttpCache,
    NoCacheReason, RespCacheable, VarianceBuilder,
};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorSource, ErrorType};

use crate::kernel::clock::{Clock, UnixMs};
use crate::kernel::header::{
    CACHE_GROUP_INVALIDATION, CACHE_GROUPS, CACHE_STATUS, HOP_BY_HOP, X_CACHE, nominated,
};
use crate::kernel::principal::Principal;
use crate::kernel::reject::{Code, Reject};

use super::groups::{self, Selector, Which, Whose};
use super::policy::{self, Decision, Lifetime, Reason, Storing};
use super::status::{Forward, Outcome, Stored};
use super::storage::{Claim, Declared, Hit, Store, claim};
use super::{Bypass, Limits, Lookup, vary as fields};

/// The store with its lock and its memory of what was not cacheable. Cheap to copy; there is one of
/// each per process.
#[derive(Clone, Copy)]
pub struct Cache {
    store: &'static Store,
    lock: &'static CacheKeyLockImpl,
    predictor: &'static Predictor<PREDICTOR_SHARDS>,
    lock_wait: Duration,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("store", self.store).finish()
    }
}

impl Cache {
    /// For the rest of the process's life: call once, at start.
    #[must_use]
    pub fn leak(limits: &Limits, clock: Clock) -> Self {
        let lock = CacheLock::new(Duration::from_millis(limits.lock_age_ms));
        let predictor = Predictor::new(PREDICTOR_SHARD_KEYS, Some(is_not_of_the_resource));
        Self {
            store: Store::leak(limits, clock),
            lock: Box::leak(Box::new(lock)),
            predictor: Box::leak(Box::new(predictor)),
            lock_wait: Duration::from_millis(limits.lock_wait_ms),
        }
    }

    /// The store, for invalidations and statistics.
    #[must_use]
    pub fn store(&self) -> &'static Store {
        self.store
    }

    /// Lets the request take part.
    pub fn enable(&self, cache: &mut HttpCache, lookup: &Lookup) {
        let mut overrides = CacheOptionOverrides::default();
        overrides.wait_timeout = Some(self.lock_wait);
        let (lock, predictor) = match lookup.wants.storing {
            Storing::Allowed => (Some(self.lock), Some(self.predictor as _)),
            // Its answer will not be stored: nobody should wait for it or learn from it.
            Storing::Forbidden => (None, None),
        };
        cache.enable(self.store, None, predictor, lock, Some(overrides));
        cache.set_max_file_size_bytes(lookup.policy.object_bytes_max);
    }

    /// The framework's key. The hash is computed here once; it would be several times otherwise.
    #[must_use]
    pub fn key(&self, lookup: &Lookup) -> CacheKey {
        let mut key = CacheKey::new(lookup.key.bytes(), "");
        let hash = key.primary_bin();
        key.set_primary_bin_override(hash);
        let claim = Claim::new(
            lookup.owner.clone(),
            lookup.policy.name.clone(),
            lookup.key.target().clone(),
        );
        // A fetch cannot start earlier than this; the real start is stamped when it comes.
        self.store.fetch_starts(&claim);
        key.extensions.insert(Arc::new(claim));
        key
    }

    /// The request goes out now, or once more.
    pub fn fetch_starts(&self, cache: &HttpCache) {
        if let Some(claim) = cache.maybe_cache_key().and_then(claim) {
            self.store.fetch_starts(claim);
        }
    }

    /// Whether what was found will do for this client.
    #[must_use]
    pub fn hit(
        &self,
        cache: &HttpCache,
        meta: &CacheMeta,
        handler: &HitHandler,
        lookup: &Lookup,
        now: UnixMs,
    ) -> Option<ForcedFreshness> {
        let age_s = seconds_between(meta.epoch(), now);
        if lookup.wants.demand.met_by(age_s, ttl_s(meta, now)) {
            return None;
        }
        // Whoever waited in line for a fetch that began after asking has what was asked for.
        let claim = cache.maybe_cache_key().and_then(claim);
        let hit = handler.as_any().downcast_ref::<Hit>();
        let just_fetched = matches!((claim, hit), (Some(c), Some(h)) if h.fetched_since(c));
        (!just_fetched).then_some(ForcedFreshness::ForceExpired)
    }

    /// A response came in to a request that may have changed something: removes what it names
    /// (RFC 9875) and what it must have changed (RFC 9111, 4.4), before the client hears of it.
    /// Nothing happens for safe methods and failures.
    pub fn changed(&self, change: &Change<'_>, response: &ResponseHeader) {
        self.forget(change, response.status, &response.headers);
    }

    /// As [`Cache::changed`], for a response that did not come through the framework.
    pub fn forget(&self, change: &Change<'_>, status: StatusCode, headers: &HeaderMap) {
        if change.method.is_safe() || status.as_u16() >= 400 {
            return;
        }
        match groups::invalidated(headers) {
            Ok(selectors) => {
                for selector in &selectors {
                    self.store.invalidate(selector);
                }
            }
            Err(error) => {
                // Forgetting too much is the safe reading of what cannot be read.
                tracing::warn!(%error, "unreadable invalidation: forgetting everything");
                self.store.invalidate(&Selector {
                    whose: Whose::Anyone,
                    which: Which::Everything,
                });
            }
        }
        for whose in change.whose() {
            let which = Which::Target(change.target.to_owned());
            self.store.invalidate(&Selector { whose, which });
        }
    }
}

/// A request that may have changed its target.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    pub method: &'a Method,
    /// [`super::key::target`] of the request.
    pub target: &'a str,
    pub principal: Option<&'a Principal>,
    /// The organisation that the request names.
    pub org: Option<&'a str>,
}

impl Change<'_> {
    /// Whose entries it concerns: those of the organisation it names, or else of all that the caller
    /// belongs to, and the public ones. Nobody's request can empty another tenant's cache.
    fn whose(&self) -> Vec<Whose> {
        let orgs = self.principal.map(|p| &p.orgs);
        let named = |org: &str| self.org.is_none_or(|named| named == org);
        let concerned = orgs.into_iter().flat_map(|orgs| orgs.keys());
        let concerned = concerned.filter(|org| named(org)).cloned().map(Whose::Org);
        concerned.chain([Whose::NoOrg]).collect()
    }
}

/// Looks at a response's header fields before the response is judged: keeps those of a 304 for
/// the update of the stored ones.
pub fn upstream_response(lookup: &mut Lookup, response: &ResponseHeader) {
    if response.status == StatusCode::NOT_MODIFIED {
        lookup.validated = Some(response.headers.clone());
    }
}

/// Whether the response is stored, and as what. After a 304, `response` is the stored header
/// with some fields renewed; the others are renewed here.
#[must_use]
pub fn cacheable(response: &ResponseHeader, lookup: &Lookup, now: UnixMs) -> RespCacheable {
    let refuse = |r: Reason| RespCacheable::Uncacheable(NoCacheReason::Custom(r.as_str()));
    if lookup.wants.storing == Storing::Forbidden {
        return refuse(Reason::Client);
    }
    let mut header = response.clone();
    if let Some(validated) = &lookup.validated {
        renew(&mut header, validated);
    }
    let lifetime = match policy::freshness(&header, &lookup.policy, lookup.credentials, now) {
        Decision::Store(lifetime) => lifetime,
        Decision::DoNotStore(reason) => return refuse(reason),
    };
    let Ok(declared) = groups::declared(&header.headers) else {
        return refuse(Reason::Groups);
    };
    // A 304 that declares no groups leaves the stored ones as they are.
    let renewed = lookup.validated.is_none() || header.headers.contains_key(CACHE_GROUPS);
    strip(&mut header);
    let mut meta = meta(header, lifetime, now);
    if renewed {
        meta.extensions_mut().insert(Declared(declared.into()));
    }
    RespCacheable::Cacheable(meta)
}

/// What the cache did. Meaningful once the response's header is known.
#[must_use]
pub fn outcome(cache: &HttpCache, now: UnixMs) -> Outcome {
    let ttl_s = cache.maybe_cache_meta().map_or(0, |m| ttl_s(m, now));
    let miss = |forward, stored| Outcome::Miss { forward, stored };
    match cache.phase() {
        CachePhase::Hit if cache.lock_duration().is_some() => Outcome::Collapsed { ttl_s },
        CachePhase::Hit => Outcome::Hit { ttl_s },
        CachePhase::StaleUpdating => Outcome::StaleWhileRevalidate { ttl_s },
        CachePhase::Stale => Outcome::Stale { ttl_s },
        CachePhase::Revalidated | CachePhase::RevalidatedNoCache(_) => {
            Outcome::Revalidated { ttl_s }
        }
        CachePhase::Expired => miss(Forward::Stale, Stored::Open),
        CachePhase::Miss | CachePhase::Uninit | CachePhase::CacheKey => {
            miss(Forward::Absent, Stored::Open)
        }
        CachePhase::Bypass => Outcome::Bypass(Bypass::Remembered),
        // Asked without a lookup, and refused once more.
        CachePhase::Disabled(_) if cache.predicted_uncacheable_reason().is_some() => {
            Outcome::Bypass(Bypass::Remembered)
        }
        CachePhase::Disabled(why) => miss(Forward::Absent, Stored::No(label(why))),
    }
}

/// Which variant this request is about.
#[must_use]
pub fn vary(meta: &CacheMeta, request: &request::Parts) -> Option<HashBinary> {
    // What cannot be read was not stored.
    let names = fields::names(meta.headers()).unwrap_or_default();
    let mut builder = VarianceBuilder::new();
    for name in &names {
        let value = fields::value(&request.headers, name);
        builder.add_owned_value(name.as_str(), value);
    }
    builder.finalize()
}

/// Whether the origin may be asked.
///
/// # Errors
/// The answer to a client that wanted a stored response or none.
pub fn may_fetch(lookup: &Lookup) -> Result<(), Reject> {
    if lookup.wants.only_if_cached {
        let reason = "only-if-cached and nothing stored that will do";
        return Err(Reject::new(Code::OnlyIfCached, "only_if_cached", reason));
    }
    Ok(())
}

/// Whether a stale response may be used: while a background fetch runs (`error` is none), or because
/// the origin failed (RFC 5861). The windows themselves were checked before.
#[must_use]
pub fn should_serve_stale(request: &request::Parts, error: Option<&Error>) -> bool {
    let Some(error) = error else {
        // The framework's background fetch does not survive an HTTP/2 request line; without it
        // nothing would ever refresh the entry. `proxy` rewrites the version, this is the net.
        return request.version != Version::HTTP_2;
    };
    if let ErrorType::HTTPStatus(status) = error.etype() {
        return matches!(status, 500 | 502 | 503 | 504);
    }
    // Not reached, or not let through by the breaker; but not the client's own doing.
    *error.esource() != ErrorSource::Downstream
}

/// The last touches to a response of a cached route: `x-cache`, `Cache-Status`, and the `Age` that
/// the framework leaves out after a 304. Removes what only the edge should see.
pub fn finish_header(
    outcome: Outcome,
    cache: &HttpCache,
    response: &mut ResponseHeader,
    now: UnixMs,
) {
    if let (Outcome::Revalidated { .. }, Some(meta)) = (outcome, cache.maybe_cache_meta()) {
        let age_s = seconds_between(meta.epoch(), now).max(0);
        // Fails for an invalid name or value only; a number is neither.
        let _ = response.insert_header(AGE, age_s);
    }
    for name in [&CACHE_GROUPS, &CACHE_GROUP_INVALIDATION] {
        response.remove_header(name);
    }
    let (x_cache, cache_status) = outcome.values();
    let _ = response.insert_header(X_CACHE, x_cache);
    let _ = response.append_header(CACHE_STATUS, cache_status);
}

/// The framework's metadata for a response that came in now with `lifetime`.
fn meta(header: ResponseHeader, lifetime: Lifetime, now: UnixMs) -> CacheMeta {
    let since_1970 = Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
    let arrived = UNIX_EPOCH + since_1970;
    let made_at = arrived - Duration::from_secs(lifetime.age_s.into()).min(since_1970);
    let mut meta = CacheMeta::new(
        made_at + Duration::from_secs(lifetime.fresh_s.into()),
        arrived,
        lifetime.stale_while_revalidate_s,
        lifetime.stale_if_error_s,
        header,
    );
    meta.set_epoch_override(made_at);
    meta
}

/// Whole seconds from `then` to `now`, rounded down; negative if `then` is later.
fn seconds_between(then: SystemTime, now: UnixMs) -> i64 {
    now.0.saturating_sub(millis(then)).div_euclid(1000)
}

fn millis(moment: SystemTime) -> i64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Seconds of freshness left, rounded down; negative once stale.
fn ttl_s(meta: &CacheMeta, now: UnixMs) -> i64 {
    millis(meta.fresh_until())
        .saturating_sub(now.0)
        .div_euclid(1000)
}

/// Updates stored header fields from a 304 (RFC 9111, 3.2): all of them, except those that describe
/// a body or a connection that the 304 does not have.
fn renew(header: &mut ResponseHeader, validated: &HeaderMap) {
    let named = nominated(validated);
    let kept = |name: &HeaderName| {
        DESCRIBES_BODY.contains(name) || HOP_BY_HOP.contains(name) || named.contains(name)
    };
    for name in validated.keys().filter(|n| !kept(n)) {
        for (at, value) in validated.get_all(name).iter().enumerate() {
            if at == 0 {
                header.remove_header(name);
            }
            let _ = header.append_header(name, value);
        }
    }
}

/// Removes what is not stored (RFC 9111, 3.1): fields of the connection, our own labels, and `Age`,
/// which is computed anew for every use.
fn strip(header: &mut ResponseHeader) {
    let named = nominated(&header.headers);
    let ours = [
        AGE,
        TRANSFER_ENCODING,
        CACHE_GROUPS,
        CACHE_GROUP_INVALIDATION,
    ];
    for name in named.iter().chain(&HOP_BY_HOP).chain(&ours) {
        header.remove_header(name);
    }
}

/// The label of a reason, from a closed set.
fn label(why: NoCacheReason) -> &'static str {
    match why {
        NoCacheReason::Custom(label) => label,
        NoCacheReason::NeverEnabled => Bypass::Off.as_str(),
        NoCacheReason::OriginNotCache => "origin",
        NoCacheReason::ResponseTooLarge | NoCacheReason::PredictedResponseTooLarge => "too-large",
        NoCacheReason::StorageError => "storage",
        NoCacheReason::InternalError => "internal",
        NoCacheReason::Deferred => "deferred",
        NoCacheReason::DeclinedToUpstream => "declined",
        NoCacheReason::UpstreamError => Reason::Failure.as_str(),
        NoCacheReason::CacheLockGiveUp => "uncacheable",
        NoCacheReason::CacheLockTimeout => "lock-timeout",
        NoCacheReason::CacheLockRetryLimit => "lock-retries",
    }
}

/// Whether the memory of uncacheable keys should ignore this one; see [`Reason::is_of_the_resource`].
fn is_not_of_the_resource(label: &'static str) -> bool {
    let known = Reason::ALL.iter().find(|r| r.as_str() == label);
    !known.is_some_and(|r| r.is_of_the_resource())
}

const DESCRIBES_BODY: [HeaderName; 5] = [
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    TRANSFER_ENCODING,
];
const PREDICTOR_SHARDS: usize = 16;
/// Keys remembered per shard; about 100 bytes each.
const PREDICTOR_SHARD_KEYS: usize = 1_024;

#[cfg(test)]
mod tests;
