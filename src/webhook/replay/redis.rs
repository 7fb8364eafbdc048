//! The memory that all nodes share, on Redis. Each verb is one script, so it is one step for everybody.
//!
//! Whether an accepted message still counts is judged by the clock that judged its timestamp, the
//! asking node's; keys live longer than that by [`MARGIN_MS`], so clocks may differ by as much. Leases
//! run by the server's clock, the one that all nodes have in common.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ::redis::Script;

use super::{Claim, Policy, ReplayKey, Standing};
use crate::cluster::redis::{Redis, RedisError};
use crate::kernel::clock::UnixMs;
use crate::webhook::inbox::{Memory, MemoryOf};
use crate::webhook::refusal::Refusal;

static RESERVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("reserve.lua")));
static COMMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("commit.lua")));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("release.lua")));

/// How far the clocks of two nodes may differ.
pub(in crate::webhook) const MARGIN_MS: i64 = 60_000;
/// How often a commit or a release is tried in the background, and the first pause between two tries.
const SETTLE_TRIES: u32 = 10;
const SETTLE_PAUSE: Duration = Duration::from_millis(100);
const SETTLE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Handle of the store; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    redis: Redis,
    policy: Policy,
    prefix: Arc<str>,
}

/// The key under which a message or an event id is remembered. Whoever writes a [`Memory`] to the same
/// server writes it here.
pub(in crate::webhook) fn key(prefix: &str, of: MemoryOf, key: ReplayKey) -> Vec<u8> {
    let of = match of {
        MemoryOf::Message => "message",
        MemoryOf::Event => "event",
    };
    format!("{prefix}:replay:{of}:{}", hex::encode(key.0)).into_bytes()
}

impl Shared {
    pub(super) fn new(policy: Policy, redis: Redis, prefix: &str) -> Self {
        Self {
            redis,
            policy,
            prefix: prefix.into(),
        }
    }

    pub(super) async fn claim(&self, claim: Claim, now: UnixMs) -> Result<Standing<Held>, Refusal> {
        // Held before it is asked for: if the answer never comes, it is released all the same.
        let mut held = Held {
            store: self.clone(),
            claim,
            holder: self.redis.token(),
            state: State::Open,
        };
        let until = claim.message(&self.policy, now).until;
        let numbers = [
            now.0.to_string(),
            self.policy.lease_ms.to_string(),
            until.0.to_string(),
            MARGIN_MS.to_string(),
        ];
        let mut arguments = vec![held.holder.as_bytes()];
        arguments.extend(numbers.iter().map(String::as_bytes));
        let answer: String = match self.redis.eval(&RESERVE, &held.keys(), &arguments).await {
            Ok(answer) => answer,
            Err(error) => {
                if !may_have_happened(&error) {
                    held.state = State::Settled;
                }
                return failed(&error).map_or(Ok(Standing::Full), Err);
            }
        };
        let standing = match answer.as_str() {
            "fresh" => return Ok(Standing::Fresh(held)),
            "message_done" => Standing::MessageDone,
            "event_done" => Standing::EventDone,
            "in_flight" => Standing::InFlight,
            other => {
                tracing::error!(
                    answer = other,
                    "the replay script answers in another language"
                );
                return Err(Refusal::StoreAway);
            }
        };
        held.state = State::Settled;
        Ok(standing)
    }

    async fn remember(&self, rows: &[Memory], now: UnixMs) -> Result<(), RedisError> {
        let keys: Vec<_> = rows
            .iter()
            .map(|row| key(&self.prefix, row.of, row.key))
            .collect();
        let mut numbers = vec![now.0.to_string(), MARGIN_MS.to_string()];
        numbers.extend(rows.iter().map(|row| row.until.0.to_string()));
        let arguments: Vec<_> = numbers.iter().map(String::as_bytes).collect();
        self.redis
            .eval::<String>(&COMMIT, &keys, &arguments)
            .await
            .map(drop)
    }
}

/// `None`: the server is there and has no room.
fn failed(error: &RedisError) -> Option<Refusal> {
    match error {
        RedisError::Full => None,
        RedisError::Away(_)
        | RedisError::TooSlow { .. }
        | RedisError::Broken(_)
        | RedisError::Unsuitable(_)
        | RedisError::Settings(_) => Some(Refusal::StoreAway),
        RedisError::Refused(why) => {
            tracing::error!(error = why, "Redis refuses the replay script");
            Some(Refusal::StoreAway)
        }
    }
}

fn may_have_happened(error: &RedisError) -> bool {
    match error {
        RedisError::TooSlow { .. } | RedisError::Broken(_) => true,
        RedisError::Away(_)
        | RedisError::Full
        | RedisError::Refused(_)
        | RedisError::Unsuitable(_)
        | RedisError::Settings(_) => false,
    }
}

/// What one claim holds. What is still to be said when it is dropped is said in the background.
#[derive(Debug)]
pub(super) struct Held {
    store: Shared,
    claim: Claim,
    holder: String,
    state: State,
}

#[derive(Debug)]
enum State {
    /// To be released.
    Open,
    /// To be remembered; the server has not answered yet.
    Committing(Vec<Memory>, UnixMs),
    Settled,
}

impl Held {
    pub(super) fn memory(&self, now: UnixMs) -> Vec<Memory> {
        self.claim.memory(&self.store.policy, now)
    }

    pub(super) async fn commit(mut self, now: UnixMs) -> Result<(), Refusal> {
        let rows = self.memory(now);
        self.state = State::Committing(rows.clone(), now);
        match self.store.remember(&rows, now).await {
            Ok(()) => {
                self.state = State::Settled;
                Ok(())
            }
            Err(error) => Err(failed(&error).unwrap_or(Refusal::StoreFull)),
        }
    }

    fn keys(&self) -> Vec<Vec<u8>> {
        let prefix = &self.store.prefix;
        let message = key(prefix, MemoryOf::Message, self.claim.message);
        let event = self.claim.event.map(|k| key(prefix, MemoryOf::Event, k));
        std::iter::once(message).chain(event).collect()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let last_word = match std::mem::replace(&mut self.state, State::Settled) {
            State::Settled => return,
            State::Open => LastWord::Release {
                keys: self.keys(),
                holder: std::mem::take(&mut self.holder),
            },
            State::Committing(rows, now) => LastWord::Remember { rows, now },
        };
        let store = self.store.clone();
        self.store
            .redis
            .later(async move { last_word.say(&store).await });
    }
}

/// What is said in the background.
enum LastWord {
    Release { keys: Vec<Vec<u8>>, holder: String },
    Remember { rows: Vec<Memory>, now: UnixMs },
}

impl LastWord {
    async fn say(self, store: &Shared) {
        let mut pause = SETTLE_PAUSE;
        for _ in 0..SETTLE_TRIES {
            if self.try_once(store).await.is_ok() {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(SETTLE_PAUSE_MAX);
        }
    }

    async fn try_once(&self, store: &Shared) -> Result<(), RedisError> {
        match self {
            Self::Release { keys, holder } => {
                let holder = [holder.as_bytes()];
                let released = store.redis.eval::<String>(&RELEASE, keys, &holder);
                released.await.map(drop)
            }
            Self::Remember { rows, now } => store.remember(rows, *now).await,
        }
    }
}
