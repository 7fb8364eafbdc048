//! Decides whether a webhook is what its provider signed, now, and for the first time. Knows bytes,
//! schemes and secrets; does not know routes, sockets or what the event means.
//!
//! Order of steps, which the proxy takes one after the other: body read whole → [`Rules::prepare`]
//! → [`verify()`] → [`handshake::answer`], which may end it →
//! `replay::Store::reserve` → delivery with `delivery::Signer::headers` → `commit` on 2xx, else the
//! reservation is dropped and the provider may try again.

pub mod books;
pub mod covers;
pub mod delivery;
pub mod dispatch;
pub mod handshake;
pub mod inbox;
mod key;
pub mod order;
pub mod pointer;
pub mod refusal;
pub mod replay;
pub mod rules;
pub mod scheme;
pub mod secret;
pub mod sign;
pub mod special;
pub mod verify;

use std::sync::Arc;

pub use covers::Covers;
pub use order::OrderKey;
pub use refusal::Refusal;
pub use replay::{Arrival, Reservation};
pub use rules::Rules;
pub use scheme::{Scheme, SchemeError, SchemeSpec};
pub use secret::ActiveSecret;
pub use special::Special;
pub use verify::{Head, SignedParts, Verified, Verifier, verify};

/// One configured `/webhooks/{name}`.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub name: Arc<str>,
    /// Told to the API in `X-Maitred-Provider`.
    pub provider: Arc<str>,
    pub scheme: Arc<Rules>,
    /// What the provider sends to try the URL out, and is answered by the edge.
    pub handshake: Option<handshake::Handshake>,
    /// All active secrets; each is tried on every request.
    pub secrets: Vec<ActiveSecret>,
    pub mode: Mode,
    /// Pool that the events are delivered to.
    pub upstream: Arc<str>,
    /// Events with the same key are delivered in order; absent = each goes for itself.
    pub order_key: Option<OrderKey>,
    pub body_bytes_max: usize,
    /// Whole time for the body to arrive.
    pub body_timeout_ms: u64,
}

/// What happens to a verified event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// Answered after it is on disk, delivered afterwards.
    Store,
    /// Delivered at once; the provider gets the API's verdict, and the reservation is committed only
    /// on 2xx.
    Pass,
}
