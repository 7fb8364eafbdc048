//! Decides what may be stored, for whom, for how long, and when it is forgotten (RFC 9111, 9211,
//! 9875). Does not fetch and does not know routes.
//!
//! Order of steps for one request:
//!
//! 1. [`consider`] says whether the cache takes part, whose entry it would be ([`owner`]), under
//!    which key ([`key`]) and what the client asked for ([`policy`]).
//! 2. [`phases`] hands that to the framework: lookup, the choice between fresh, stale and fetch.
//! 3. [`policy::freshness`] judges what the origin answered; [`storage`] keeps it, unless a fence
//!    ([`groups`]) says that it was fetched before an invalidation.
//! 4. [`status`] tells the client what happened.
//!
//! Only `storage.rs` and `phases.rs` know the framework; everything else is pure.

pub mod control;
pub mod date;
pub mod groups;
pub mod key;
pub mod owner;
pub mod phases;
pub mod policy;
pub mod status;
pub mod storage;
pub mod vary;

use std::sync::Arc;

use http::{HeaderMap, request};

use crate::kernel::facts::Facts;
use crate::kernel::principal::Principal;

use self::key::Key;
use self::owner::Owner;
use self::policy::{Credentials, Wants};

/// What a route asks of the cache. A route without one is never cached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Short name used in keys and logs, e.g. `overview`. Every entry belongs to the group of this
    /// name besides those that the origin declares.
    pub name: Arc<str>,
    /// Freshness where the response states none; 0 switches the cache off.
    pub ttl_s: u32,
    pub scope: Scope,
    /// Query parameters that are part of the key; others are not part of it and are not forwarded.
    /// `None` = all of them, sorted.
    pub query: Option<Vec<String>>,
    pub stale_while_revalidate_s: u32,
    pub stale_if_error_s: u32,
    pub object_bytes_max: usize,
    /// Whether a client's `Cache-Control: no-cache` reaches the origin.
    pub client_no_cache: ClientNoCache,
}

/// Who may share a stored response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Everybody.
    Public,
    /// Members of the organisation that the request names.
    Org,
    /// One subject.
    User,
}

/// What a client's `no-cache`, `max-age`, `min-fresh` and `Pragma` do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientNoCache {
    /// Answered from the store all the same, to keep the origin safe.
    Ignore,
    /// Revalidated with the origin.
    Honour,
}

/// Bounds of the one store of the process. Read at start; a reload does not change them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of bodies, header fields and bookkeeping that may be held.
    pub bytes_max: u64,
    /// How long a request waits for another one's fetch of the same key before it goes on alone.
    pub lock_wait_ms: u64,
    /// How long one fetch may keep others waiting before a second one is allowed.
    pub lock_age_ms: u64,
    /// A fetch that took longer is answered but not stored: fences need not be remembered longer.
    pub fetch_ms_max: u64,
    /// Invalidations remembered one by one; beyond that the oldest apply to everything.
    pub fences_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_max: 64 * 1024 * 1024,
            lock_wait_ms: 5_000,
            lock_age_ms: 10_000,
            fetch_ms_max: 60_000,
            fences_max: 4_096,
        }
    }
}

/// Why the cache takes no part in a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bypass {
    /// The policy's TTL is 0.
    Off,
    /// Neither GET nor HEAD.
    Method,
    /// A GET that carries a body.
    Body,
    /// `If-Match` or `If-Unmodified-Since`, which only the origin can judge (RFC 9111, 4.3.2).
    Precondition,
    /// The scope needs to know who is calling.
    Anonymous,
    /// The scope needs one organisation and the request names none.
    NoOrg,
    /// The request names an organisation that the caller is no member of.
    NotMember,
    /// The last answer under this key was not cacheable.
    Remembered,
}

impl Bypass {
    /// A label from a closed set, for headers and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Method => "method",
            Self::Body => "body",
            Self::Precondition => "precondition",
            Self::Anonymous => "anonymous",
            Self::NoOrg => "no-org",
            Self::NotMember => "not-member",
            Self::Remembered => "uncacheable",
        }
    }
}

/// Everything [`consider`] looks at.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub policy: &'a Arc<Policy>,
    /// `CACHE_PREFIX`.
    pub prefix: &'a str,
    pub request: &'a request::Parts,
    pub facts: &'a Facts,
    pub principal: Option<&'a Principal>,
    /// The organisation that the request names, by whatever means the route has for it.
    pub org: Option<&'a str>,
}

/// One request's dealings with the cache, kept in its context.
#[derive(Clone, Debug)]
pub struct Lookup {
    pub policy: Arc<Policy>,
    pub key: Key,
    pub owner: Owner,
    pub wants: Wants,
    pub credentials: Credentials,
    /// Header fields of a 304, put here by [`phases::upstream_response`] for the update of
    /// the stored ones (RFC 9111, 3.2).
    pub validated: Option<HeaderMap>,
}

/// Whether the cache takes part in this request, and how.
///
/// # Errors
/// The reason for which it does not.
pub fn consider(question: &Question<'_>) -> Result<Lookup, Bypass> {
    let policy = question.policy;
    let wants = policy::cacheable(question.request, policy)?;
    let owner = Owner::find(policy.scope, question.principal, question.org)?;
    Ok(Lookup {
        policy: policy.clone(),
        key: key::build(question.prefix, policy, &owner, question.facts),
        owner,
        wants,
        credentials: Credentials::of(question.request, question.principal),
        validated: None,
    })
}
