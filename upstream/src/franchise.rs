//! Organisations and branches, and the figures owners look at: overview and rankings, both computed
//! from order rows.

pub(crate) mod http;
pub(crate) mod model;
pub(crate) mod service;
pub(crate) mod store;
