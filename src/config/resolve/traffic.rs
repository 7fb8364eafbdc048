//! Resolves what traffic meets: quotas, pools, cache bounds, and the policies that routes share.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use super::Report;
use crate::config::{CacheLimits, Inbox, ReplayLimits, Route, raw};
use crate::plan::Then;
use crate::webhook::{self, dispatch};
use crate::{cache, limit, stream, upstream};

/// The class that counts what fails verification; routes do not name it.
const WEBHOOKS_FAILED: &str = "webhooks_failed";

pub(super) fn classes(
    file: &raw::File,
    report: &mut Report<'_>,
) -> BTreeMap<String, Arc<limit::Class>> {
    if !file.classes.contains_key(WEBHOOKS_FAILED) {
        let message = format!("there is no class `{WEBHOOKS_FAILED}`");
        report.error(
            "classes",
            message,
            "it counts the webhooks that fail verification",
        );
    }
    if file.classes.contains_key("plan") {
        let message = "`plan` stands for the quota of the caller's plan";
        report.error("classes.plan", message, "choose another name");
    }
    let class = |(name, raw): (&String, &raw::Class)| {
        let class = limit::Class {
            name: Arc::from(name.as_str()),
            quota: quota(raw.requests, raw.window_s),
            key: match raw.key {
                raw::KeyBy::Ip => limit::KeyBy::Ip,
                raw::KeyBy::Principal => limit::KeyBy::Principal,
            },
        };
        (name.clone(), Arc::new(class))
    };
    file.classes.iter().map(class).collect()
}

pub(super) fn plans(file: &raw::File) -> limit::Plans {
    let plan = |(name, q): (&String, &raw::Quota)| (name.clone(), quota(q.requests, q.window_s));
    file.plans.iter().map(plan).collect()
}

fn quota(requests: u32, window_s: u32) -> limit::Quota {
    limit::Quota {
        requests: at_least_one(requests),
        window_s: at_least_one(window_s),
    }
}

/// The schema's minimum is 1 wherever this is used.
fn at_least_one(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN)
}

pub(super) fn upstreams(
    file: &raw::File,
    report: &mut Report<'_>,
) -> BTreeMap<Arc<str>, Arc<upstream::Policy>> {
    let one = |(name, raw): (&String, &raw::Upstream)| {
        let policy = upstream(name, raw, report)?;
        Some((policy.name.clone(), Arc::new(policy)))
    };
    file.upstreams.iter().filter_map(one).collect()
}

fn upstream(name: &str, raw: &raw::Upstream, report: &mut Report<'_>) -> Option<upstream::Policy> {
    let key = format!("upstreams.{name}");
    let mut endpoints = Vec::new();
    for (i, text) in raw.endpoints.iter().enumerate() {
        let key = format!("{key}.endpoints[{i}]");
        let hint = "e.g. `api.internal:8081` or `unix:/run/api.sock`";
        let Some(address) = report.take(&key, address(text), hint) else {
            continue;
        };
        if endpoints.contains(&address) {
            report.error(&key, format!("`{text}` is listed twice"), "");
        }
        endpoints.push(address);
    }
    ordered(
        report,
        &key,
        ("health.timeout_ms", raw.health.timeout_ms),
        ("health.interval_ms", raw.health.interval_ms),
    );
    ordered(
        report,
        &key,
        ("retry.backoff_base_ms", raw.retry.backoff_base_ms),
        ("retry.backoff_cap_ms", raw.retry.backoff_cap_ms),
    );
    if !raw.health.path.starts_with('/') {
        report.error(&format!("{key}.health.path"), "must begin with `/`", "");
    }
    Some(upstream::Policy {
        name: Arc::from(name),
        endpoints,
        connect_timeout_ms: raw.connect_timeout_ms,
        first_byte_timeout_ms: raw.first_byte_timeout_ms,
        write_timeout_ms: raw.write_timeout_ms,
        in_flight_max: raw.in_flight_max,
        health: upstream::HealthPolicy {
            path: raw.health.path.clone(),
            interval_ms: raw.health.interval_ms,
            timeout_ms: raw.health.timeout_ms,
            healthy_after: raw.health.healthy_after,
            unhealthy_after: raw.health.unhealthy_after,
        },
        breaker: upstream::BreakerPolicy {
            failures: raw.breaker.failures,
            window_s: raw.breaker.window_s,
            open_s: raw.breaker.open_s,
        },
        retry: upstream::RetryPolicy {
            attempts_max: raw.retry.attempts_max,
            backoff_base_ms: raw.retry.backoff_base_ms,
            backoff_cap_ms: raw.retry.backoff_cap_ms,
            budget_percent: raw.retry.budget_percent,
        },
    })
}

/// `low` must not be more than `high`.
fn ordered(report: &mut Report<'_>, key: &str, low: (&str, u64), high: (&str, u64)) {
    if low.1 > high.1 {
        let message = format!("{} is more than {} ({})", low.1, high.0, high.1);
        report.error(&format!("{key}.{}", low.0), message, "");
    }
}

fn address(text: &str) -> Result<upstream::Address, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = PathBuf::from(path);
        return match path.is_absolute() {
            true => Ok(upstream::Address::Unix(path)),
            false => Err(format!("`{text}`: the socket's path must be absolute")),
        };
    }
    if text.contains("://") || text.contains('/') {
        return Err(format!(
            "`{text}` is a URL; expected `host:port`, plain HTTP"
        ));
    }
    let parts = text.rsplit_once(':');
    let port = parts
        .and_then(|(_, port)| port.parse::<u16>().ok())
        .filter(|p| *p != 0);
    match (parts, port) {
        (Some((host, _)), Some(_)) if is_host(host) => Ok(upstream::Address::Tcp(text.to_owned())),
        (_, _) => Err(format!("`{text}` is not `host:port`")),
    }
}

fn is_host(host: &str) -> bool {
    let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    match v6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            !host.is_empty() && host.chars().all(fine)
        }
    }
}

pub(super) fn cache(file: &raw::File, report: &mut Report<'_>) -> CacheLimits {
    let raw = &file.cache;
    for (name, policy) in &raw.policies {
        if policy.object_bytes_max > raw.bytes_max {
            report.error(
                &format!("cache.policies.{name}.object_bytes_max"),
                format!(
                    "{} is more than cache.bytes_max ({})",
                    policy.object_bytes_max, raw.bytes_max
                ),
                "",
            );
        }
    }
    if raw.prefix.contains([':', ' ', '\n']) {
        report.error(
            "cache.prefix",
            "must have no `:` and no white space",
            "e.g. `prod`",
        );
    }
    CacheLimits {
        bytes_max: raw.bytes_max,
        prefix: raw.prefix.clone(),
        lock_timeout_ms: raw.lock_timeout_ms,
    }
}

pub(super) fn replay(file: &raw::File) -> ReplayLimits {
    let entries = file.webhooks.replay_entries_max;
    ReplayLimits {
        entries_max: usize::try_from(entries).unwrap_or(usize::MAX),
        store: super::shared::replay_store(file.webhooks.replay_store),
    }
}

/// How stored webhooks are delivered, with what differs by endpoint.
pub(super) fn dispatch(
    file: &raw::File,
    routes: &[Route],
    report: &mut Report<'_>,
) -> dispatch::Policy {
    let raw = &file.dispatch;
    ordered(
        report,
        "dispatch",
        ("backoff_base_ms", raw.backoff_base_ms),
        ("backoff_cap_ms", raw.backoff_cap_ms),
    );
    let endpoints = routes.iter().filter_map(|route| match &route.plan.then {
        Then::Ingest(endpoint) => Some(endpoint),
        Then::Forward { .. } | Then::Subscribe(_) | Then::Reply(_) => None,
    });
    let endpoints = endpoints.map(|endpoint| {
        let declared = file.webhooks.endpoints.get(endpoint.name.as_ref());
        let policy = dispatch::EndpointPolicy {
            order_timeout_s: declared.and_then(|raw| NonZeroU32::new(raw.order_timeout_s)),
        };
        (endpoint.name.clone(), policy)
    });
    dispatch::Policy {
        attempts_max: raw.attempts_max,
        age_max_s: raw.age_max_s,
        kept_max_s: file.inbox.age_max_s,
        backoff_base_ms: raw.backoff_base_ms,
        backoff_cap_ms: raw.backoff_cap_ms,
        concurrency_max: raw.concurrency_max,
        rate_max: raw.rate_max,
        attempt_timeout_ms: raw.attempt_timeout_ms,
        endpoints: endpoints.collect(),
    }
}

/// Where accepted webhooks are kept.
pub(super) fn inbox(raw: &raw::Inbox) -> Inbox {
    Inbox {
        engine: super::shared::inbox_engine(raw.engine),
        path: PathBuf::from(&raw.path),
        policy: webhook::inbox::Policy {
            entries_max: raw.entries_max,
            bytes_max: raw.bytes_max,
            dead_keep_s: raw.dead_keep_s,
            delivered_keep_s: raw.delivered_keep_s,
            delivered_bytes_max: raw.delivered_bytes_max,
            disk_free_bytes_min: raw.disk_free_bytes_min,
        },
    }
}

/// A route's cache policy; `None` where its life time is 0.
pub(super) fn cache_policy(name: &str, raw: &raw::CachePolicy) -> Arc<cache::Policy> {
    Arc::new(cache::Policy {
        name: Arc::from(name),
        ttl_s: raw.ttl_s,
        scope: match raw.scope {
            raw::Scope::Public => cache::Scope::Public,
            raw::Scope::Org => cache::Scope::Org,
            raw::Scope::User => cache::Scope::User,
        },
        query: raw.query.clone(),
        stale_while_revalidate_s: raw.stale_while_revalidate_s,
        stale_if_error_s: raw.stale_if_error_s,
        object_bytes_max: usize::try_from(raw.object_bytes_max).unwrap_or(usize::MAX),
        client_no_cache: match raw.client_no_cache {
            raw::ClientNoCache::Ignore => cache::ClientNoCache::Ignore,
            raw::ClientNoCache::Honour => cache::ClientNoCache::Honour,
        },
    })
}

/// A route's stream policy.
pub(super) fn stream_policy(upstream: &str, raw: &raw::Stream) -> Arc<stream::Policy> {
    Arc::new(stream::Policy {
        upstream: Arc::from(upstream),
        heartbeat_s: raw.heartbeat_s,
        connects_per_min: at_least_one(raw.connects_per_min),
        concurrent_per_user: raw.concurrent_per_user,
        lifetime_s: raw.lifetime_s,
        write_timeout_ms: raw.write_timeout_ms,
    })
}
