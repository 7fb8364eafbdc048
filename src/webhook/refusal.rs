//! Why a webhook was refused, precisely, for the operator. The provider learns only the status: text
//! that tells which check failed helps whoever is guessing.

use http::HeaderName;

use crate::kernel::reject::{Code, Reject};

/// One precise reason. Carries numbers and names, never a signature, a secret or body bytes.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("header {0} is missing")]
    MissingHeader(HeaderName),
    #[error("header {0} is there more than once")]
    DuplicateHeader(HeaderName),
    #[error("query parameter {0} is missing")]
    MissingQuery(String),
    #[error("query parameter {0} is there more than once or badly encoded")]
    BadQuery(String),
    #[error("the signature header has more than {max} items")]
    TooManyItems { max: usize },
    #[error("the signature header has no item of the expected form")]
    NoSignature,
    #[error("no signature in the header is spelled as the scheme demands")]
    BadEncoding,
    #[error("no timestamp where the scheme has one")]
    MissingTimestamp,
    #[error("the timestamp is there more than once")]
    DuplicateTimestamp,
    #[error("the timestamp is not spelled as the scheme demands")]
    BadTimestamp,
    #[error("a signed value contains the text that separates it from the next")]
    Ambiguous,
    #[error("the body has a content encoding")]
    ContentEncoding,
    #[error("the body is not {0}")]
    BadBody(&'static str),
    #[error("the field {0} of the body is missing or not the only one")]
    MissingField(&'static str),
    #[error("there is nothing in it that could be signed")]
    NothingSigned,
    #[error("the certificate is at a place where the provider has none")]
    CertificatePlace,
    #[error("the provider's certificate could not be had, or is not to be trusted")]
    CertificateAway,
    #[error("no secret of this endpoint is active at present")]
    NoActiveSecret,
    #[error("no active secret made this signature")]
    NoMatch,
    #[error("the timestamp is {age_s} s old")]
    Stale { age_s: u64 },
    #[error("the timestamp is {ahead_s} s in the future")]
    Future { ahead_s: u64 },
    #[error("these signed bytes were accepted before")]
    Replay,
    #[error("the same event is being delivered at this moment")]
    InProgress,
    #[error("the store of accepted webhooks is full")]
    StoreFull,
    #[error("the store of accepted webhooks does not answer")]
    StoreAway,
}

impl Refusal {
    /// A short name from a closed set, for the metric.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::MissingHeader(_) => "missing_header",
            Self::DuplicateHeader(_) => "duplicate_header",
            Self::MissingQuery(_) => "missing_query",
            Self::BadQuery(_) => "bad_query",
            Self::TooManyItems { .. } => "too_many_items",
            Self::NoSignature => "no_signature",
            Self::BadEncoding => "bad_encoding",
            Self::MissingTimestamp => "missing_timestamp",
            Self::DuplicateTimestamp => "duplicate_timestamp",
            Self::BadTimestamp => "bad_timestamp",
            Self::Ambiguous => "ambiguous",
            Self::ContentEncoding => "content_encoding",
            Self::NoActiveSecret => "no_active_secret",
            Self::BadBody(_) => "bad_body",
            Self::MissingField(_) => "missing_field",
            Self::NothingSigned => "nothing_signed",
            Self::CertificatePlace => "certificate_place",
            Self::CertificateAway => "certificate_away",
            Self::NoMatch => "no_match",
            Self::Stale { .. } => "stale",
            Self::Future { .. } => "future",
            Self::Replay => "replay",
            Self::InProgress => "in_progress",
            Self::StoreFull => "store_full",
            Self::StoreAway => "store_away",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        fix(self.label()).unwrap_or_default()
    }
}

impl Refusal {
    /// Whether the trouble is the edge's own and not the sender's failure; such are not counted
    /// against an address.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        match self {
            Self::NoActiveSecret
            | Self::InProgress
            | Self::StoreFull
            | Self::StoreAway
            | Self::CertificateAway => true,
            Self::MissingHeader(_)
            | Self::DuplicateHeader(_)
            | Self::MissingQuery(_)
            | Self::BadQuery(_)
            | Self::TooManyItems { .. }
            | Self::NoSignature
            | Self::BadEncoding
            | Self::MissingTimestamp
            | Self::DuplicateTimestamp
            | Self::BadTimestamp
            | Self::Ambiguous
            | Self::ContentEncoding
            | Self::BadBody(_)
            | Self::MissingField(_)
            | Self::NothingSigned
            | Self::CertificatePlace
            | Self::NoMatch
            | Self::Stale { .. }
            | Self::Future { .. }
            | Self::Replay => false,
        }
    }
}

/// What to do about the refusals with this label; `None` where it is no webhook's label.
#[must_use]
pub fn fix(label: &str) -> Option<&'static str> {
    FIXES
        .iter()
        .find_map(|(of, fix)| (*of == label).then_some(*fix))
}

/// Every label with what mends it.
const FIXES: &[(&str, &str)] = &[
    (
        "store_away",
        "Redis is away or too slow: the log and /health/detailed have its last error. The provider \
         sends again.",
    ),
    (
        "bad_body",
        "Not from the provider, or the endpoint's `scheme` is that of another provider.",
    ),
    (
        "missing_field",
        "Not from the provider, or the endpoint's `scheme` is that of another provider.",
    ),
    (
        "nothing_signed",
        "The message has no signed part: not from the provider, or the endpoint's `scheme` is \
         another's.",
    ),
    (
        "certificate_place",
        "Somebody is probing, or the scheme's `certificate_hosts` lacks one of the provider's hosts.",
    ),
    (
        "certificate_away",
        "The edge must reach the provider's certificate by https: check its way out, and \
         `certificate_ca_file`. The provider sends again.",
    ),
    (
        "missing_header",
        "Not from the provider, or a proxy in front removed the header, or the endpoint's `scheme` is \
         that of another provider: compare the header's name with the provider's documentation.",
    ),
    (
        "duplicate_header",
        "A proxy in front may have added a copy: have it replace the header instead. If it did not, \
         somebody is probing.",
    ),
    (
        "missing_query",
        "Not from the provider, or the URL registered with it lacks the parameter: register it anew.",
    ),
    (
        "bad_query",
        "The URL registered with the provider names the parameter already, or a proxy in front \
         rewrites the query: register the URL without it.",
    ),
    (
        "too_many_items",
        "More signatures than a provider in rotation sends: somebody is probing.",
    ),
    (
        "no_signature",
        "Not from the provider, or the endpoint's `scheme` is another's: compare the form of the \
         signature header with the provider's documentation.",
    ),
    (
        "bad_encoding",
        "Compare `encoding` of the endpoint's scheme (hex, base64, upper or lower case) with the \
         provider's documentation.",
    ),
    (
        "missing_timestamp",
        "Compare `ts` of the scheme (where it stands) with the provider's documentation; a proxy in \
         front may have removed the header.",
    ),
    (
        "duplicate_timestamp",
        "A proxy in front may have added a copy. If it did not, somebody is probing.",
    ),
    (
        "bad_timestamp",
        "Compare `ts` of the scheme (its unit: s, ms or rfc3339) with what the provider sends.",
    ),
    (
        "ambiguous",
        "No provider sends such values: somebody is probing.",
    ),
    (
        "content_encoding",
        "The signature is over the bytes as sent: have the provider, or the proxy in front, send the \
         body uncompressed.",
    ),
    (
        "no_active_secret",
        "Check not_before and not_after of the endpoint's secrets against this host's clock; the \
         provider gets 503 and tries again.",
    ),
    (
        "no_match",
        "The secret is wrong (rotated at the provider? another account, or test mode?), or the body \
         was changed on the way: a proxy or middleware in front that parses and re-serialises JSON, \
         converts the character set or trims. Compare the secret first: `maitred send` with this \
         configuration shows whether the edge accepts what it signs.",
    ),
    (
        "stale",
        "One clock is off by that much, or the delivery was held up that long. If every webhook of \
         the endpoint is refused so, check NTP on this host; if a single one is, it is a late retry \
         with its old timestamp or an old capture, and the provider must sign it anew. `ts.past_s` of \
         the scheme is the limit.",
    ),
    (
        "future",
        "The sender's clock is ahead of this host's by that much: check NTP on this host first (are \
         other providers refused too?), then tell the provider. `ts.future_s` of the scheme is the \
         limit.",
    ),
    (
        "replay",
        "These bytes were accepted before: a retry of something that arrived, or a captured request \
         sent again. Nothing is lost. A provider that repeats the same bytes on purpose needs \
         `replay = \"ack\"` in its scheme.",
    ),
    (
        "in_progress",
        "The provider sends again by itself; nothing to do.",
    ),
    (
        "store_full",
        "Raise webhooks.replay_entries_max, or look for a flood of signed requests.",
    ),
];

impl From<Refusal> for Reject {
    fn from(refusal: Refusal) -> Self {
        let label = refusal.label();
        let reason = refusal.to_string();
        match refusal {
            Refusal::ContentEncoding => Self::new(Code::UnsupportedEncoding, label, reason),
            // Our own trouble is never a 4xx: some providers do not come back after one.
            Refusal::NoActiveSecret => Self::new(Code::Unavailable, label, reason).retry_after(60),
            Refusal::CertificateAway => Self::new(Code::Unavailable, label, reason).retry_after(60),
            Refusal::InProgress => Self::new(Code::InProgress, label, reason).retry_after(1),
            Refusal::StoreFull => Self::new(Code::Overloaded, label, reason).retry_after(5),
            Refusal::StoreAway => Self::new(Code::Unavailable, label, reason).retry_after(5),
            Refusal::MissingHeader(_)
            | Refusal::DuplicateHeader(_)
            | Refusal::MissingQuery(_)
            | Refusal::BadQuery(_)
            | Refusal::TooManyItems { .. }
            | Refusal::NoSignature
            | Refusal::BadEncoding
            | Refusal::MissingTimestamp
            | Refusal::DuplicateTimestamp
            | Refusal::BadTimestamp
            | Refusal::Ambiguous
            | Refusal::BadBody(_)
            | Refusal::MissingField(_)
            | Refusal::NothingSigned
            | Refusal::CertificatePlace
            | Refusal::NoMatch
            | Refusal::Stale { .. }
            | Refusal::Future { .. }
            | Refusal::Replay => Self::new(Code::Unauthenticated, label, reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::header::AGE;

    use super::{FIXES, Refusal};

    #[test]
    fn every_refusal_says_what_to_do_and_no_other_label_does() {
        let all = [
            Refusal::MissingHeader(AGE),
            Refusal::DuplicateHeader(AGE),
            Refusal::MissingQuery(String::new()),
            Refusal::BadQuery(String::new()),
            Refusal::TooManyItems { max: 1 },
            Refusal::NoSignature,
            Refusal::BadEncoding,
            Refusal::MissingTimestamp,
            Refusal::DuplicateTimestamp,
            Refusal::BadTimestamp,
            Refusal::Ambiguous,
            Refusal::ContentEncoding,
            Refusal::NoActiveSecret,
            Refusal::NoMatch,
            Refusal::Stale { age_s: 1 },
            Refusal::Future { ahead_s: 1 },
            Refusal::Replay,
            Refusal::InProgress,
            Refusal::StoreFull,
            Refusal::StoreAway,
            Refusal::BadBody(""),
            Refusal::MissingField(""),
            Refusal::NothingSigned,
            Refusal::CertificatePlace,
            Refusal::CertificateAway,
        ];
        for refusal in &all {
            assert!(!refusal.hint().is_empty(), "{refusal}");
        }
        let labels: BTreeSet<_> = all.iter().map(Refusal::label).collect();
        let fixed: BTreeSet<_> = FIXES.iter().map(|(label, _)| *label).collect();
        assert_eq!((labels, fixed.len()), (fixed.clone(), FIXES.len()));
    }
}
