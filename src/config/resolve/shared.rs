//! Resolves what several nodes share: the Redis server and what is kept on it.

use std::path::PathBuf;

use super::{Report, trust};
use crate::cluster::redis::{Address, Needs, Settings, TlsSettings};
use crate::config::env::Env;
use crate::config::{InboxEngine, ReplayStore, raw};
use crate::kernel::secret::Secret;

const SET_HOST: &str = "set redis.host or the variable REDIS_HOST";

/// `Some(None)` = no server.
pub(super) fn redis(
    file: &raw::File,
    env: &Env,
    report: &mut Report<'_>,
) -> Option<Option<Settings>> {
    let raw = &file.redis;
    let used_by = used_by(file);
    let keeps_events = file.inbox.engine == raw::InboxEngine::Redis;
    if keeps_events && file.webhooks.replay_store != raw::ReplayStore::Redis {
        report.error(
            "webhooks.replay_store",
            "nodes that share an inbox must share what they have accepted",
            "set it to \"redis\"",
        );
    }
    if raw.host.is_empty() {
        for key in used_by {
            report.error(key, "there is no Redis to keep it on", SET_HOST);
        }
        return Some(None);
    }
    let address = report.take(
        "redis.host",
        address(raw),
        "e.g. `redis.internal` or `unix:/run/redis.sock`",
    );
    let password = trust::find("redis.password", &raw.password, env, report);
    let tls = tls(raw, report);
    notices(raw, &used_by, report);
    Some(Some(Settings {
        address: address?,
        tls: tls?,
        username: (!raw.username.is_empty()).then(|| raw.username.clone()),
        password: password.map(|found| Secret::new(found.text)),
        db: raw.db,
        connect_timeout_ms: raw.connect_timeout_ms,
        response_timeout_ms: raw.response_timeout_ms,
        needs: Needs {
            no_eviction: !used_by.is_empty() && !raw.danger_may_evict,
            durable: keeps_events && !raw.danger_not_durable,
        },
    }))
}

/// Keys that put something on the server.
fn used_by(file: &raw::File) -> Vec<&'static str> {
    let replay = file.webhooks.replay_store == raw::ReplayStore::Redis;
    let inbox = file.inbox.engine == raw::InboxEngine::Redis;
    [(replay, "webhooks.replay_store"), (inbox, "inbox.engine")]
        .into_iter()
        .filter_map(|(uses, key)| uses.then_some(key))
        .collect()
}

pub(super) fn inbox_engine(raw: raw::InboxEngine) -> InboxEngine {
    match raw {
        raw::InboxEngine::Disk => InboxEngine::Disk,
        raw::InboxEngine::Redis => InboxEngine::Redis,
    }
}

pub(super) fn replay_store(raw: raw::ReplayStore) -> ReplayStore {
    match raw {
        raw::ReplayStore::Local => ReplayStore::Local,
        raw::ReplayStore::Redis => ReplayStore::Redis,
    }
}

fn address(raw: &raw::Redis) -> Result<Address, String> {
    let host = raw.host.as_str();
    if let Some(path) = host.strip_prefix("unix:") {
        return match path.starts_with('/') {
            true => Ok(Address::Unix(PathBuf::from(path))),
            false => Err(format!("`{path}` is not an absolute path")),
        };
    }
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_name = host.chars().all(fine);
    match is_name || host.parse::<std::net::Ipv6Addr>().is_ok() {
        true => Ok(Address::Tcp {
            host: host.to_owned(),
            port: raw.port,
        }),
        false => Err(format!("`{host}` is not a host name or an address")),
    }
}

/// `Some(None)` = in clear.
fn tls(raw: &raw::Redis, report: &mut Report<'_>) -> Option<Option<TlsSettings>> {
    let ca_file = raw.ca_file.as_ref().map(PathBuf::from);
    match (raw.tls, ca_file) {
        (true, _) if raw.host.starts_with("unix:") => {
            report.error("redis.tls", "TLS over a Unix socket is not supported", "");
            None
        }
        (true, ca_file) => Some(Some(TlsSettings { ca_file })),
        (false, None) => Some(None),
        (false, Some(_)) => {
            report.error(
                "redis.ca_file",
                "the connection is in clear, so no certificate is looked at",
                "set redis.tls = true",
            );
            None
        }
    }
}

fn notices(raw: &raw::Redis, used_by: &[&str], report: &mut Report<'_>) {
    let mut say = |notice: &str| report.notices.push(notice.into());
    if used_by.is_empty() {
        say(
            "redis.host is set, but nothing is kept there: see webhooks.replay_store and inbox.engine",
        );
    }
    say("limits, stream slots and the cache are per node in this version, Redis or not");
    if raw.danger_may_evict {
        say(
            "redis.danger_may_evict is on: under memory pressure Redis may forget accepted webhooks, \
             which can then be replayed",
        );
    }
    if raw.danger_not_durable {
        say("redis.danger_not_durable is on: events answered with 200 may be lost with Redis");
    }
}
