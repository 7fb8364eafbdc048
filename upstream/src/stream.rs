//! Streams out: the outbox as server-sent events. A stream is a reader with a position; it is woken
//! by `event::hub` and reads what is new. It sends no heartbeats: that is the edge's business.

pub(crate) mod feed;
pub(crate) mod http;
pub(crate) mod model;
