//! Decides whether a request is well formed and unambiguous before anything else looks at it. Knows
//! header fields and bytes; does not know routes or callers.
//!
//! Order of steps: `raw::check` (bytes, HTTP/1) → `header::check` (sizes) → `framing::check` →
//! `authority::host` → `path::normalise` → `client::address`.

pub mod authority;
pub mod client;
pub mod framing;
pub mod header;
pub mod path;
pub mod raw;

/// Limits on the shape of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Longest request target, path and query.
    pub target_bytes_max: usize,
    /// Names and values of all header fields together.
    pub header_bytes_max: usize,
    pub header_count_max: usize,
    /// Peers whose `Forwarded` / `X-Forwarded-For` is believed.
    pub trusted_hops: Vec<ipnet::IpNet>,
}
