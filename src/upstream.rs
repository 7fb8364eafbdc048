//! Decides which upstream endpoint gets a request and when none should: balancing, health, circuit
//! breaker, retries, bulkhead. Knows addresses and outcomes; does not know what a request means.

pub mod balance;
pub mod breaker;
pub mod health;
pub mod peer;
pub mod pool;
pub mod retry;

use std::sync::Arc;

pub use crate::egress::Address;

/// One pool of equal endpoints.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    pub name: Arc<str>,
    pub endpoints: Vec<Address>,
    pub connect_timeout_ms: u64,
    /// From the request's last byte to the response's header.
    pub first_byte_timeout_ms: u64,
    /// Between two reads of a response body (streams excepted).
    pub write_timeout_ms: u64,
    /// Requests in flight to the whole pool; one more is refused.
    pub in_flight_max: u32,
    pub health: HealthPolicy,
    pub breaker: BreakerPolicy,
    pub retry: RetryPolicy,
}

/// Active checks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthPolicy {
    pub path: String,
    pub interval_ms: u64,
    pub timeout_ms: u64,
    /// Successes in a row that bring an endpoint back.
    pub healthy_after: u32,
    /// Failures in a row that take it out.
    pub unhealthy_after: u32,
}

/// When a pool stops asking an endpoint that fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BreakerPolicy {
    /// Failures within the window that open it.
    pub failures: u32,
    pub window_s: u32,
    /// Time until a probe is let through.
    pub open_s: u32,
}

/// How often something that is safe to repeat is repeated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts_max: u32,
    pub backoff_base_ms: u64,
    pub backoff_cap_ms: u64,
    /// Retries per hundred requests, over ten seconds.
    pub budget_percent: u32,
}
