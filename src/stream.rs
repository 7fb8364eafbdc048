//! Decides how an event stream is carried: admission, heartbeats between events, life time and when
//! it is cut. Knows frames and time; does not know sockets or who is calling.

pub mod frame;
pub mod pace;

use std::sync::Arc;

/// What a stream route promises.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    pub upstream: Arc<str>,
    /// Silence after which a heartbeat is sent.
    pub heartbeat_s: u32,
    /// New connections per user and minute.
    pub connects_per_min: std::num::NonZeroU32,
    /// Open streams per user.
    pub concurrent_per_user: u32,
    /// Mean life time; each stream's own is ±20 % of it.
    pub lifetime_s: u32,
    /// Longest time that one write to the client may take.
    pub write_timeout_ms: u64,
}
