//! The connection to Redis, and what webhooks get while it is away.

mod connection;
mod inbox;
mod replay;
