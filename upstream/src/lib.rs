//! ChefCloud's domain API: a multi-tenant restaurant back end behind an edge proxy, on SQLite or
//! PostgreSQL.
//!
//! A request enters through [`router`](self), whose rooms decide who may enter; a context's `http`
//! reads it into a `model`, its `service` decides, its `store` keeps the rows. Every mutation writes
//! its events to the outbox in the same transaction; streams read them from there.

mod app;
mod auth;
mod background;
mod billing;
mod config;
mod demo;
mod error;
mod event;
mod franchise;
mod health;
mod inbound;
mod kernel;
mod metrics;
mod orders;
mod purchasing;
mod router;
mod server;
mod store;
mod stream;

pub use app::Api;
pub use config::{
    Config, ConfigError, DEVELOPMENT_ASSERTION_SECRET, Environment, development_delivery_secret,
};
pub use demo::Demo;
pub use kernel::{clock::Clock, secret::Secret};
pub use server::Listener;
