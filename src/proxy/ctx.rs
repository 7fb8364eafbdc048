//! What one request carries through Pingora's phases. Each phase writes its own fields; later phases
//! only read them.

use std::sync::Arc;
use std::time::Instant;

use crate::egress::Address;
use crate::kernel::facts::{Facts, Protocol, Scheme};
use crate::kernel::id::RequestId;
use crate::kernel::principal::Principal;
use crate::kernel::reject::Reject;
use crate::limit::Decision;
use crate::listener::drain::InFlight;
use crate::plan::Plan;
use crate::proxy::cached::Cached;
use crate::proxy::shared::Live;
use crate::upstream::pool::Lease;

/// One request's state.
pub struct Ctx {
    pub started: Instant,
    /// The configuration this request began with and keeps, whatever is reloaded meanwhile.
    pub live: Arc<Live>,
    /// Held until the request is over, so that a drain waits for it.
    pub in_flight: InFlight,
    /// Written by `early_request_filter`.
    pub request_id: RequestId,
    /// The protocol on the wire; Pingora's header says 1.1 for every request after the early filter.
    pub protocol: Protocol,
    pub scheme: Scheme,
    /// Written by `admit`.
    pub admitted: Option<Arc<Admitted>>,
    /// What `admit` learned before it said yes or no, for the log and the response headers.
    pub seen: Seen,
    /// The refusal that was, or will be, sent.
    pub reject: Option<Reject>,
    /// Written by the forward lane.
    pub upstream: Attempts,
    /// Request body bytes passed on so far.
    pub body_bytes: u64,
    pub cache: Option<Cached>,
    /// What the lane has to say in the access log: `accepted`, `lifetime`, …
    pub outcome: Option<&'static str>,
}

/// What is known of a request however it ends.
#[derive(Default)]
pub struct Seen {
    /// The route's name, once there is a route.
    pub route: Option<Arc<str>>,
    /// The limit that was taken last, also when it refused.
    pub limit: Option<Decision>,
}

/// A request that passed every check.
pub struct Admitted {
    pub facts: Arc<Facts>,
    pub plan: Arc<Plan>,
    pub caller: Option<Arc<Principal>>,
    /// The organisation that the request names and the caller belongs to.
    pub org: Option<String>,
}

/// Attempts on the upstream.
#[derive(Default)]
pub struct Attempts {
    pub lease: Option<Lease>,
    pub made: u32,
    /// The endpoint that failed last; the next attempt avoids it.
    pub failed: Option<Address>,
}

impl Ctx {
    /// The name under which logs and metrics know the route.
    pub fn route(&self) -> &str {
        self.seen.route.as_deref().unwrap_or("-")
    }
}
