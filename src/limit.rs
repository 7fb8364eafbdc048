//! Decides how often somebody may come. Knows quotas and keys; does not know routes, tokens or HTTP.
//!
//! [`Limiter::take`] counts and decides; [`Limiter::look`] only decides, for limits on what goes
//! wrong: look first, take when it did. [`Slots`] limit what is held at the same time.

pub mod concurrency;
pub mod headers;
pub mod key;
pub mod store;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

pub use concurrency::{Permit, Slots};
pub use key::Key;
pub use store::Limiter;

/// `requests` per `window_s` seconds; the whole quota may come at once (GCRA burst = quota).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quota {
    pub requests: NonZeroU32,
    pub window_s: NonZeroU32,
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyBy {
    /// The client's address, IPv6 by /64.
    Ip,
    /// The authenticated subject.
    Principal,
}

/// A named limit, shared by every route that names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Class {
    pub name: Arc<str>,
    pub quota: Quota,
    pub key: KeyBy,
}

/// What a route asks of the limiter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Policy {
    /// Taken before authentication.
    pub before_auth: Option<Arc<Class>>,
    /// Taken after authentication.
    pub after_auth: AfterAuth,
}

/// The limit that applies once the caller is known.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum AfterAuth {
    #[default]
    None,
    /// The quota of the caller's plan.
    Plan,
    /// One quota for everybody, per caller.
    Class(Arc<Class>),
}

/// Plan name → quota.
pub type Plans = BTreeMap<String, Quota>;

/// The answer to "may this one pass?".
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decision {
    pub policy: Arc<str>,
    pub quota: Quota,
    pub remaining: u32,
    /// Seconds until the whole quota is there again.
    pub reset_s: u32,
    /// `Some` = refused; seconds until one request would pass.
    pub retry_after_s: Option<u32>,
}
