//! Decides whether a request may be answered from the store and whether, and for how long, a
//! response may be kept there (RFC 9111, 5861). Pure: `now` is an argument. Does not store.
//!
//! Where the RFC leaves a choice, the edge takes the one that stores less.

use http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, DATE, EXPIRES, IF_MATCH,
    IF_UNMODIFIED_SINCE, PRAGMA, SET_COOKIE, TRANSFER_ENCODING, VARY,
};
use http::{HeaderMap, Method, StatusCode, request, response};

use crate::kernel::clock::UnixMs;
use crate::kernel::principal::Principal;

use super::control::{self, Directives};
use super::{Bypass, ClientNoCache, Policy, Scope, date, vary};

/// What the client asked of the cache, after the policy had its say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wants {
    /// RFC 9111, 5.2.1.7: a stored response or 504.
    pub only_if_cached: bool,
    pub storing: Storing,
    pub demand: Demand,
}

/// Whether this request's answer may be stored (RFC 9111, 5.2.1.5). A client that forbids it is still
/// answered from the store: otherwise `no-store` would be a way around the cache to the origin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Storing {
    Allowed,
    Forbidden,
}

/// How fresh the client wants it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Demand {
    /// `no-cache`.
    pub validated: bool,
    pub max_age_s: Option<u32>,
    pub min_fresh_s: Option<u32>,
}

impl Demand {
    /// Whether a response of this age and remaining lifetime will do.
    #[must_use]
    pub fn met_by(self, age_s: i64, ttl_s: i64) -> bool {
        let young = self.max_age_s.is_none_or(|max| age_s <= i64::from(max));
        let lasting = self.min_fresh_s.is_none_or(|min| ttl_s >= i64::from(min));
        !self.validated && young && lasting
    }
}

/// Whether the origin learns who is calling, and so may have answered for that caller alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Credentials {
    Absent,
    Present,
}

impl Credentials {
    /// From the request, or from what `auth` made of its cookie, ticket or key.
    #[must_use]
    pub fn of(request: &request::Parts, principal: Option<&Principal>) -> Self {
        if principal.is_some() || request.headers.contains_key(AUTHORIZATION) {
            Self::Present
        } else {
            Self::Absent
        }
    }
}

/// Whether the cache takes part in a request, by method, framing, directives and TTL.
///
/// # Errors
/// Why it does not.
pub fn cacheable(request: &request::Parts, policy: &Policy) -> Result<Wants, Bypass> {
    if policy.ttl_s == 0 {
        return Err(Bypass::Off);
    }
    if request.method != Method::GET && request.method != Method::HEAD {
        return Err(Bypass::Method);
    }
    let headers = &request.headers;
    let length = headers.get(CONTENT_LENGTH);
    if headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|l| l != "0") {
        return Err(Bypass::Body);
    }
    if headers.contains_key(IF_MATCH) || headers.contains_key(IF_UNMODIFIED_SINCE) {
        return Err(Bypass::Precondition);
    }
    let asked = Directives::read(headers);
    let demand = match policy.client_no_cache {
        ClientNoCache::Ignore => Demand::default(),
        ClientNoCache::Honour => Demand {
            validated: asked.no_cache || pragma_no_cache(headers),
            max_age_s: asked.max_age_s,
            min_fresh_s: asked.min_fresh_s,
        },
    };
    Ok(Wants {
        only_if_cached: asked.only_if_cached,
        storing: if asked.no_store {
            Storing::Forbidden
        } else {
            Storing::Allowed
        },
        demand,
    })
}

/// RFC 9111, 5.4: `Pragma: no-cache` counts where there is no `Cache-Control`.
fn pragma_no_cache(headers: &HeaderMap) -> bool {
    let says = |v: &http::HeaderValue| {
        v.to_str()
            .is_ok_and(|v| v.to_ascii_lowercase().contains("no-cache"))
    };
    !headers.contains_key(CACHE_CONTROL) && headers.get_all(PRAGMA).iter().any(says)
}

/// What becomes of a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    Store(Lifetime),
    DoNotStore(Reason),
}

/// How long a response may be used, counted from the moment it was made at the origin, i.e. `age_s`
/// before it came in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lifetime {
    pub fresh_s: u32,
    /// After that, while a background fetch is under way.
    pub stale_while_revalidate_s: u32,
    /// After that, while the origin fails.
    pub stale_if_error_s: u32,
    /// Age on arrival.
    pub age_s: u32,
}

impl Lifetime {
    /// Seconds of freshness left on arrival; negative where it came in stale.
    #[must_use]
    pub fn left_s(self) -> i64 {
        i64::from(self.fresh_s) - i64::from(self.age_s)
    }
}

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// Not on the list of statuses.
    Status,
    /// A server error: says nothing about the resource.
    Failure,
    /// `Content-Range` in what should be whole.
    Partial,
    SetCookie,
    /// `Vary: *`, or more names than are kept apart.
    Vary,
    NoStore,
    NoCache,
    Private,
    /// Answered to somebody in particular and not marked as fit for all (RFC 9111, 3.5).
    Authorization,
    /// Stale on arrival, and no permission to use it stale.
    NotFresh,
    /// An error status without a lifetime of its own.
    NoLifetime,
    /// `Cache-Groups` cannot be read: the entry could not be forgotten on demand.
    Groups,
    /// The client forbade it.
    Client,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Status,
        Self::Failure,
        Self::Partial,
        Self::SetCookie,
        Self::Vary,
        Self::NoStore,
        Self::NoCache,
        Self::Private,
        Self::Authorization,
        Self::NotFresh,
        Self::NoLifetime,
        Self::Groups,
        Self::Client,
    ];

    /// A label from a closed set, for headers and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Failure => "upstream-failure",
            Self::Partial => "partial",
            Self::SetCookie => "set-cookie",
            Self::Vary => "vary",
            Self::NoStore => "no-store",
            Self::NoCache => "no-cache",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::NotFresh => "not-fresh",
            Self::NoLifetime => "no-lifetime",
            Self::Groups => "cache-groups",
            Self::Client => "client-no-store",
        }
    }

    /// Whether the next answer under the same key is likely to be refused too, so that waiting for
    /// it in line is pointless. False for what one client or one bad moment caused: nobody shall
    /// switch the cache off for others.
    #[must_use]
    pub fn is_of_the_resource(self) -> bool {
        match self {
            Self::Partial
            | Self::SetCookie
            | Self::Vary
            | Self::NoStore
            | Self::NoCache
            | Self::Private
            | Self::NotFresh
            | Self::Groups => true,
            Self::Status
            | Self::Failure
            | Self::Authorization
            | Self::NoLifetime
            | Self::Client => false,
        }
    }
}

/// Whether and for how long to keep this response.
#[must_use]
pub fn freshness(
    response: &response::Parts,
    policy: &Policy,
    credentials: Credentials,
    now: UnixMs,
) -> Decision {
    let said = Directives::read(&response.headers);
    if let Some(reason) = forbidden(response, &said, policy.scope, credentials) {
        return Decision::DoNotStore(reason);
    }
    let explicit = explicit_lifetime(&response.headers, &said, now);
    let Some(fresh_s) = explicit.or_else(|| default_lifetime(response.status, policy)) else {
        return Decision::DoNotStore(Reason::NoLifetime);
    };
    let (stale_while_revalidate_s, stale_if_error_s) = windows(&said, explicit, policy);
    let lifetime = Lifetime {
        fresh_s,
        stale_while_revalidate_s,
        stale_if_error_s,
        age_s: age(&response.headers),
    };
    let window = i64::from(stale_while_revalidate_s.max(stale_if_error_s));
    if lifetime.left_s() + window <= 0 {
        return Decision::DoNotStore(Reason::NotFresh);
    }
    Decision::Store(lifetime)
}

/// RFC 9111, section 3, read for a shared cache with scoped keys.
fn forbidden(
    response: &response::Parts,
    said: &Directives,
    scope: Scope,
    credentials: Credentials,
) -> Option<Reason> {
    let headers = &response.headers;
    if response.status.is_server_error() {
        Some(Reason::Failure)
    } else if !STATUSES.contains(&response.status) {
        Some(Reason::Status)
    } else if headers.contains_key(CONTENT_RANGE) {
        Some(Reason::Partial)
    } else if headers.contains_key(SET_COOKIE) {
        Some(Reason::SetCookie)
    } else if headers.contains_key(VARY) && vary::names(headers).is_none() {
        Some(Reason::Vary)
    } else if said.no_store || said.unreadable {
        Some(Reason::NoStore)
    } else if said.no_cache {
        Some(Reason::NoCache)
    } else if said.private && scope != Scope::User {
        Some(Reason::Private)
    } else if scope == Scope::Public && credentials == Credentials::Present && !shareable(said) {
        Some(Reason::Authorization)
    } else {
        None
    }
}

/// RFC 9111, 3.5: what allows a shared cache to reuse an answer to an authenticated request. In the
/// other scopes the key itself keeps callers apart.
fn shareable(said: &Directives) -> bool {
    said.public || said.must_revalidate || said.s_maxage_s.is_some()
}

/// RFC 9111, 4.2.1: `s-maxage`, then `max-age`, then `Expires`.
fn explicit_lifetime(headers: &HeaderMap, said: &Directives, now: UnixMs) -> Option<u32> {
    said.s_maxage_s
        .or(said.max_age_s)
        .or_else(|| expires(headers, now))
}

/// `Expires` less `Date`. RFC 9111, 5.3: one that cannot be read, or several, have passed.
fn expires(headers: &HeaderMap, now: UnixMs) -> Option<u32> {
    let mut lines = headers.get_all(EXPIRES).iter();
    let (first, more) = (lines.next()?, lines.next());
    let read = |v: &http::HeaderValue| v.to_str().ok().and_then(date::parse);
    let until = read(first).filter(|_| more.is_none());
    let since = headers.get(DATE).and_then(read).unwrap_or(now.seconds());
    let lifetime = until.map_or(0, |until| until.saturating_sub(since)).max(0);
    Some(u32::try_from(lifetime).unwrap_or(control::SECONDS_MAX))
}

/// The configured TTL, for what the origin meant to serve. An error is kept only for as long as the
/// origin says: a TTL chosen for a dashboard must not pin down a 404.
fn default_lifetime(status: StatusCode, policy: &Policy) -> Option<u32> {
    (!status.is_client_error()).then_some(policy.ttl_s)
}

/// How long it may be used stale (RFC 5861): while revalidating, and if the origin fails. What the
/// response says wins over the configuration; what demands revalidation wins over both, and
/// `s-maxage` is such a demand (RFC 9111, 5.2.2.10). A response that gives itself no lifetime at all
/// does not get one from the configuration either.
fn windows(said: &Directives, explicit: Option<u32>, policy: &Policy) -> (u32, u32) {
    if said.must_revalidate || said.proxy_revalidate || said.s_maxage_s.is_some() {
        return (0, 0);
    }
    let configured = |seconds: u32| if explicit == Some(0) { 0 } else { seconds };
    (
        said.stale_while_revalidate_s
            .unwrap_or(configured(policy.stale_while_revalidate_s)),
        said.stale_if_error_s
            .unwrap_or(configured(policy.stale_if_error_s)),
    )
}

/// `Age` as received (RFC 9111, 5.1); nonsense is ignored.
fn age(headers: &HeaderMap) -> u32 {
    let text = headers.get(AGE).and_then(|v| v.to_str().ok());
    text.and_then(|t| control::seconds(t.trim())).unwrap_or(0)
}

/// Statuses that are stored at all.
const STATUSES: [StatusCode; 6] = [
    StatusCode::OK,
    StatusCode::NON_AUTHORITATIVE_INFORMATION,
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::PERMANENT_REDIRECT,
    StatusCode::NOT_FOUND,
    StatusCode::GONE,
];

#[cfg(test)]
mod tests;
