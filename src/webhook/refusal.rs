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

    /// What an operator should look at.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::MissingHeader(_) | Self::MissingQuery(_) | Self::NoSignature => {
                "not from the provider, or a proxy in front removed it, or the scheme is another"
            }
            Self::DuplicateHeader(_) | Self::DuplicateTimestamp | Self::BadQuery(_) => {
                "a proxy in front may have added a copy; otherwise somebody is probing"
            }
            Self::TooManyItems { .. } | Self::Ambiguous => "somebody is probing",
            Self::BadEncoding => {
                "compare `encoding` of the scheme with the provider's documentation"
            }
            Self::MissingTimestamp | Self::BadTimestamp => {
                "compare `ts` of the scheme (source and unit) with the provider's documentation"
            }
            Self::ContentEncoding => "have the provider or the proxy in front send it uncompressed",
            Self::BadBody(_) | Self::MissingField(_) | Self::NothingSigned => {
                "not from the provider, or the endpoint's scheme is another one's"
            }
            Self::CertificatePlace => {
                "somebody is probing, or the scheme's `certificate_hosts` lacks one of the provider's"
            }
            Self::CertificateAway => {
                "the edge must reach the provider by https; see `certificate_ca_file` too"
            }
            Self::NoActiveSecret => "check not_before and not_after of the endpoint's secrets",
            Self::NoMatch => "wrong secret (rotated?), or a proxy in front changed the body",
            Self::Stale { .. } => {
                "a late retry or an old capture; if all fail, check this host's clock"
            }
            Self::Future { .. } => "the provider's clock or this host's is off",
            Self::Replay => "a retry of something accepted, or a captured request sent again",
            Self::InProgress => "the provider retries; nothing to do",
            Self::StoreFull => {
                "raise webhooks.replay_entries_max (on Redis: maxmemory) or look for a flood of \
                 signed requests"
            }
            Self::StoreAway => {
                "Redis is away or too slow; the log and /health/detailed have its last error"
            }
        }
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
            | Self::CertificateAway => {
                true
            }
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

impl From<Refusal> for Reject {
    fn from(refusal: Refusal) -> Self {
        let label = refusal.label();
        let reason = format!("{refusal}: {}", refusal.hint());
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
