//! Decides what may be stored, for whom, for how long, and when it is forgotten (RFC 9111, 9211,
//! 9875). Does not fetch and does not know routes.

pub mod groups;
pub mod key;
pub mod policy;
pub mod status;
pub mod storage;

use std::sync::Arc;

/// What a route asks of the cache. A route without one is never cached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Short name used in keys and logs, e.g. `overview`.
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

/// What a client's `no-cache` does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientNoCache {
    /// Answered from the store all the same, to keep the origin safe.
    Ignore,
    /// Revalidated with the origin.
    Honour,
}
