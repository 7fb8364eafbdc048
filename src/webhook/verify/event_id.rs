//! Decides what an event is called: by the id that its provider signed, else by a digest of what was
//! signed.

use sha2::{Digest, Sha256};

use super::super::Endpoint;
use super::super::replay::ReplayKey;
use super::super::scheme::{IdFrom, Scheme};
use super::hash_part;

const EVENT_ID_BYTES_MAX: usize = 128;

/// The event's id and what it rests on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EventId {
    /// The provider's own and covered by its signature: two messages with it are one event.
    Signed(String),
    /// Made by us from the signed bytes.
    Derived(String),
}

impl EventId {
    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Signed(id) | Self::Derived(id) => id,
        }
    }

    /// The id, where the provider gave one and signed it.
    #[must_use]
    pub fn signed(&self) -> Option<&str> {
        match self {
            Self::Signed(id) => Some(id),
            Self::Derived(_) => None,
        }
    }
}

/// The id under which the event is delivered, and the unsigned one if there is one.
pub(super) fn read(
    endpoint: &Endpoint,
    scheme: &Scheme,
    in_header: Option<String>,
    body: &[u8],
    key: &ReplayKey,
) -> (EventId, Option<String>) {
    let derived = || EventId::Derived(format!("evt_{}", hex::encode(key.0)));
    let signed = |id: Option<String>| {
        let id = id.filter(|id| !id.is_empty());
        id.map_or_else(derived, |id| EventId::Signed(portable(endpoint, id)))
    };
    match &scheme.id {
        None => (derived(), None),
        Some(IdFrom::SignedHeader(_)) => (signed(in_header), None),
        Some(IdFrom::SignedJson(pointer)) => (signed(pointer.find(body)), None),
        Some(IdFrom::UnsignedHeader(_)) => (derived(), harmless(in_header)),
        Some(IdFrom::UnsignedJson(pointer)) => (derived(), harmless(pointer.find(body))),
    }
}

/// An id travels in headers and, with dots between the parts, in the delivery's signature. One that
/// cannot is replaced by its digest, which is as stable as the id.
pub(in crate::webhook) fn portable(endpoint: &Endpoint, id: String) -> String {
    if is_portable(&id) {
        return id;
    }
    let mut hash = Sha256::new();
    hash_part(&mut hash, endpoint.name.as_bytes());
    hash_part(&mut hash, id.as_bytes());
    format!("evt_{}", hex::encode(hash.finalize()))
}

pub(in crate::webhook) fn is_portable(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':' | b'/' | b'=');
    id.len() <= EVENT_ID_BYTES_MAX && id.bytes().all(plain)
}

fn harmless(id: Option<String>) -> Option<String> {
    id.filter(|id| is_portable(id))
}
