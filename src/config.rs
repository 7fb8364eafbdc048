//! Reads the configuration file and the environment into the features' own policies. Only this module
//! knows the file format; nothing here decides what a request meets.
//!
//! Order of steps: `source` lays `default.toml`, the includes and the file over each other in a
//! `tree` that remembers where each value was written; `env` sets what variables override; `check`
//! holds the result against the `schema` made from the `raw` types; `resolve` turns it into [`Config`]
//! or into all [`ConfigErrors`] at once; `reload` does the same again while the process runs.

mod check;
pub mod docs;
pub mod env;
pub mod preset;
mod problem;
pub mod raw;
pub mod reload;
pub mod resolve;
pub mod schema;
mod secret;
pub mod source;
mod tree;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

pub use env::Env;
pub use problem::{ConfigErrors, Place, Problem};
pub use source::ConfigSource;

use crate::kernel::secret::Secret;
use crate::plan::Plan;
use crate::webhook::{self, dispatch};
use crate::{auth, cluster, guard, limit, listener, upstream};

/// A configuration that was checked whole: every reference resolves, every value is in range.
#[derive(Clone, Debug)]
pub struct Config {
    pub environment: Environment,
    /// Hex SHA-256 of the file and of the environment names that took part, secrets left out.
    pub digest: String,
    pub https: Option<(listener::Policy, listener::TlsPolicy)>,
    pub http: Option<HttpListener>,
    pub admin: SocketAddr,
    /// What the admin listener asks for; `None` = whoever reaches it on loopback is trusted.
    pub admin_token: Option<Secret>,
    pub guard: guard::Policy,
    pub cors: Cors,
    pub issuers: Vec<auth::Issuer>,
    /// Signs the identity assertion for the API.
    pub assertion_secret: Secret,
    /// Signs deliveries to the API (Standard Webhooks).
    pub delivery_secret: Secret,
    pub plans: limit::Plans,
    /// Every named limit, for what no route's policy names, e.g. `webhooks_failed`.
    pub classes: BTreeMap<Arc<str>, Arc<limit::Class>>,
    pub upstreams: BTreeMap<Arc<str>, Arc<upstream::Policy>>,
    pub cache: CacheLimits,
    pub replay: ReplayLimits,
    /// How stored webhooks are delivered.
    pub dispatch: Arc<dispatch::Policy>,
    /// The server that several nodes share.
    pub redis: Option<cluster::redis::Settings>,
    pub inbox: Inbox,
    pub routes: Vec<Route>,
    pub drain: Drain,
    pub log: Log,
    /// Whether the admin listener answers `/metrics`.
    pub metrics: bool,
    /// The API in this process, for the one-command start.
    pub embedded_api: Option<EmbeddedApi>,
    pub threads: usize,
    /// Socket over which a successor takes the listeners.
    pub upgrade_socket: PathBuf,
    /// What is accepted and yet not what its author may expect.
    pub notices: Vec<String>,
    /// Every file that took part, for the watcher.
    pub files: Vec<PathBuf>,
    /// Keys that take effect at start only, with their values as text.
    pub restart_keys: BTreeMap<String, String>,
}

/// Development forgives missing secrets and certificates; production refuses to start instead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Environment {
    Development,
    Production,
}

/// The plain listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpListener {
    pub listener: listener::Policy,
    /// Port named in the redirect to https; `None` = routes are served in clear (development only).
    pub redirect_to_port: Option<u16>,
}

/// A path and what it leads to, per set of methods.
#[derive(Clone, Debug)]
pub struct Route {
    /// `matchit` syntax: `/a/{b}/{*rest}`.
    pub pattern: String,
    /// Upper-case methods; empty = any.
    pub methods: Vec<http::Method>,
    pub plan: Arc<Plan>,
}

/// Cross-origin rules (Fetch standard).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cors {
    /// Exact origins, e.g. `https://app.example`.
    pub origins: Vec<String>,
    pub max_age_s: u32,
}

/// Bounds of the response cache.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CacheLimits {
    pub bytes_max: u64,
    pub prefix: String,
    /// How long a second request for a key waits for the first one's fetch.
    pub lock_timeout_ms: u64,
}

/// Where accepted webhooks are remembered, and how many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReplayLimits {
    /// Entries kept at most; when full, new webhooks are refused with 503.
    pub entries_max: usize,
    pub store: ReplayStore,
}

/// Where accepted webhooks are remembered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReplayStore {
    /// In this process.
    Local,
    /// On `Config::redis`, which is there then.
    Redis,
}

/// Where accepted webhooks are kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Inbox {
    pub engine: InboxEngine,
    /// Of the engine on disk.
    pub path: PathBuf,
    pub policy: webhook::inbox::Policy,
}

/// Where webhooks are kept until they are delivered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InboxEngine {
    /// In a folder.
    Disk,
    /// On `Config::redis`, which is there then; so is the replay store.
    Redis,
}

/// What happens between SIGTERM and exit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Drain {
    /// Readiness is off, new connections are still taken.
    pub announce_ms: u64,
    /// Streams are closed spread over this window.
    pub streams_window_ms: u64,
    /// Longest wait for requests in flight.
    pub timeout_ms: u64,
}

/// Log output.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    Json,
    Pretty,
}

/// `chefcloud-api` in this process.
#[derive(Clone, Debug)]
pub struct EmbeddedApi {
    pub listen: SocketAddr,
    pub database_url: String,
    pub seed_demo: bool,
}

#[cfg(test)]
mod tests;
