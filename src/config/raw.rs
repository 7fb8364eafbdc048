//! The shape of the configuration file, and the text that documents it: every key's meaning is the
//! doc comment of its field. Says nothing of defaults (`default.toml` does) and makes nothing of the
//! values (`resolve` does).

mod edge;
mod traffic;
mod trust;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

pub use edge::*;
pub use traffic::*;
pub use trust::*;

/// The whole file, after `default.toml`, the file, its includes and the environment were laid over
/// each other.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "maitred configuration")]
pub struct File {
    /// `production` refuses everything that is convenient and unsafe: development secrets,
    /// `danger_*` keys, wildcard origins, demo data.
    #[schemars(extend("x-reload" = "restart"))]
    pub environment: Environment,
    /// Files laid under this one, in this order; paths are relative to this file. Tables are merged,
    /// lists are replaced.
    pub include: Vec<String>,
    /// Variables that override keys: variable name → the keys that it sets. A blank variable
    /// counts as not set.
    pub env: BTreeMap<String, Vec<String>>,
    /// What an entry has where its own table is silent.
    #[schemars(with = "Defaults", extend("x-partial" = true))]
    pub defaults: serde_json::Value,
    #[schemars(extend("x-reload" = "restart"))]
    pub server: Server,
    pub listeners: Listeners,
    pub tls: Tls,
    pub guard: Guard,
    pub cors: Cors,
    pub identity: Identity,
    pub delivery: Delivery,
    /// Parties whose tokens are believed, by a name of your own.
    pub issuers: BTreeMap<String, Issuer>,
    /// Quota of API calls per plan; the plan is a claim of the caller's token.
    pub plans: BTreeMap<String, Quota>,
    /// Named limits that routes refer to.
    pub classes: BTreeMap<String, Class>,
    /// Pools of equal endpoints.
    pub upstreams: BTreeMap<String, Upstream>,
    pub cache: Cache,
    /// How providers sign their webhooks.
    pub schemes: BTreeMap<String, Scheme>,
    pub webhooks: Webhooks,
    pub dispatch: Dispatch,
    #[schemars(extend("x-reload" = "restart"))]
    pub inbox: Inbox,
    /// Kinds of event streams that routes refer to.
    pub streams: BTreeMap<String, Stream>,
    /// What is served. What no route matches is answered with 404.
    pub routes: Vec<Route>,
    #[schemars(extend("x-reload" = "restart"))]
    pub drain: Drain,
    pub log: Log,
    pub telemetry: Telemetry,
    pub redis: Redis,
    #[schemars(extend("x-reload" = "restart"))]
    pub embedded_api: EmbeddedApi,
}

/// What an entry has where its own table is silent. Each table here has the keys of its kind.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "gives the schema; the values are laid under the entries before"
)]
pub struct Defaults {
    /// For each of `upstreams`.
    upstream: Upstream,
    /// For each of `issuers`.
    issuer: Issuer,
    /// For each of `cache.policies`.
    cache: CachePolicy,
    /// For each of `schemes`.
    scheme: Scheme,
    /// For each of `webhooks.endpoints`.
    webhook: Endpoint,
    /// For each of `streams`.
    stream: Stream,
    /// For each of `routes`.
    route: Route,
}

/// Where the edge runs.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// Forgives missing secrets and certificates.
    Development,
    /// Refuses to start instead.
    Production,
}
