//! The nouns of the inbox: an event, its attempts, what becomes of it. Every engine speaks of these.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::kernel::clock::UnixMs;
use crate::webhook::replay::ReplayKey;

/// Names one entry of an inbox for as long as the inbox lives; grows with each append.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryId(pub u64);

/// As an operator writes it: `in_` and 16 lower-case hex digits.
impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in_{:016x}", self.0)
    }
}

impl std::str::FromStr for EntryId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text
            .strip_prefix("in_")
            .filter(|d| d.len() == 16)
            .ok_or(())?;
        let lower = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if !digits.bytes().all(lower) {
            return Err(());
        }
        u64::from_str_radix(digits, 16).map(Self).map_err(|_| ())
    }
}

/// One verified webhook as it is kept. Never changes once it is appended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    pub endpoint: Arc<str>,
    /// Told to the API.
    pub provider: Arc<str>,
    /// Name of the pool it goes to; what is due is claimed by destination.
    pub destination: Arc<str>,
    /// The stable id under which it takes effect once.
    pub event_id: Arc<str>,
    pub received_at: UnixMs,
    /// As the provider sent it.
    pub content_type: Option<Bytes>,
    /// Headers of the request an operator may see, already masked: name and value.
    pub headers: Vec<(String, String)>,
    /// What its provider vouches for, as `X-Maitred-Authenticated` says it.
    pub authenticated: Arc<str>,
    /// W3C trace context of the request, carried to each delivery.
    pub traceparent: Option<String>,
    /// Events of one endpoint with the same key are delivered one after the other, in the order of
    /// their append.
    pub order_key: Option<Arc<str>>,
    /// The exact bytes received.
    pub body: Bytes,
}

/// What replay protection must still know after a restart; written in the same atomic step as the
/// event it belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Memory {
    pub of: MemoryOf,
    pub key: ReplayKey,
    /// From this moment on it may be forgotten.
    pub until: UnixMs,
}

/// Which of the two tables a [`Memory`] belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MemoryOf {
    /// Signed bytes at an endpoint.
    Message,
    /// A signed event id at an endpoint.
    Event,
}

/// An entry that this process may now attempt; nobody else gets it until it is settled or its
/// holder is dead.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub id: EntryId,
    pub event: Arc<Event>,
    /// Attempts made before this one.
    pub attempts: u32,
    /// When the first attempt failed, if one did.
    pub first_failed_at: Option<UnixMs>,
    /// Age counts from here: when it was received, or when an operator last had it delivered again.
    pub patience_from: UnixMs,
}

/// What became of one attempt, for whoever looks later.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attempt {
    pub at: UnixMs,
    pub took_ms: u32,
    pub outcome: Outcome,
}

/// How the API took an attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It answered with this status.
    Status(u16),
    /// No answer: connect failure, time-out, reset; said in words that are fit to be shown.
    NoAnswer(String),
}

/// What is to become of a claimed entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Settlement {
    Delivered(Attempt),
    /// Try again from `due` on. With `yield_order` it no longer holds back the events behind it.
    Retry {
        attempt: Attempt,
        due: UnixMs,
        yield_order: bool,
    },
    Dead {
        attempt: Attempt,
        reason: DeadReason,
    },
    /// It was not attempted, e.g. because the process stops or the breaker is open: due at once, and
    /// no attempt is counted.
    Unclaim,
}

/// Why an entry is no longer attempted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeadReason {
    /// The API refused it for good (4xx other than 408, 425, 429).
    Refused,
    /// The last attempt the policy allows has failed.
    AttemptsExhausted,
    /// It is older than the policy allows.
    TooOld,
}

/// Why an event was not kept. Neither is the provider's mistake: the answer is 503.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unwritable {
    /// At a limit of the configuration.
    #[error("the inbox is full: {limit}")]
    Full { limit: &'static str },
    /// The disk or the server does not take it.
    #[error("the inbox cannot write: {0}")]
    Failed(String),
}
