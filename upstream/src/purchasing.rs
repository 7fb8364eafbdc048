//! Purchasing: receiving goods against an approved purchase order. Stock comes in as batches; what
//! was not ordered is refused.

pub(crate) mod http;
pub(crate) mod model;
pub(crate) mod service;
pub(crate) mod store;
