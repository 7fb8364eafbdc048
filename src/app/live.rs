//! What is built from a configuration: the routing table, the pools, the certificates, the embedded
//! API, and the admin listener's view.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use prometheus::core::Collector as _;
use serde_json::{Value, json};

use super::banner::Demo;
use super::keys::Fetcher;
use crate::admin::View;
use crate::auth::{KeyFetch, Verifier, assertion};
use crate::config::{Config, Environment};
use crate::kernel::clock::Clock;
use crate::listener::cert::ensure_development;
use crate::listener::drain::DrainState;
use crate::listener::tls::Tls;
use crate::proxy::builtin;
use crate::proxy::shared::Shared;
use crate::route::table::Table;
use crate::upstream::pool::Pool;
use crate::webhook::delivery;
use crate::webhook::scheme::print_rfc3339;

pub(super) use crate::proxy::shared::Live;

/// Verified tokens that are remembered.
const TOKENS_MAX: usize = 100_000;
/// Certificates in this folder are made when they are missing.
const DEVELOPMENT_CERTIFICATES: &str = "certs/dev";
/// Slack of a webhook's reservation over the longest delivery.
const LEASE_SLACK_MS: u64 = 5_000;

impl Live {
    /// Builds it whole. Pools of the configuration before this one go on under their names.
    pub(super) fn build(
        config: Config,
        before: Option<&Self>,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let routes = config.routes.iter();
        let routes = routes.map(|r| (r.pattern.clone(), r.methods.clone(), r.plan.clone()));
        let routes = Table::build(routes)?;
        let deliveries =
            delivery::Signer::new(&config.delivery_secret).context("delivery.secret")?;
        let assertions = assertion::Signer::new(&config.assertion_secret)
            .context("identity.assertion_secret")?;
        let known = |name: &Arc<str>| before.and_then(|live| live.pools.get(name)).cloned();
        let pools: HashMap<Arc<str>, Arc<Pool>> = config
            .upstreams
            .iter()
            .map(|(name, policy)| {
                let fresh = || Pool::new(policy.as_ref().clone(), clock.instant());
                (name.clone(), known(name).unwrap_or_else(fresh))
            })
            .collect();
        let verifier = match before {
            // Keys and verified tokens stay known.
            Some(live) if live.config.issuers == config.issuers => live.verifier.clone(),
            Some(_) | None => {
                let fetch: Arc<dyn KeyFetch> = Arc::new(Fetcher {
                    pools: pools.clone(),
                });
                Arc::new(Verifier::new(config.issuers.clone(), &fetch, TOKENS_MAX))
            }
        };
        Ok(Self {
            config,
            routes,
            pools,
            verifier,
            assertions,
            deliveries,
        })
    }

    /// Gives pools that go on their new policies; called once nothing can fail any more.
    pub(super) fn take_effect(&self) {
        for (name, pool) in &self.pools {
            if let Some(policy) = self.config.upstreams.get(name)
                && *pool.policy() != **policy
            {
                pool.reconfigure(policy.as_ref().clone());
            }
        }
    }
}

/// The longest that a delivery may take, so that a reservation outlives it.
pub(super) fn delivery_ms_max(config: &Config) -> u32 {
    let longest = config
        .upstreams
        .values()
        .map(|p| p.connect_timeout_ms + 2 * p.first_byte_timeout_ms)
        .max();
    u32::try_from(longest.unwrap_or(0) + LEASE_SLACK_MS).unwrap_or(u32::MAX)
}

/// The https listener's certificates; in development they are made when missing.
pub(super) fn tls(config: &Config, clock: &Clock) -> anyhow::Result<Option<Arc<Tls>>> {
    let Some((_, policy)) = &config.https else {
        return Ok(None);
    };
    let files = policy
        .certificates
        .first()
        .filter(|_| policy.certificates.len() == 1);
    if let (Environment::Development, Some(files)) = (config.environment, files)
        && let Some(folder) = files
            .chain
            .parent()
            .filter(|f| f.ends_with(DEVELOPMENT_CERTIFICATES))
    {
        ensure_development(folder, &[], clock.unix())?;
    }
    Ok(Some(Tls::new(policy)?))
}

/// Starts the API in this process where the configuration asks for it; gives its demo data.
#[cfg(feature = "embedded-api")]
pub(super) fn start_embedded_api(
    config: &Config,
    state: &DrainState,
) -> anyhow::Result<Option<Demo>> {
    match &config.embedded_api {
        Some(api) => crate::embedded_api::start(api, config, state),
        None => Ok(None),
    }
}

/// This binary was built without the API.
#[cfg(not(feature = "embedded-api"))]
pub(super) fn start_embedded_api(
    config: &Config,
    _state: &DrainState,
) -> anyhow::Result<Option<Demo>> {
    if config.embedded_api.is_some() {
        anyhow::bail!("embedded_api is configured, but this binary was built without it");
    }
    Ok(None)
}

/// What the admin listener shows.
pub(super) fn view(shared: &Arc<Shared>) -> View {
    let (metrics, detail, refusals) = (shared.clone(), shared.clone(), shared.clone());
    let (version, config, webhooks) = (shared.clone(), shared.clone(), shared.clone());
    let (token, books) = (shared.clone(), shared.clone());
    View {
        metrics: Box::new(move || {
            metrics.live.load().config.metrics.then(|| {
                gauges(&metrics);
                metrics.metrics.text()
            })
        }),
        detail: Box::new(move || detailed(&detail)),
        refusals: Box::new(move || refusals.refusals.list()),
        version: Box::new(move || builtin::version(&version.live.load())),
        config: Box::new(move || reload_status(&config)),
        webhooks: Box::new(move || webhook_counts(&webhooks)),
        inbox: Box::new(move || books.books.look().map(|books| books.inbox.clone())),
        token: Box::new(move || token.live.load().config.admin_token.clone()),
        clock: shared.clock.clone(),
    }
}

/// Webhooks that this process remembers.
fn remembered(shared: &Shared) -> usize {
    let books = shared.books.look();
    books
        .and_then(|books| books.replay.remembered())
        .unwrap_or(0)
}

/// Webhooks since the start, as the metric has them.
fn webhook_counts(shared: &Shared) -> Value {
    let families = shared.metrics.webhooks.collect();
    let series = families.iter().flat_map(|family| family.get_metric());
    let row = |metric: &prometheus::proto::Metric| {
        let label = |name: &str| {
            let mut pairs = metric.get_label().iter();
            pairs
                .find(|pair| pair.name() == name)
                .map(|pair| pair.value().to_owned())
        };
        // A counter of whole numbers.
        let count = metric.get_counter().get_value() as u64;
        json!({ "endpoint": label("endpoint"), "outcome": label("outcome"), "count": count })
    };
    series.map(row).collect()
}

fn redis(shared: &Shared) -> Value {
    let Some(redis) = &shared.redis else {
        return json!({ "state": "disabled" });
    };
    let health = redis.health();
    let error = health
        .last_error
        .map(|(at, why)| json!({ "at": print_rfc3339(at), "error": why }));
    json!({
        "state": if health.connected { "connected" } else { "disconnected" },
        "since": print_rfc3339(health.since),
        "last_error": error,
    })
}

/// Gauges are read off the state when somebody looks.
fn gauges(shared: &Shared) {
    let metrics = &shared.metrics;
    let now = shared.clock.instant();
    let none: &[&str] = &[];
    metrics
        .replay_entries
        .with_label_values(none)
        .set(to_i64(remembered(shared)));
    let cache = shared.cache.store().stats();
    metrics
        .cache_bytes
        .with_label_values(none)
        .set(i64::try_from(cache.bytes).unwrap_or(i64::MAX));
    let forgotten = metrics.cache_invalidated.with_label_values(none);
    forgotten.inc_by(cache.invalidated.saturating_sub(forgotten.get()));
    for (name, pool) in &shared.live.load().pools {
        let policy = pool.policy();
        metrics
            .upstream_in_flight
            .with_label_values(&[name])
            .set(pool.in_flight().into());
        for endpoint in pool.endpoints().iter() {
            let labels = [name.as_ref(), &endpoint.address().to_string()];
            metrics
                .upstream_up
                .with_label_values(&labels)
                .set(endpoint.is_healthy().into());
            let state = endpoint.breaker_state(&policy, now);
            metrics
                .upstream_breaker
                .with_label_values(&labels)
                .set(state.as_number());
        }
    }
    if let Some(tls) = &shared.tls {
        for (name, at) in tls.certificates().expiries() {
            metrics
                .certificate_expiry
                .with_label_values(&[&name])
                .set(at.seconds());
        }
    }
}

/// `/health/detailed`: per component its state, since when, and its depths.
fn detailed(shared: &Shared) -> Value {
    let live = shared.live.load();
    let now = shared.clock.instant();
    let mut pools = serde_json::Map::new();
    for (name, pool) in &live.pools {
        let policy = pool.policy();
        let endpoints: Vec<Value> = pool
            .endpoints()
            .iter()
            .map(|e| {
                json!({
                    "address": e.address().to_string(),
                    "healthy": e.is_healthy(),
                    "changed_at_unix_ms": e.health_since().0,
                    "breaker": e.breaker_state(&policy, now).as_str(),
                    "in_flight": e.in_flight(),
                })
            })
            .collect();
        let body = json!({
            "available": pool.is_available(now),
            "in_flight": pool.in_flight(),
            "in_flight_max": policy.in_flight_max,
            "endpoints": endpoints,
        });
        pools.insert(name.to_string(), body);
    }
    json!({
        "ready": builtin::not_ready(shared, &live).is_empty(),
        "not_ready": builtin::not_ready(shared, &live),
        "phase": format!("{:?}", shared.drain.phase()).to_lowercase(),
        "requests_in_flight": shared.drain.in_flight(),
        "connections": shared.drain.connections(),
        "upstreams": pools,
        "replay": { "entries": remembered(shared), "entries_max": live.config.replay.entries_max },
        "cache": { "bytes": shared.cache.store().stats().bytes, "bytes_max": live.config.cache.bytes_max },
        "config": reload_status(shared),
        "redis": redis(shared),
    })
}

fn reload_status(shared: &Shared) -> Value {
    let status = shared.reload.load();
    json!({
        "digest": status.digest,
        "loaded_at_unix_ms": status.loaded_at.0,
        "last_errors": status.last_errors,
        "needs_restart": status.needs_restart,
    })
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
