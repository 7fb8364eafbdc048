//! What providers say about money: invoices, payments, subscriptions. State is a fold of facts that
//! gives the same result in whatever order the events arrive; that each arrives once is the business
//! of `inbound`.

pub(crate) mod model;
pub(crate) mod service;
pub(crate) mod store;
