//! Decides whether a verified webhook is the first of its kind. Protects against replay (the same
//! signed bytes again) and against double delivery (the same event signed anew). Does not verify.
//!
//! An accepted message is remembered until its own timestamp would have it refused; an event id for
//! as long as the policy says. What is remembered is never dropped early: a full store refuses.
//!
//! Memory: about 250 bytes for each remembered message and as much again for each event id, so
//! `entries_max` of one million is at most 0.5 GB. Entries are in this process only and are lost
//! with it; the API's own dedupe row (endpoint, event id) closes that window.

mod local;

use sha2::{Digest, Sha256};

use super::refusal::Refusal;
use super::scheme::OnReplay;
use super::verify::Verified;
use crate::kernel::clock::UnixMs;
pub use local::Reservation;
use local::{Claim, Local, Standing};

/// Names signed bytes at an endpoint: a SHA-256.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReplayKey(pub [u8; 32]);

/// How much is remembered and for how long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Most messages, and most event ids, that are remembered at a time.
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

/// The memory of accepted webhooks. Fails closed: without an answer nothing is delivered.
#[derive(Clone, Debug)]
pub enum Store {
    /// In this process.
    Local(Local),
}

impl Store {
    /// A store in this process.
    #[must_use]
    pub fn local(policy: Policy) -> Self {
        Self::Local(Local::new(policy))
    }

    /// Takes the message, atomically: of any number of copies at the same moment one is `Fresh`.
    ///
    /// # Errors
    /// `Replay` (accepted before, and the scheme says so), `InProgress` (a copy is being delivered),
    /// `StoreFull`.
    pub fn reserve(
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
        let standing = match self {
            Self::Local(store) => store.claim(claim, now),
        };
        match standing {
            Standing::Fresh(reservation) => Ok(Arrival::Fresh(reservation)),
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

    /// Number of remembered messages, for the metric.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Local(store) => store.len(),
        }
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
