//! Raw shape of what several nodes share.

use schemars::JsonSchema;
use serde::Deserialize;

use super::SecretSource;

/// The server that several nodes share. Kept there: what `webhooks.replay_store` and `inbox.engine`
/// put there. Limits, stream slots and the cache are per node in this version.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// Host name, address or `unix:/path`; blank = none. One server: Cluster and Sentinel are not
    /// spoken.
    pub host: String,
    /// Port.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// Database number.
    #[schemars(range(max = 1_000_000))]
    pub db: u32,
    /// ACL user; blank = the default one. It needs the commands of scripts, streams, sorted sets,
    /// hashes and strings under `cache.prefix`, PING, and CONFIG GET or INFO.
    pub username: String,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Certificates (PEM) that the server's may be signed by; absent = the public authorities.
    pub ca_file: Option<String>,
    /// For connecting, TLS, login and the check of the server together.
    #[schemars(range(min = 10, max = 60_000))]
    pub connect_timeout_ms: u64,
    /// For one call. When it is over, what must not go on without the server is refused with 503.
    #[schemars(range(min = 10, max = 10_000))]
    pub response_timeout_ms: u64,
    pub password: SecretSource,
    /// Uses a server that may drop accepted messages under memory pressure (any `maxmemory-policy`
    /// but `noeviction`, or one that is not told); what it drops can be replayed. Taken in
    /// production too, with a notice.
    pub danger_may_evict: bool,
    /// Uses a server that may lose events answered with 200 (not `appendonly yes` with `appendfsync
    /// always`, or not told), e.g. a managed one that is durable in its own way. Taken in production
    /// too, with a notice.
    pub danger_not_durable: bool,
}

/// Where accepted webhooks are remembered.
#[derive(Clone, Copy, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum ReplayStore {
    /// In this process: right for one node.
    Local,
    /// On `redis`, for all nodes. Without it webhooks get 503.
    Redis,
}

/// Where webhooks are kept until they are delivered.
#[derive(Clone, Copy, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum InboxEngine {
    /// On this node's disk. What a node has accepted waits for that node.
    Disk,
    /// On `redis` (7.0 or later), for all nodes: what a dead node has accepted is delivered by another.
    /// Needs `webhooks.replay_store = "redis"`, and memory for `bytes_max`.
    Redis,
}
