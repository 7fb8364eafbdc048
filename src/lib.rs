//! maitred: an edge proxy for webhooks coming in and event streams going out.
//!
//! Modules in the order in which a request meets them:
//!
//! * [`listener`] accepts the connection; [`proxy`] turns the request into facts and runs it through
//!   `proxy::admit`, the one place where the order of checks is decided;
//! * [`guard`], [`route`], [`limit`], [`auth`] each give one verdict on it; [`plan`] is what they
//!   agree on;
//! * [`webhook`], [`stream`], [`cache`] and [`upstream`] are the lanes' own rules;
//! * [`config`] and [`app`] put it all together; [`admin`] is the operator's window;
//! * [`kernel`] and [`telemetry`] are what everybody speaks in, [`cluster`] what several nodes share.
//!
//! A module imports lower layers only; `tests/architecture.rs` checks it.

pub mod kernel;

pub mod cluster;
pub mod egress;
pub mod telemetry;

pub mod auth;
pub mod cache;
pub mod guard;
pub mod limit;
pub mod listener;
pub mod route;
pub mod stream;
pub mod upstream;
pub mod webhook;

pub mod plan;

pub mod admin;
pub mod config;

pub mod proxy;

pub mod app;
pub mod cli;
#[cfg(feature = "embedded-api")]
pub mod embedded_api;
pub mod server;
