//! Decides how a signature is spelled. Every decoder takes exactly one spelling per byte string, so
//! that a signature cannot be presented again in other clothes.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// Spelling of a signature in its header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encoding {
    HexLower,
    HexUpper,
    /// Standard alphabet, padded, canonical tail.
    Base64,
    /// URL alphabet, no padding, canonical tail.
    Base64Url,
    /// The bytes themselves; for `equal` only.
    Text,
}

impl Encoding {
    /// The bytes that `text` spells; `None` unless `text` is their one spelling.
    #[must_use]
    pub fn decode(self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::HexLower => hex_exact(text, |b| b.is_ascii_uppercase()),
            Self::HexUpper => hex_exact(text, |b| b.is_ascii_lowercase()),
            Self::Base64 => STANDARD.decode(text).ok(),
            Self::Base64Url => URL_SAFE_NO_PAD.decode(text).ok(),
            Self::Text => Some(text.to_vec()),
        }
    }

    /// The spelling of `bytes`.
    #[must_use]
    pub fn encode(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::HexLower => hex::encode(bytes).into_bytes(),
            Self::HexUpper => hex::encode_upper(bytes).into_bytes(),
            Self::Base64 => STANDARD.encode(bytes).into_bytes(),
            Self::Base64Url => URL_SAFE_NO_PAD.encode(bytes).into_bytes(),
            Self::Text => bytes.to_vec(),
        }
    }
}

fn hex_exact(text: &[u8], wrong_case: fn(&u8) -> bool) -> Option<Vec<u8>> {
    if text.iter().any(wrong_case) {
        return None;
    }
    hex::decode(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Encoding;

    const ALL: [Encoding; 4] = [
        Encoding::HexLower,
        Encoding::HexUpper,
        Encoding::Base64,
        Encoding::Base64Url,
    ];

    #[test]
    fn another_spelling_of_the_same_bytes_is_refused() {
        assert!(Encoding::HexLower.decode(b"AB").is_none());
        assert!(Encoding::HexUpper.decode(b"ab").is_none());
        assert!(Encoding::HexLower.decode(b"a").is_none());
        assert_eq!(Encoding::Base64.decode(b"AA=="), Some(vec![0]));
        for bad in ["AB==", "AA", "AA=", "AA== ", "A-==", "AA\n=="] {
            assert!(Encoding::Base64.decode(bad.as_bytes()).is_none(), "{bad}");
        }
        assert_eq!(Encoding::Base64Url.decode(b"-_8"), Some(vec![0xfb, 0xff]));
        for bad in ["-_8=", "+/8", "-_9"] {
            assert!(
                Encoding::Base64Url.decode(bad.as_bytes()).is_none(),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn there_is_one_spelling(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            for encoding in ALL {
                if let Some(bytes) = encoding.decode(&text) {
                    prop_assert_eq!(encoding.encode(&bytes), text.clone());
                }
            }
        }

        #[test]
        fn bytes_survive(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for encoding in ALL {
                prop_assert_eq!(encoding.decode(&encoding.encode(&bytes)), Some(bytes.clone()));
            }
        }
    }
}
