//! Orders: for now a closed order is recorded whole; it moves the day's figures and tells the
//! streams.

pub(crate) mod http;
pub(crate) mod model;
pub(crate) mod service;
pub(crate) mod store;
