//! Decides which half of the code judges an endpoint's messages: the grammar, which is data, or the
//! special code of a provider that the grammar cannot describe.

use http::HeaderMap;

use super::refusal::Refusal;
use super::scheme::{OnReplay, Scheme};
use super::special::Special;
use crate::kernel::clock::UnixMs;

/// How a provider's messages are verified.
#[derive(Clone, Debug)]
pub enum Rules {
    Grammar(Scheme),
    Special(Special),
}

impl Rules {
    /// Fetches what `verify` needs and does not have yet: the provider's certificate, where there is
    /// one. To be awaited before `verify`; everything but PayPal is ready at once.
    ///
    /// # Errors
    /// The certificate is not to be had at present; the provider may try again.
    pub async fn prepare(&self, headers: &HeaderMap, now: UnixMs) -> Result<(), Refusal> {
        match self {
            Self::Grammar(_) => Ok(()),
            Self::Special(special) => special.prepare(headers, now).await,
        }
    }

    /// What a second arrival of an accepted event is told.
    #[must_use]
    pub fn on_replay(&self) -> OnReplay {
        self.keys().on_replay()
    }

    /// Whether a good signature says something about every byte of the body.
    #[must_use]
    pub fn signs_body(&self) -> bool {
        match self {
            Self::Grammar(scheme) => scheme.signs_body(),
            Self::Special(special) => special.signs_body(),
        }
    }

    /// How far behind and ahead of our clock a timestamp may lie, in seconds; `None` = there is no
    /// timestamp.
    #[must_use]
    pub fn tolerance_s(&self) -> Option<(u32, u32)> {
        match self {
            Self::Grammar(scheme) => scheme.tolerance_s(),
            Self::Special(special) => special.tolerance_s(),
        }
    }

    /// The scheme that says what the endpoint's secrets look like.
    #[must_use]
    pub fn keys(&self) -> &Scheme {
        match self {
            Self::Grammar(scheme) => scheme,
            Self::Special(special) => special.keys(),
        }
    }

    /// Whether there are secrets at all.
    #[must_use]
    pub fn has_secrets(&self) -> bool {
        match self {
            Self::Grammar(_) => true,
            Self::Special(special) => special.has_secrets(),
        }
    }
}

impl From<Scheme> for Rules {
    fn from(scheme: Scheme) -> Self {
        Self::Grammar(scheme)
    }
}

impl From<Special> for Rules {
    fn from(special: Special) -> Self {
        Self::Special(special)
    }
}
