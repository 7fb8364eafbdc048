//! What to do with a matched request: data only, joined here from the features' own policies.

use std::sync::Arc;

use crate::{auth, cache, limit, stream, webhook};

/// What a route leads to.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The route's name in logs and metrics: its pattern.
    pub name: Arc<str>,
    pub limit: limit::Policy,
    pub auth: auth::Policy,
    pub body_bytes_max: usize,
    pub body_timeout_ms: u64,
    pub then: Then,
}

/// The lane a request takes once it is admitted.
#[derive(Clone, Debug)]
pub enum Then {
    /// Proxied to a pool, through the cache where the route has one.
    Forward {
        upstream: Arc<str>,
        cache: Option<Arc<cache::Policy>>,
    },
    /// A webhook: ends at the edge.
    Ingest(Arc<webhook::Endpoint>),
    /// An event stream.
    Subscribe(Arc<stream::Policy>),
    /// Answered by the edge itself.
    Reply(Builtin),
}

/// Endpoints that the edge answers on the public listeners.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Builtin {
    Live,
    Ready,
    Health,
    Version,
}
