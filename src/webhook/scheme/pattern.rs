//! Decides which items of a signature header matter: literal text around one `{sig}` or `{ts}`.
//! `{sig:ed25519}` is a signature by another algorithm than the scheme's own.

use super::{Alg, SchemeError};

/// Longest text that an item without literal parts takes for a timestamp.
const BARE_TS_DIGITS_MAX: usize = 14;

/// One item of the signature header, e.g. `v1={sig}`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern {
    before: Vec<u8>,
    capture: Capture,
    after: Vec<u8>,
}

/// What an item carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Capture {
    Sig(Alg),
    Ts,
}

impl Capture {
    /// What made the signature, if it is one.
    #[must_use]
    pub(in crate::webhook) fn alg(self) -> Option<Alg> {
        match self {
            Self::Sig(alg) => Some(alg),
            Self::Ts => None,
        }
    }
}

impl Pattern {
    /// `{sig}`: the whole header is the signature.
    pub(super) fn whole(alg: Alg) -> Self {
        Self {
            before: Vec::new(),
            capture: Capture::Sig(alg),
            after: Vec::new(),
        }
    }

    /// `alg` is that of a plain `{sig}`.
    pub(super) fn parse(text: &str, alg: Alg) -> Result<Self, SchemeError> {
        let error = || {
            let problem = format!("`{text}` must have exactly one of {{sig}} and {{ts}}");
            SchemeError::new("match", problem, "e.g. \"v1={sig}\"")
        };
        let (before, rest) = text.split_once('{').ok_or_else(error)?;
        let (name, after) = rest.split_once('}').ok_or_else(error)?;
        let capture = match name.split_once(':') {
            None if name == "sig" => Capture::Sig(alg),
            None if name == "ts" => Capture::Ts,
            Some(("sig", name)) => match Alg::named(name) {
                Some(Alg::Equal) | None => return Err(error()),
                Some(other) => Capture::Sig(other),
            },
            None | Some(_) => return Err(error()),
        };
        if before.contains('}') || after.contains(['{', '}']) {
            return Err(error());
        }
        Ok(Self {
            before: before.into(),
            capture,
            after: after.into(),
        })
    }

    /// What this item carries.
    #[must_use]
    pub fn capture(&self) -> Capture {
        self.capture
    }

    /// The captured part of `item`, if `item` has this shape. The rest of a positional item
    /// (`{ts}` alone) must be digits, or every item would be a timestamp.
    pub(in crate::webhook) fn find<'a>(&self, item: &'a [u8]) -> Option<&'a [u8]> {
        let inner = item.strip_prefix(self.before.as_slice())?;
        let inner = inner.strip_suffix(self.after.as_slice())?;
        let bare = self.before.is_empty() && self.after.is_empty();
        let takes = match self.capture {
            Capture::Ts if bare => {
                (1..=BARE_TS_DIGITS_MAX).contains(&inner.len())
                    && inner.iter().all(u8::is_ascii_digit)
            }
            Capture::Ts | Capture::Sig(_) => true,
        };
        takes.then_some(inner)
    }

    /// The item that carries `value`.
    pub(in crate::webhook) fn fill(&self, value: &[u8]) -> Vec<u8> {
        [self.before.as_slice(), value, self.after.as_slice()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Alg;
    use super::{Capture, Pattern};

    #[test]
    fn an_item_is_literal_text_around_one_capture() {
        let v1 = Pattern::parse("v1={sig}", Alg::HmacSha256).unwrap();
        assert_eq!(v1.find(b"v1=ab"), Some(b"ab".as_slice()));
        assert_eq!(v1.find(b"v0=ab"), None);
        assert_eq!(v1.find(b"V1=ab"), None);
        assert_eq!(v1.find(b"v1="), Some(b"".as_slice()));
        for bad in [
            "",
            "v1",
            "{sig}{ts}",
            "{sig}{sig}",
            "{foo}{sig}",
            "v1={Sig}",
            "v1={sig:md5}",
            "v1={sig:equal}",
            "v1}{sig}",
        ] {
            assert!(Pattern::parse(bad, Alg::HmacSha256).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_item_may_name_its_algorithm() {
        let capture = |text| Pattern::parse(text, Alg::HmacSha256).unwrap().capture();
        assert_eq!(capture("v1,{sig}"), Capture::Sig(Alg::HmacSha256));
        assert_eq!(capture("v1a,{sig:ed25519}"), Capture::Sig(Alg::Ed25519));
    }

    #[test]
    fn a_bare_timestamp_is_digits() {
        let bare = Pattern::parse("{ts}", Alg::HmacSha256).unwrap();
        assert!(bare.find(b"1700000000000").is_some());
        assert!(bare.find(b"170000000000000").is_none());
        assert!(bare.find(b"deadbeef").is_none());
        assert!(bare.find(b"").is_none());
    }
}
