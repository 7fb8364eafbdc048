//! The inbox that several nodes share, on Redis Streams. Each verb is one script, so it is one step for
//! every node; the scripts say how entries are kept (`redis/entry.lua`).
//!
//! What is ready is an entry of a stream, read through a consumer group in which each engine is one
//! consumer. A claim is renewed while its engine lives; one that was not renewed for the length of the
//! lease goes to whoever claims next. What waits for its time is in a sorted set.
//!
//! Invariants: only claims whose answer has arrived here are renewed, so one whose answer was lost runs
//! out by itself; and what [`Redis`] has acknowledged is on its disk, because the connection refuses a
//! server that does not promise so (`cluster::redis::Needs`).

mod answer;
mod arguments;
mod keeper;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::{FromRedisValue, Script};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::command::Command;
use super::event::{Claimed, EntryId, Event, Memory, Settlement, Unwritable};
use super::key::lane_of;
use super::operator::{Filter, Order, Page, Shown, Standing, Stats};
use super::record::encode_event;
use super::{Health, Policy, Unreadable};
use crate::cluster::redis::{Redis, RedisError};
use crate::kernel::clock::{Clock, UnixMs};
use crate::webhook::replay;
use answer::Bulk;
use arguments::Arguments;

/// Bodies of one claim; one entry more may be taken.
const CLAIM_BYTES_MAX: usize = 4 << 20;
/// Entries that one page looks at, and that one step of expiry or release removes.
const LOOK_MAX: usize = 256;
const STEP_MAX: usize = 500;
/// A node that holds nothing and was not seen for so long is forgotten.
const NODE_IDLE_MS: u64 = 3_600_000;

macro_rules! script {
    ($name:literal) => {
        LazyLock::new(|| {
            Script::new(concat!(
                include_str!("redis/entry.lua"),
                include_str!(concat!("redis/", $name, ".lua"))
            ))
        })
    };
}

static APPEND: LazyLock<Script> = script!("append");
static CLAIM: LazyLock<Script> = script!("claim");
static RENEW: LazyLock<Script> = script!("renew");
static SETTLE: LazyLock<Script> = script!("settle");
static REDELIVER: LazyLock<Script> = script!("redeliver");
static DISCARD: LazyLock<Script> = script!("discard");
static EXPIRE: LazyLock<Script> = script!("expire");
static LIST: LazyLock<Script> = script!("list");
static SHOW: LazyLock<Script> = script!("show");
static STATS: LazyLock<Script> = script!("stats");
static NEXT_DUE: LazyLock<Script> = script!("next_due");
static RELEASE: LazyLock<Script> = script!("release");

/// Far longer than a node that is alive could be kept from saying so, and than Redis may be away
/// without a second delivery of what is in flight.
pub const LEASE: Duration = Duration::from_secs(30);

/// What an inbox on Redis is opened with.
#[derive(Clone, Debug)]
pub struct Settings {
    pub redis: Redis,
    /// First part of every key; the same as the replay store's.
    pub prefix: String,
    /// Of it `disk_free_bytes_min` means nothing here.
    pub policy: Policy,
    pub clock: Clock,
    /// How long after its last sign of life a node's claims go to others: [`LEASE`] but in tests.
    pub lease: Duration,
}

/// Handle of the engine; clones share it. When the last one goes, its claims run out.
#[derive(Clone)]
pub struct OnRedis(Arc<Parts>);

struct Parts {
    settings: Settings,
    /// This engine among those that share the inbox.
    node: String,
    /// Destination and place in its stream of each claim that is worked on.
    claimed: Mutex<HashMap<EntryId, (String, String)>>,
    released: AtomicBool,
    health: watch::Sender<Health>,
    changed: watch::Sender<u64>,
}

impl std::fmt::Debug for OnRedis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnRedis")
    }
}

impl OnRedis {
    /// Needs a Tokio runtime; reaches the server when it is first used.
    pub(super) fn open(settings: Settings) -> Self {
        let engine = Self(Arc::new(Parts {
            node: settings.redis.token(),
            settings,
            claimed: Mutex::default(),
            released: AtomicBool::new(false),
            health: watch::Sender::new(Health::Ready),
            changed: watch::Sender::new(0),
        }));
        keeper::spawn(&engine);
        engine
    }

    /// The engine's part of whatever changes something.
    pub(super) async fn run(&self, command: Command) -> Result<u64, Unwritable> {
        match command {
            Command::Append { event, memories } => {
                self.append(&event, &memories).await.map(|id| id.0)
            }
            Command::Remember(memories) => self.remember(&memories).await.map(|()| 0),
            Command::Settle { settled, now } => self.settle(&settled, now).await.map(|()| 0),
            Command::Redeliver { entries, now } => self.redeliver(&entries, now).await,
            Command::Discard { ids, now } => self.discard(&ids, now).await,
            Command::Expire { now } => self.expire(now).await.map(|()| 0),
        }
    }

    async fn append(&self, event: &Event, memories: &[Memory]) -> Result<EntryId, Unwritable> {
        let failed = |why: String| Unwritable::Failed(why);
        let body = encode_event(event).map_err(|e| failed(e.to_string()))?;
        let id = self.keep(Some((event, body)), memories).await?;
        match id.as_str() {
            "entries_max" => Err(Unwritable::Full {
                limit: "inbox.entries_max",
            }),
            "bytes_max" => Err(Unwritable::Full {
                limit: "inbox.bytes_max",
            }),
            id => {
                self.change();
                answer::id(id).ok_or_else(|| failed(format!("`{id}` is no id")))
            }
        }
    }

    async fn remember(&self, memories: &[Memory]) -> Result<(), Unwritable> {
        self.keep(None, memories).await.map(drop)
    }

    async fn keep(
        &self,
        event: Option<(&Event, Vec<u8>)>,
        memories: &[Memory],
    ) -> Result<String, Unwritable> {
        self.able()?;
        let Settings { policy, prefix, .. } = &self.0.settings;
        let mut keys = vec![self.prefix()];
        keys.extend(
            memories
                .iter()
                .map(|m| replay::shared_key(prefix, m.of, m.key)),
        );
        let mut call = Arguments::default();
        call.number(policy.entries_max).number(policy.bytes_max);
        match event {
            Some((event, body)) => {
                let bytes = body.len();
                call.text(&event.endpoint)
                    .text(&event.destination)
                    .text(&event.event_id)
                    .text(&hash(&event.event_id))
                    .bytes(body)
                    .number(bytes)
                    .number(event.received_at.0)
                    .text(&lane_of(event).map(hex::encode).unwrap_or_default());
            }
            None => {
                (0..8).for_each(|_| {
                    call.text("");
                });
            }
        }
        call.number(self.0.settings.clock.unix().0)
            .number(replay::SHARED_MARGIN_MS);
        for memory in memories {
            call.number(memory.until.0);
        }
        self.eval_on(&APPEND, &keys, call).await.map_err(unwritable)
    }

    pub(super) async fn claim(&self, destination: &str, max: usize, now: UnixMs) -> Vec<Claimed> {
        if max == 0 || self.able().is_err() {
            return Vec::new();
        }
        let mut call = Arguments::default();
        call.text(destination)
            .number(max)
            .number(now.0)
            .text(&self.0.node)
            .number(self.0.settings.lease.as_millis())
            .number(CLAIM_BYTES_MAX);
        let rows: Vec<Vec<Bulk>> = match self.eval(&CLAIM, call).await {
            Ok(rows) => rows,
            // Known from `health`.
            Err(RedisError::Away(_)) => return Vec::new(),
            Err(error) => {
                tracing::error!(%error, "nothing can be claimed from the inbox");
                return Vec::new();
            }
        };
        let mut entries = Vec::with_capacity(rows.len());
        let mut claims = self.claims();
        for row in rows {
            match answer::claimed(&row) {
                Ok((entry, at)) => {
                    claims.insert(entry.id, (destination.to_owned(), at));
                    entries.push(entry);
                }
                // It stays claimed for a lease, so that it is said seldom and holds nobody up.
                Err(error) => tracing::error!(%error, "an entry of the inbox cannot be read"),
            }
        }
        entries
    }

    async fn settle(
        &self,
        settled: &[(EntryId, Settlement)],
        now: UnixMs,
    ) -> Result<(), Unwritable> {
        if settled.is_empty() {
            return Ok(());
        }
        let mut call = Arguments::default();
        call.number(now.0)
            .text(&self.0.node)
            .number(self.0.settings.policy.delivered_bytes_max);
        for (id, settlement) in settled {
            call.text(&answer::name(*id)).settlement(settlement);
        }
        let done = self.eval::<String>(&SETTLE, call).await;
        done.map_err(unwritable)?;
        let mut claims = self.claims();
        for (id, _) in settled {
            claims.remove(id);
        }
        drop(claims);
        self.change();
        Ok(())
    }

    async fn redeliver(
        &self,
        entries: &[(EntryId, UnixMs)],
        now: UnixMs,
    ) -> Result<u64, Unwritable> {
        let mut call = Arguments::default();
        call.number(now.0);
        for (id, due) in entries {
            call.text(&answer::name(*id)).number(due.0);
        }
        let touched = self.eval(&REDELIVER, call).await.map_err(unwritable)?;
        self.change();
        Ok(touched)
    }

    async fn discard(&self, ids: &[EntryId], now: UnixMs) -> Result<u64, Unwritable> {
        let mut call = Arguments::default();
        call.number(now.0);
        for id in ids {
            call.text(&answer::name(*id));
        }
        let touched = self.eval(&DISCARD, call).await.map_err(unwritable)?;
        self.change();
        Ok(touched)
    }

    async fn expire(&self, now: UnixMs) -> Result<(), Unwritable> {
        let Policy {
            delivered_keep_s,
            dead_keep_s,
            delivered_bytes_max,
            ..
        } = &self.0.settings.policy;
        let before = |keep_s: &u32| now.0.saturating_sub(i64::from(*keep_s) * 1_000);
        loop {
            let mut call = Arguments::default();
            call.number(now.0)
                .number(before(delivered_keep_s))
                .number(before(dead_keep_s))
                .number(delivered_bytes_max)
                .number(STEP_MAX)
                .number(NODE_IDLE_MS);
            let more: u64 = self.eval(&EXPIRE, call).await.map_err(unwritable)?;
            if more == 0 {
                return Ok(());
            }
        }
    }

    pub(super) async fn list(
        &self,
        filter: &Filter,
        cursor: Option<EntryId>,
        limit: usize,
    ) -> Result<Page, Unreadable> {
        let optional = |at: Option<UnixMs>| at.map(|at| at.0.to_string()).unwrap_or_default();
        let event_id = filter.event_id.as_deref().unwrap_or_default();
        let mut call = Arguments::default();
        call.text(match filter.order {
            Order::OldestFirst => "oldest",
            Order::NewestFirst => "newest",
        })
        .text(&cursor.map(|id| id.0.to_string()).unwrap_or_default())
        .number(limit)
        .number(LOOK_MAX)
        .text(filter.standing.map_or("", Standing::name))
        .text(filter.endpoint.as_deref().unwrap_or_default())
        .text(event_id)
        .text(&hash(event_id))
        .text(&optional(filter.from))
        .text(&optional(filter.to));
        let rows = self.eval(&LIST, call).await.map_err(unreadable)?;
        answer::page(rows)
    }

    pub(super) async fn show(&self, id: EntryId) -> Result<Option<Shown>, Unreadable> {
        let mut call = Arguments::default();
        call.text(&answer::name(id));
        let row: Vec<Bulk> = self.eval(&SHOW, call).await.map_err(unreadable)?;
        answer::shown(&row)
    }

    pub(super) async fn stats(&self) -> Result<Stats, Unreadable> {
        let rows: Result<Vec<Vec<Bulk>>, _> = self.eval(&STATS, Arguments::default()).await;
        answer::stats(&rows.map_err(unreadable)?)
    }

    pub(super) async fn next_due(&self, destination: &str) -> Option<UnixMs> {
        let mut call = Arguments::default();
        call.text(destination);
        let due: String = self.eval(&NEXT_DUE, call).await.ok()?;
        due.parse().ok().map(UnixMs)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.0.health.subscribe()
    }

    /// Gives its claims back at once, where they would run out otherwise.
    pub(super) async fn release(&self) {
        self.0.released.store(true, Ordering::Relaxed);
        self.0.health.send_replace(Health::Released);
        self.claims().clear();
        loop {
            let mut call = Arguments::default();
            call.text(&self.0.node).number(STEP_MAX);
            match self.eval::<u64>(&RELEASE, call).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "claims of the inbox are not given back; they run out");
                    return;
                }
            }
        }
    }

    /// Takes part again.
    pub(super) fn resume(&self) {
        self.0.released.store(false, Ordering::Relaxed);
        self.0.health.send_replace(Health::Ready);
        self.change();
    }

    fn able(&self) -> Result<(), Unwritable> {
        match self.0.released.load(Ordering::Relaxed) {
            true => Err(Unwritable::Failed(Health::Released.to_string())),
            false => Ok(()),
        }
    }

    fn change(&self) {
        self.0.changed.send_modify(|count| *count += 1);
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<EntryId, (String, String)>> {
        self.0
            .claimed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn prefix(&self) -> Vec<u8> {
        format!("{}:inbox", self.0.settings.prefix).into_bytes()
    }

    async fn eval<T: FromRedisValue>(
        &self,
        script: &Script,
        call: Arguments,
    ) -> Result<T, RedisError> {
        self.eval_on(script, &[self.prefix()], call).await
    }

    async fn eval_on<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[Vec<u8>],
        call: Arguments,
    ) -> Result<T, RedisError> {
        let arguments: Vec<_> = call.0.iter().map(Vec::as_slice).collect();
        self.0.settings.redis.eval(script, keys, &arguments).await
    }
}

/// Spreads event ids of any length over keys of one.
fn hash(event_id: &str) -> String {
    let digest = Sha256::digest(event_id.as_bytes());
    hex::encode(digest.get(..16).unwrap_or_default())
}

fn unwritable(error: RedisError) -> Unwritable {
    match error {
        RedisError::Full => Unwritable::Full {
            limit: "maxmemory of Redis",
        },
        RedisError::Away(_)
        | RedisError::TooSlow { .. }
        | RedisError::Broken(_)
        | RedisError::Refused(_)
        | RedisError::Unsuitable(_)
        | RedisError::Settings(_) => Unwritable::Failed(error.to_string()),
    }
}

fn unreadable(error: RedisError) -> Unreadable {
    Unreadable(error.to_string())
}
