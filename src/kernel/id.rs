//! Request ids and other random names, from a source that can be seeded.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

/// Names one request in logs, traces and answers. Never used for a security decision.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// Longest id taken over from a client.
    pub const CHARS_MAX: usize = 128;

    /// A client's id, if it is short and made of harmless characters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let harmless = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
        let fits = !text.is_empty() && text.len() <= Self::CHARS_MAX;
        (fits && text.bytes().all(harmless)).then(|| Self(text.to_owned()))
    }

    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The process's randomness: ids and jitter. Seeded by `app`, fixed in simulations.
#[derive(Debug)]
pub struct Random(Mutex<StdRng>);

impl Random {
    /// From the operating system.
    #[must_use]
    pub fn from_os() -> Self {
        Self(Mutex::new(StdRng::from_os_rng()))
    }

    /// The same sequence for the same seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// Sixty-four random bits.
    pub fn bits(&self) -> u64 {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next_u64()
    }

    /// A number in `[0, 1)`.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
    pub fn fraction(&self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `req_` and 128 random bits in hex.
    pub fn request_id(&self) -> RequestId {
        RequestId(format!("req_{:016x}{:016x}", self.bits(), self.bits()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Random, RequestId};

    #[test]
    fn a_client_id_with_odd_characters_is_not_taken_over() {
        assert!(RequestId::parse("abc-123").is_some());
        for bad in ["", "a b", "a\nb", "<script>", &"x".repeat(129)] {
            assert!(RequestId::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_seed_repeats_itself() {
        assert_eq!(
            Random::seeded(7).request_id(),
            Random::seeded(7).request_id()
        );
    }
}
