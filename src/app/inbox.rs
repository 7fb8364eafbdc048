//! Opens the inbox, keeps it swept, drives its deliveries, and closes it on the way out. What is due
//! and what an answer means is decided in `webhook`; who leaves when, in `server`.
//!
//! In an upgrade two processes overlap and one folder belongs to one of them. The successor takes
//! connections at once and lets webhooks wait for its books ([`crate::webhook::books`]); the
//! predecessor closes its own as soon as it accepts nothing new and no webhook holds them. So a
//! provider waits a moment longer, and nobody is refused.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::cluster::redis::RedisError;
use crate::config::{self, InboxEngine, ReplayStore};
use crate::kernel::id::Random;
use crate::listener::drain::{FRESH_GRACE, Phase, settled};
use crate::proxy::deliver::Courier;
use crate::proxy::shared::{Live, Shared};
use crate::telemetry::metrics::Metrics;
use crate::webhook::books::Books;
use crate::webhook::dispatch::{self, Dispatch, Stop};
use crate::webhook::inbox::redis as on_redis;
use crate::webhook::inbox::{
    Commit, Health, Inbox, Observer, OpenError, Opened, Settings, Standing,
};
use crate::webhook::replay;

const LOCAL_LEASE_MS: u32 = 3_600_000;
const REDIS_LEASE_MS_MIN: u32 = 60_000;
/// Pause before an inbox that could not be opened is tried again.
const OPEN_AGAIN: Duration = Duration::from_secs(5);
/// How often what is past its time is forgotten, and space given back.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);
/// How long a start waits for a process that is still writing what it has.
const LOCK_WAIT: Duration = Duration::from_secs(15);
/// How long a successor waits: its predecessor may be finishing slow webhooks.
const LOCK_WAIT_UPGRADE: Duration = Duration::from_secs(120);
/// What deliveries in flight may still take on the way out; the rest is delivered after the restart.
const LAST_ATTEMPTS: Duration = Duration::from_secs(3);
/// How long webhooks under way may hold the books of a process with a successor.
const LAST_WEBHOOKS: Duration = Duration::from_secs(30);
/// Whether a webhook endpoint was added by a reload is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why the process cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{0}")]
    Redis(RedisError),
    #[error("the dispatcher has stopped: {0}")]
    Dispatcher(String),
    #[error("the inbox's writer has stopped: {0}")]
    Stopped(String),
}

/// Runs until the process closes. Nothing is opened while no webhook endpoint is configured.
pub(super) async fn keep(shared: Arc<Shared>) -> Result<(), Broken> {
    let late = shared.live.load().endpoints().next().is_none();
    tokio::select! {
        () = needed(&shared) => {}
        () = shared.drain.reached(Phase::Closed) => return Ok(()),
    }
    let Some(books) = open_in_time(&shared, late).await? else {
        return Ok(());
    };
    shared.books.open(books.clone());

    let (stop, stopped) = watch::channel(Stop::Running);
    let (settings, changes) = watch::channel(delivery_settings(&shared.live.load()));
    let mut deliveries = tokio::spawn(dispatch::run(Dispatch {
        backlog: Arc::new(books.inbox.clone()),
        deliver: Arc::new(Courier::new(shared.clone())),
        clock: shared.clock.clone(),
        random: Arc::new(Random::from_os()),
        metrics: shared.metrics.clone(),
        settings: changes,
        stop: stopped,
    }));
    let serving = serve(&shared, &books.inbox, &settings);
    tokio::select! {
        broken = serving => return Err(broken),
        ended = &mut deliveries => {
            let why = ended.err().map_or("it ended".to_owned(), |error| error.to_string());
            return Err(Broken::Dispatcher(why));
        }
        () = shared.drain.reached(Phase::Draining) => {}
    }
    leave(&shared, &books.inbox, &stop, deliveries).await;
    Ok(())
}

/// A start without its inbox fails. When a reload brings the first endpoint, the process has others to
/// serve: webhooks get 503, readiness says why, and it is tried again. `None` = the process leaves.
async fn open_in_time(shared: &Shared, late: bool) -> Result<Option<Arc<Books>>, Broken> {
    loop {
        let error = match open(shared).await {
            Ok(books) => return Ok(Some(Arc::new(books))),
            Err(error) if late => error,
            Err(error) => return Err(error),
        };
        tracing::error!(%error, "no webhook can be accepted");
        tokio::select! {
            () = tokio::time::sleep(OPEN_AGAIN) => {}
            () = shared.drain.reached(Phase::Closed) => return Ok(None),
        }
    }
}

/// Waits for the first webhook endpoint.
async fn needed(shared: &Shared) {
    while shared.live.load().endpoints().next().is_none() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Opens both where the configuration says. Redis may be away at a start: webhooks get 503 until it is
/// there. One that would lose or evict what it was given is not used at all.
async fn open(shared: &Shared) -> Result<Books, Broken> {
    let live = shared.live.load_full();
    let config = &live.config;
    let policy = replay_policy(&live);
    let redis = shared.redis.clone();
    if let Some(redis) = &redis
        && let Err(error @ (RedisError::Unsuitable(_) | RedisError::Settings(_))) =
            redis.probe().await
    {
        return Err(Broken::Redis(error));
    }
    let prefix = &config.cache.prefix;
    let (inbox, memories) = match (config.inbox.engine, &redis) {
        (InboxEngine::Redis, Some(redis)) => {
            let settings = on_redis::Settings {
                redis: redis.clone(),
                prefix: prefix.clone(),
                policy: config.inbox.policy.clone(),
                clock: shared.clock.clone(),
                lease: on_redis::LEASE,
            };
            (Inbox::on_redis(settings), Vec::new())
        }
        (InboxEngine::Redis | InboxEngine::Disk, _) => {
            let opened = on_disk(shared, &config.inbox).await?;
            (opened.inbox, opened.memories)
        }
    };
    let replay = match (config.replay.store, redis) {
        (ReplayStore::Redis, Some(redis)) => replay::Store::redis(policy, redis, prefix),
        (ReplayStore::Redis | ReplayStore::Local, _) => replay::Store::local(policy, &memories),
    };
    Ok(Books { inbox, replay })
}

async fn on_disk(shared: &Shared, config: &config::Inbox) -> Result<Opened, OpenError> {
    let (path, policy) = (config.path.clone(), config.policy.clone());
    let mut settings = Settings::new(path, policy, shared.clock.clone());
    settings.observer = observer(shared.metrics.clone());
    settings.lock_wait = if shared.successor {
        LOCK_WAIT_UPGRADE
    } else {
        LOCK_WAIT
    };
    let opened = Inbox::open(settings).await?;
    let (path, remembered) = (config.path.display(), opened.memories.len());
    tracing::info!(%path, remembered, "inbox open");
    Ok(opened)
}

fn observer(metrics: Arc<Metrics>) -> Observer {
    Arc::new(move |commit: &Commit| {
        let fsync = if commit.durable { "yes" } else { "no" };
        let seconds = metrics.inbox_commit_seconds.with_label_values(&[fsync]);
        seconds.observe(commit.took.as_secs_f64());
        let commands = u64::try_from(commit.commands).unwrap_or(u64::MAX);
        let none: [&str; 0] = [];
        metrics
            .inbox_commands
            .with_label_values(&none)
            .inc_by(commands);
    })
}

/// A reservation of this process always ends by itself, so its lease is only for what nobody thought of.
/// One on Redis may outlive its node, and has to outlive a delivery in `pass` mode.
fn replay_policy(live: &Live) -> replay::Policy {
    let lease_ms = match live.config.replay.store {
        ReplayStore::Local => LOCAL_LEASE_MS,
        ReplayStore::Redis => super::live::delivery_ms_max(&live.config).max(REDIS_LEASE_MS_MIN),
    };
    replay::Policy {
        entries_max: live.config.replay.entries_max,
        lease_ms,
        ..replay::Policy::default()
    }
}

fn delivery_settings(live: &Live) -> dispatch::Settings {
    dispatch::Settings {
        policy: live.config.dispatch.clone(),
        destinations: live
            .config
            .upstreams
            .keys()
            .cloned()
            .collect::<BTreeSet<_>>(),
    }
}

/// Sweeps, passes reloads on, and watches the writer. Returns only when it is broken for good.
async fn serve(
    shared: &Shared,
    inbox: &Inbox,
    settings: &watch::Sender<dispatch::Settings>,
) -> Broken {
    let mut health = inbox.health();
    let mut tick = tokio::time::interval(EXPIRE_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                // Not writable is seen by readiness, and said by the writer.
                let _ = inbox.expire(shared.clock.unix()).await;
            }
            _ = look.tick() => {
                gauges(shared, inbox).await;
                let live = shared.live.load();
                settings.send_if_modified(|now| {
                    let changed = !Arc::ptr_eq(&now.policy, &live.config.dispatch);
                    if changed {
                        *now = delivery_settings(&live);
                    }
                    changed
                });
            }
            changed = health.changed() => {
                if changed.is_err() {
                    return Broken::Stopped("it is gone".into());
                }
                if let Health::Stopped(why) = &*health.borrow_and_update() {
                    return Broken::Stopped(why.clone());
                }
            }
        }
    }
}

/// What an operator's alarms hang on.
async fn gauges(shared: &Shared, inbox: &Inbox) {
    let metrics = &shared.metrics;
    let none: [&str; 0] = [];
    let writable = i64::from(*inbox.health().borrow() == Health::Ready);
    metrics
        .inbox_writable
        .with_label_values(&none)
        .set(writable);
    let Ok(stats) = inbox.stats().await else {
        return;
    };
    let now = shared.clock.unix();
    let set = |gauge: &prometheus::IntGaugeVec, labels: &[&str], value: u64| {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        gauge.with_label_values(labels).set(value);
    };
    let live = shared.live.load();
    for endpoint in live.endpoints() {
        for standing in Standing::ALL {
            let mut parts = stats.endpoints.iter();
            let part = parts.find(|p| p.endpoint == endpoint.name && p.standing == standing);
            let labels = [endpoint.name.as_ref(), standing.name()];
            let age_ms = part
                .and_then(|p| p.oldest)
                .map_or(0, |oldest| now.0 - oldest.0);
            set(
                &metrics.inbox_entries,
                &labels,
                part.map_or(0, |p| p.entries),
            );
            set(&metrics.inbox_bytes, &labels, part.map_or(0, |p| p.bytes));
            let age_s = u64::try_from(age_ms / 1000).unwrap_or(0);
            set(&metrics.inbox_oldest, &labels, age_s);
        }
    }
    set(&metrics.inbox_claimed, &none, stats.claimed);
    set(&metrics.inbox_disk_bytes, &none, stats.disk_bytes);
}

/// No claims from now on. With a successor the folder is let go as soon as no webhook can still need
/// it; otherwise when everything else is done.
async fn leave(
    shared: &Shared,
    inbox: &Inbox,
    stop: &watch::Sender<Stop>,
    deliveries: tokio::task::JoinHandle<()>,
) {
    let until = shared.clock.instant() + LAST_ATTEMPTS;
    stop.send_replace(Stop::DrainUntil(until));
    if shared.drain.is_upgrade() {
        settled(FRESH_GRACE, || shared.drain.fresh() == 0).await;
        settled(LAST_WEBHOOKS, || shared.books.lent() == 0).await;
    } else {
        shared.drain.reached(Phase::Closed).await;
    }
    shared.books.close();
    if let Err(error) = deliveries.await {
        tracing::error!(%error, "the dispatcher broke off; what it had in flight is delivered again");
    }
    inbox.release().await;
    tracing::info!("inbox closed");
}
