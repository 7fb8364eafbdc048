//! Events in: what the edge delivers under `/internal/webhooks/{endpoint}`. Decides whether a
//! delivery is genuine, new and of use; what it does is the owning context's business.
//!
//! Order of steps: read the body whole → verify over the raw bytes → parse → one transaction:
//! remember the event id, apply.

pub(crate) mod http;
pub(crate) mod model;
pub(crate) mod service;
pub(crate) mod store;
