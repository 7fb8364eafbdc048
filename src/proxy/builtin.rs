//! The endpoints that the edge answers by itself. Liveness touches nothing; readiness names what is
//! missing; health says how each part is.

use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use super::shared::{Live, Shared};
use crate::kernel::reply::Reply;
use crate::plan::Builtin;

/// The commit this binary was built from; `unknown` outside a git checkout.
pub const COMMIT: &str = env!("MAITRED_COMMIT");
/// The compiler it was built with.
pub const RUSTC: &str = env!("MAITRED_RUSTC");

/// Answers one of them.
pub fn answer(which: Builtin, shared: &Shared, live: &Live) -> Reply {
    let reply = match which {
        Builtin::Live => Reply::json(StatusCode::OK, &json!({ "status": "ok" })),
        Builtin::Ready => ready(shared, live),
        Builtin::Health => health(shared, live),
        Builtin::Version => Reply::json(StatusCode::OK, &version(live)),
    };
    reply.with(
        http::header::CACHE_CONTROL,
        HeaderValue::from_static("no-store"),
    )
}

/// What is not ready, in words that name the part. Empty = ready.
pub fn not_ready(shared: &Shared, live: &Live) -> Vec<String> {
    let mut missing = Vec::new();
    if !shared.drain.is_ready() {
        missing.push("draining".to_owned());
    }
    let now = shared.clock.instant();
    let mut pools: Vec<_> = live.pools.values().collect();
    pools.sort_by_key(|pool| pool.policy().name.clone());
    for pool in pools {
        if !pool.is_available(now) {
            missing.push(format!(
                "upstream {}: no usable endpoint",
                pool.policy().name
            ));
        }
    }
    missing.extend(inbox(shared, live));
    if redis(shared) == "disconnected" {
        missing.push("redis: away".to_owned());
    }
    missing
}

/// Why webhooks cannot be kept. A successor says nothing while it opens: its predecessor lets go of the
/// inbox only once it is told that this process serves.
fn inbox(shared: &Shared, live: &Live) -> Option<String> {
    let opening = shared.books.look().is_none();
    if live.endpoints().next().is_none() || (opening && shared.successor) {
        return None;
    }
    shared.books.trouble().map(|why| format!("inbox: {why}"))
}

fn ready(shared: &Shared, live: &Live) -> Reply {
    let missing = not_ready(shared, live);
    if missing.is_empty() {
        return Reply::json(StatusCode::OK, &json!({ "ready": true }));
    }
    let body = json!({ "ready": false, "not_ready": missing });
    Reply::json(StatusCode::SERVICE_UNAVAILABLE, &body)
}

/// `redis` is `disabled` while no shared store is configured; `database` is the API's, so what the
/// edge knows of it is whether the API called itself ready when it was last asked.
fn health(shared: &Shared, live: &Live) -> Reply {
    let now = shared.clock.instant();
    let mut upstreams = Map::new();
    for (name, pool) in &live.pools {
        let state = match (pool.is_available(now), pool.is_confirmed(now)) {
            (true, true) => "connected",
            // Not asked yet, or failing for less long than it takes to be left alone.
            (true, false) => "unknown",
            (false, _) => "unavailable",
        };
        upstreams.insert(name.to_string(), Value::from(state));
    }
    // Redis is required wherever it is configured: what is on it has no other place.
    let all_up =
        live.pools.values().all(|pool| pool.is_available(now)) && redis(shared) != "disconnected";
    let (status, word) = if all_up {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "degraded")
    };
    let connected = upstreams.values().all(|state| state == "connected");
    let database = if connected { "connected" } else { "unknown" };
    let body = json!({
        "status": word,
        "redis": redis(shared),
        "database": database,
        "upstreams": upstreams,
        "version": env!("CARGO_PKG_VERSION"),
    });
    Reply::json(status, &body)
}

fn redis(shared: &Shared) -> &'static str {
    match &shared.redis {
        None => "disabled",
        Some(redis) if redis.health().connected => "connected",
        Some(_) => "disconnected",
    }
}

/// `{"version","build","rustc","config"}`.
pub fn version(live: &Live) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "build": COMMIT,
        "rustc": RUSTC,
        "config": live.config.digest,
    })
}
