//! Decides whether a verified webhook is the first of its kind. Protects against replay (the same
//! signed bytes again) and against double delivery (the same event signed anew). Does not verify.
//!
//! An accepted message is remembered until its own timestamp would have it refused; an event id for
//! as long as the policy says. What is remembered is never dropped early: a full store refuses.
//!
//! In this process ([`Store::local`]): about 250 bytes for each remembered message and as much again
//! for each event id, so `entries_max` of one million is at most 0.5 GB. What must outlive the process
//! is what [`Reservation::memory`] gives: its caller writes it together with the event, and hands it
//! back at the next start.
//!
//! On Redis ([`Store::redis`]): what one node accepted is a replay at every node.

mod local;
mod redis;

use sha2::{Digest, Sha256};

use super::inbox::{Memory, MemoryOf};
use super::refusal::Refusal;
use super::scheme::OnReplay;
use super::verify::Verified;
use crate::cluster::redis::Redis;
use crate::kernel::clock::UnixMs;
use local::Local;
pub(in crate::webhook) use redis::{MARGIN_MS as SHARED_MARGIN_MS, key as shared_key};

/// Names signed bytes at an endpoint: a SHA-256.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReplayKey(pub [u8; 32]);

/// How much is remembered and for how long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Most messages, and most event ids, that are remembered at a time; in this process only. On
    /// Redis it is `maxmemory` that bounds them.
    pub entries_max: usize,
    /// A reservation that is neither committed nor released counts no longer after this time. Must
    /// be longer than a delivery may take.
    pub lease_ms: u32,
    /// How long an event id is remembered, and a message of a scheme without timestamps.
    pub event_dedupe_s: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            entries_max: 1_000_000,
            lease_ms: 60_000,
            event_dedupe_s: 24 * 3600,
        }
    }
}

/// What is to be done with a verified webhook.
#[derive(Debug)]
pub enum Arrival {
    /// It is the first: deliver it, then commit or release the reservation.
    Fresh(Reservation),
    /// It was accepted before and the provider should be told so: 200 without a delivery.
    Duplicate,
}

/// What a message asks for.
#[derive(Clone, Copy, Debug)]
struct Claim {
    message: ReplayKey,
    event: Option<ReplayKey>,
    expires_at: Option<UnixMs>,
}

impl Claim {
    /// How the message is remembered once it is accepted.
    fn message(&self, policy: &Policy, now: UnixMs) -> Memory {
        Memory {
            of: MemoryOf::Message,
            key: self.message,
            until: self.expires_at.unwrap_or_else(|| dedupe_until(policy, now)),
        }
    }

    /// All that is remembered once it is accepted.
    fn memory(&self, policy: &Policy, now: UnixMs) -> Vec<Memory> {
        let message = self.message(policy, now);
        let event = self.event.map(|key| Memory {
            of: MemoryOf::Event,
            key,
            // Never shorter than the message itself: the two answers must not contradict.
            until: dedupe_until(policy, now).max(message.until),
        });
        std::iter::once(message).chain(event).collect()
    }
}

fn dedupe_until(policy: &Policy, now: UnixMs) -> UnixMs {
    let remembered_s = i64::from(policy.event_dedupe_s);
    UnixMs(now.0.saturating_add(remembered_s * 1000))
}

/// What the store knows of it; `H` is what a backend holds for the first.
#[derive(Debug)]
enum Standing<H> {
    Fresh(H),
    MessageDone,
    EventDone,
    InFlight,
    Full,
}

impl<H> Standing<H> {
    fn map<R>(self, hold: impl FnOnce(H) -> R) -> Standing<R> {
        match self {
            Self::Fresh(held) => Standing::Fresh(hold(held)),
            Self::MessageDone => Standing::MessageDone,
            Self::EventDone => Standing::EventDone,
            Self::InFlight => Standing::InFlight,
            Self::Full => Standing::Full,
        }
    }
}

/// The memory of accepted webhooks. Fails closed: without an answer nothing is delivered.
#[derive(Clone, Debug)]
pub struct Store(Backend);

#[derive(Clone, Debug)]
enum Backend {
    /// In this process.
    Local(Local),
    /// Shared by all nodes.
    Redis(redis::Shared),
}

impl Store {
    /// A store in this process, with what was remembered before a restart.
    #[must_use]
    pub fn local(policy: Policy, remembered: &[Memory]) -> Self {
        let store = Local::new(policy);
        store.remember(remembered);
        Self(Backend::Local(store))
    }

    /// A store that all nodes with the same server, database and prefix share.
    #[must_use]
    pub fn redis(policy: Policy, redis: Redis, prefix: &str) -> Self {
        Self(Backend::Redis(redis::Shared::new(policy, redis, prefix)))
    }

    /// Takes the message, atomically: of any number of copies at the same moment, at any number of
    /// nodes, one is `Fresh`.
    ///
    /// # Errors
    /// `Replay` (accepted before, and the scheme says so), `InProgress` (a copy is being delivered),
    /// `StoreFull`, `StoreAway`.
    pub async fn reserve(
        &self,
        endpoint: &str,
        verified: &Verified,
        on_replay: OnReplay,
        now: UnixMs,
    ) -> Result<Arrival, Refusal> {
        let claim = Claim {
            message: verified.replay_key,
            event: verified.event_id.signed().map(|id| event_key(endpoint, id)),
            expires_at: verified.expires_at,
        };
        let standing = match &self.0 {
            Backend::Local(store) => store.claim(claim, now).map(Holder::Local),
            Backend::Redis(store) => store.claim(claim, now).await?.map(Holder::Redis),
        };
        match standing {
            Standing::Fresh(holder) => Ok(Arrival::Fresh(Reservation(holder))),
            Standing::MessageDone => match on_replay {
                OnReplay::Reject => Err(Refusal::Replay),
                OnReplay::Ack => Ok(Arrival::Duplicate),
            },
            // Signed anew by the provider: an honest retry, never an attack.
            Standing::EventDone => Ok(Arrival::Duplicate),
            Standing::InFlight => Err(Refusal::InProgress),
            Standing::Full => Err(Refusal::StoreFull),
        }
    }

    /// Number of remembered messages, for the metric; `None` where it is not this process that
    /// remembers them.
    #[must_use]
    pub fn remembered(&self) -> Option<usize> {
        match &self.0 {
            Backend::Local(store) => Some(store.len()),
            Backend::Redis(_) => None,
        }
    }
}

/// The right to deliver one message. Dropped without a commit it gives the message free again, so
/// that the provider's retry after our failure is not called a replay.
#[derive(Debug)]
#[must_use = "dropping a reservation releases it"]
pub struct Reservation(Holder);

#[derive(Debug)]
enum Holder {
    Local(local::Held),
    Redis(redis::Held),
}

impl Reservation {
    /// What is to be remembered once the message is accepted. Who keeps the event writes this in the
    /// same atomic step, and commits afterwards.
    #[must_use]
    pub fn memory(&self, now: UnixMs) -> Vec<Memory> {
        match &self.0 {
            Holder::Local(held) => held.memory(now),
            Holder::Redis(held) => held.memory(now),
        }
    }

    /// The message was accepted; the same again is a replay from now on. Holds also when the lease
    /// has run out meanwhile, for the delivery did happen.
    ///
    /// # Errors
    /// `StoreAway`: it is tried again in the background for a while. Until it succeeds only the lease
    /// keeps a copy out. The message was accepted all the same, so the answer must be a success.
    pub async fn commit(self, now: UnixMs) -> Result<(), Refusal> {
        match self.0 {
            Holder::Local(held) => {
                held.commit(now);
                Ok(())
            }
            Holder::Redis(held) => held.commit(now).await,
        }
    }

    /// The message was not accepted and may come again. The same as dropping it.
    pub fn release(self) {
        drop(self);
    }
}

fn event_key(endpoint: &str, event_id: &str) -> ReplayKey {
    let mut hash = Sha256::new();
    hash.update(
        u64::try_from(endpoint.len())
            .unwrap_or(u64::MAX)
            .to_be_bytes(),
    );
    hash.update(endpoint.as_bytes());
    hash.update(event_id.as_bytes());
    ReplayKey(hash.finalize().into())
}

#[cfg(test)]
mod tests;
