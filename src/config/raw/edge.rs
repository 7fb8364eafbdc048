//! Raw shape of what surrounds the traffic: process, listeners, TLS, request limits, logs.

use super::SecretSource;
use schemars::JsonSchema;
use serde::Deserialize;

/// The process.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Worker threads; 0 = one per core.
    #[schemars(range(max = 1024))]
    pub threads: u32,
    /// Unix socket over which a new process takes the listening sockets from the old one.
    #[schemars(length(min = 1))]
    pub upgrade_socket: String,
}

/// Where the edge listens.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listeners {
    pub https: Listener,
    pub http: PlainListener,
    pub admin: AdminListener,
}

/// The TLS listener: HTTP/2 and HTTP/1.1.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Whether it is opened at all.
    #[schemars(extend("x-reload" = "restart"))]
    pub enabled: bool,
    /// `address:port`; IPv6 in brackets.
    #[schemars(extend("x-reload" = "restart"))]
    pub address: String,
    /// Networks (CIDR) whose connections must start with a PROXY protocol header (v1 or v2).
    /// Everybody else must not send one.
    pub proxy_protocol_from: Vec<String>,
    /// Connections at a time; more wait in the kernel's queue.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub connections_max: u64,
    /// Connections at a time from one address (IPv6: one /64).
    #[schemars(range(min = 1, max = 10_000_000))]
    pub connections_per_ip_max: u64,
    /// From accept to the end of the TLS handshake.
    #[schemars(range(min = 100, max = 120_000))]
    pub handshake_timeout_ms: u64,
    /// From the first moment a request may come to the end of its header, however slowly it drips.
    #[schemars(range(min = 100, max = 120_000))]
    pub header_timeout_ms: u64,
    /// How long a connection may wait for its next request, and how long a client may take nothing
    /// of a response. Idle HTTP/2 connections learn of a new value at the next start.
    #[schemars(range(min = 1_000, max = 3_600_000))]
    pub keepalive_timeout_ms: u64,
}

/// The plain listener: health endpoints, and 308 to https for the rest.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlainListener {
    /// Whether it is opened at all.
    #[schemars(extend("x-reload" = "restart"))]
    pub enabled: bool,
    /// `address:port`; IPv6 in brackets.
    #[schemars(extend("x-reload" = "restart"))]
    pub address: String,
    /// Port named in the redirect to https: the one that clients see.
    #[schemars(range(min = 1))]
    pub redirect_to_port: u16,
    /// Serves the routes in clear instead of redirecting. Development only.
    #[schemars(extend("x-reload" = "restart"))]
    pub danger_serve_in_clear: bool,
    /// As for https.
    pub proxy_protocol_from: Vec<String>,
    /// As for https.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub connections_max: u64,
    /// As for https.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub connections_per_ip_max: u64,
    /// As for https.
    #[schemars(range(min = 100, max = 120_000))]
    pub header_timeout_ms: u64,
    /// As for https.
    #[schemars(range(min = 1_000, max = 3_600_000))]
    pub keepalive_timeout_ms: u64,
}

/// Metrics, dashboard and control. Never reachable through the public listeners.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminListener {
    /// `address:port`; keep it away from the public network. On an address that is not loopback
    /// everything but `/metrics` and `/healthz` asks for the token.
    #[schemars(extend("x-reload" = "restart"))]
    pub address: String,
    /// Asked for by everything but `/metrics` and `/healthz`, as a bearer token or (browsers) as a
    /// password. At least 32 characters; without one, whoever reaches a loopback address is trusted.
    pub token: Option<SecretSource>,
}

/// TLS of the https listener.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Lowest version spoken.
    #[schemars(extend("x-reload" = "restart"))]
    pub min_version: TlsVersion,
    /// Chosen by server name; the first one answers where no name matches. The files are read
    /// again when they change.
    pub certificates: Vec<Certificate>,
}

/// Lowest protocol version spoken.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// A certificate chain and its key, both PEM.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// File with the leaf certificate first, then the intermediates.
    #[schemars(length(min = 1))]
    pub chain: String,
    /// File with the private key.
    #[schemars(length(min = 1))]
    pub key: String,
}

/// Limits on the shape of a request.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// Longest request target, path and query; beyond it 414.
    #[schemars(range(min = 256, max = 65_536))]
    pub target_bytes_max: u64,
    /// Names and values of all header fields together; beyond it 431.
    #[schemars(range(min = 1_024, max = 262_144))]
    pub header_bytes_max: u64,
    /// Header fields; beyond it 431.
    #[schemars(range(min = 16, max = 1_000))]
    pub header_count_max: u64,
    /// Networks (CIDR) of the load balancers whose `Forwarded` / `X-Forwarded-For` is believed.
    pub trusted_hops: Vec<String>,
}

/// Cross-origin rules for browsers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Exact origins, e.g. `https://app.example`; no trailing slash. In production https only and
    /// no `*`.
    pub origins: Vec<String>,
    /// How long a browser may remember a preflight's answer.
    #[schemars(range(max = 86_400))]
    pub max_age_s: u32,
}

/// What happens between SIGTERM and exit.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Readiness is off, new connections are still taken: the time a load balancer needs to notice.
    #[schemars(range(max = 600_000))]
    pub announce_ms: u64,
    /// Streams are closed spread over this window, so that their clients do not come back at once.
    #[schemars(range(max = 3_600_000))]
    pub streams_window_ms: u64,
    /// Longest wait for what is in flight, after the announcement.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub timeout_ms: u64,
}

/// Log output, on standard error.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,maitred::cache=debug`.
    #[schemars(length(min = 1), extend("x-reload" = "restart"))]
    pub level: String,
    /// Shape of a line.
    #[schemars(extend("x-reload" = "restart"))]
    pub format: LogFormat,
}

/// Shape of a log line.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Pretty,
}

/// What the edge tells of itself beside the log.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// Whether the admin listener answers `/metrics`.
    pub metrics: bool,
    /// Export of traces over OTLP. Not available yet: accepted, and `check` says that it does
    /// nothing.
    pub tracing: bool,
}

/// `chefcloud-api` inside this process, for the one-command start.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbeddedApi {
    /// Whether it runs.
    pub enabled: bool,
    /// `address:port`; a loopback address.
    pub listen: String,
    /// `sqlite://path?mode=rwc`, `sqlite::memory:` or `postgres://…`.
    pub database_url: String,
    /// Whether demo accounts with known passwords are created. Refused in production.
    pub danger_seed_demo: bool,
}
