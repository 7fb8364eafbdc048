//! Raw shape of what traffic meets: limits, upstreams, cache, streams, routes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// So many requests per so many seconds; the whole quota may come at once.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Requests per window.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub requests: u32,
    /// Length of the window.
    #[schemars(range(min = 1, max = 86_400))]
    pub window_s: u32,
}

/// A named limit, shared by every route that names it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Requests per window.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub requests: u32,
    /// Length of the window.
    #[schemars(range(min = 1, max = 86_400))]
    pub window_s: u32,
    /// Whose requests are counted together.
    pub key: KeyBy,
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyBy {
    /// The client's address, IPv6 by /64; counted before authentication.
    Ip,
    /// The authenticated subject.
    Principal,
}

/// One pool of equal endpoints.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// `host:port` or `unix:/path`, plain HTTP/1.1.
    #[schemars(length(min = 1))]
    pub endpoints: Vec<String>,
    /// Time to connect.
    #[schemars(range(min = 10, max = 60_000))]
    pub connect_timeout_ms: u64,
    /// From the request's last byte to the response's header, and between two reads of its body;
    /// streams excepted.
    #[schemars(range(min = 10, max = 600_000))]
    pub first_byte_timeout_ms: u64,
    /// For one write of a request to the upstream.
    #[schemars(range(min = 10, max = 600_000))]
    pub write_timeout_ms: u64,
    /// Requests in flight to the whole pool; one more gets 503.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub in_flight_max: u32,
    pub health: Health,
    pub breaker: Breaker,
    pub retry: Retry,
}

/// Active checks of every endpoint.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Path asked with GET; 2xx is healthy.
    pub path: String,
    /// Time between two checks.
    #[schemars(range(min = 100, max = 600_000))]
    pub interval_ms: u64,
    /// Longest wait for an answer.
    #[schemars(range(min = 10, max = 60_000))]
    pub timeout_ms: u64,
    /// Successes in a row that bring an endpoint back.
    #[schemars(range(min = 1, max = 100))]
    pub healthy_after: u32,
    /// Failures in a row that take it out.
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_after: u32,
}

/// When an endpoint that fails is left alone.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// Failures within the window that open it.
    #[schemars(range(min = 1, max = 100_000))]
    pub failures: u32,
    /// Length of the window.
    #[schemars(range(min = 1, max = 86_400))]
    pub window_s: u32,
    /// Time until one probe is let through.
    #[schemars(range(min = 1, max = 3_600))]
    pub open_s: u32,
}

/// How often something that is safe to repeat is repeated.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all, the first included; 1 = no retries.
    #[schemars(range(min = 1, max = 10))]
    pub attempts_max: u32,
    /// Longest pause before the first retry; it doubles, and the pause is a random part of it.
    #[schemars(range(min = 1, max = 60_000))]
    pub backoff_base_ms: u64,
    /// Longest pause at all.
    #[schemars(range(min = 1, max = 60_000))]
    pub backoff_cap_ms: u64,
    /// Retries per hundred requests, over ten seconds.
    #[schemars(range(max = 100))]
    pub budget_percent: u32,
}

/// How stored webhooks are delivered to the API. An attempt counts only where a request was sent:
/// while the destination's breaker is open, or no endpoint of it is healthy, events wait.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dispatch {
    /// Attempts in all, the first included; then the event is a dead letter.
    #[schemars(range(min = 1, max = 100))]
    pub attempts_max: u32,
    /// Longest time from an event's first failed attempt to its last one.
    #[schemars(range(min = 1, max = 2_592_000))]
    pub age_max_s: u32,
    /// Longest pause after the first attempt. Each further one is four times as long, and the pause is
    /// a random part of it; `Retry-After` is the least.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub backoff_base_ms: u64,
    /// Longest pause at all.
    #[schemars(range(min = 1, max = 604_800_000))]
    pub backoff_cap_ms: u64,
    /// Attempts in flight to one pool. After an outage it begins with one and doubles.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency_max: u32,
    /// Attempts per second that start to one pool, however much has piled up.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub rate_max: u32,
    /// Whole time for one attempt.
    #[schemars(range(min = 100, max = 600_000))]
    pub attempt_timeout_ms: u64,
}

/// The response cache. A route is cached only where it names one of `cache.policies`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Memory for stored responses.
    #[schemars(range(min = 65_536), extend("x-reload" = "restart"))]
    pub bytes_max: u64,
    /// First part of every key; two deployments that share a store must differ in it.
    #[schemars(length(min = 1))]
    pub prefix: String,
    /// How long a second request for a key waits for the first one's fetch.
    #[schemars(range(min = 1, max = 600_000), extend("x-reload" = "restart"))]
    pub lock_timeout_ms: u64,
    /// What routes refer to; the name is part of keys and logs.
    pub policies: BTreeMap<String, CachePolicy>,
}

/// What may be stored, for whom and how long.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CachePolicy {
    /// Freshness where the response states none; 0 switches this cache off.
    #[schemars(range(max = 604_800))]
    pub ttl_s: u32,
    /// Who may share a stored response.
    pub scope: Scope,
    /// Query parameters that are part of the key; others are dropped and not forwarded. Absent =
    /// all of them, sorted.
    pub query: Option<Vec<String>>,
    /// How long a stale response is served while a fresh one is fetched.
    #[schemars(range(max = 604_800))]
    pub stale_while_revalidate_s: u32,
    /// How long a stale response is served while the upstream fails.
    #[schemars(range(max = 604_800))]
    pub stale_if_error_s: u32,
    /// Larger responses are passed on and not stored.
    #[schemars(range(min = 1))]
    pub object_bytes_max: u64,
    /// What a client's `Cache-Control: no-cache` does.
    pub client_no_cache: ClientNoCache,
}

/// Who may share a stored response.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everybody.
    Public,
    /// Members of the organisation that the request names; the route needs `org_query`.
    Org,
    /// One subject.
    User,
}

/// What a client's `no-cache` does.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientNoCache {
    /// Answered from the store all the same, to keep the origin safe.
    Ignore,
    /// Revalidated with the origin.
    Honour,
}

/// A kind of event stream (SSE).
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Silence after which a heartbeat is sent.
    #[schemars(range(min = 1, max = 300))]
    pub heartbeat_s: u32,
    /// New connections per user and minute.
    #[schemars(range(min = 1, max = 100_000))]
    pub connects_per_min: u32,
    /// Open streams per user.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrent_per_user: u32,
    /// Mean life time; each stream's own is ±20 % of it.
    #[schemars(range(min = 1, max = 604_800))]
    pub lifetime_s: u32,
    /// Longest time that one write to the client may take.
    #[schemars(range(min = 100, max = 600_000))]
    pub write_timeout_ms: u64,
}

/// A path and what it leads to.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// `/a/{b}` matches one segment, `/a/{*rest}` everything below.
    #[schemars(length(min = 1))]
    pub path: String,
    /// GET brings HEAD with it, except for streams. Empty = any method.
    pub methods: Vec<Method>,
    /// Whether a caller must prove who they are.
    pub auth: Auth,
    /// Query parameter that names the organisation; it must be one of the caller's.
    pub org_query: Option<String>,
    /// Roles of which the caller must hold one in that organisation; empty = any.
    pub roles: Vec<String>,
    /// `plan` (the quota of the caller's plan) or names of `classes`: at most one that counts by
    /// address and one that counts by caller.
    pub limits: Vec<String>,
    /// Name of one of `upstreams`.
    pub upstream: String,
    /// Name of one of `cache.policies`; absent = never cached.
    pub cache: Option<String>,
    /// Name of one of `streams`: the route is an event stream.
    pub stream: Option<String>,
    /// Longest request body; beyond it 413.
    #[schemars(range(max = 1_073_741_824))]
    pub body_bytes_max: u64,
    /// Whole time for the body to arrive.
    #[schemars(range(min = 100, max = 3_600_000))]
    pub body_timeout_ms: u64,
}

/// Whether a caller must prove who they are.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// Nobody is asked; no identity goes upstream.
    Public,
    /// Without a good credential the answer is 401.
    Required,
}

/// A method that a route may take. OPTIONS with an origin is a preflight and answered by the edge.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Delete,
    Get,
    Head,
    Options,
    Patch,
    Post,
    Put,
}
