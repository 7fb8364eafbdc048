//! Why a caller was not believed, precisely, for the operator. The caller learns 401 and no more.

use crate::kernel::reject::{Code, Reject};

/// One precise reason. Never carries a token or a part of one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AuthRefusal {
    #[error("no credential was sent")]
    Missing,
    #[error("more than one Authorization header")]
    Duplicate,
    #[error("the Authorization header is not `Bearer` and a token")]
    NotBearer,
    #[error("the token is longer than {max} bytes")]
    TooLarge { max: usize },
    #[error("the token is no JWT that we read")]
    Malformed,
    #[error("the token's issuer is not one of ours")]
    UnknownIssuer,
    #[error("the token's algorithm is not accepted from its issuer")]
    Algorithm,
    #[error("the token names no key, or one that its issuer does not publish")]
    UnknownKey,
    #[error("the signature is wrong")]
    Signature,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token expired {ago_s} s ago")]
    Expired { ago_s: u64 },
    #[error("the token is good only in {in_s} s")]
    NotYet { in_s: u64 },
    #[error("a claim is missing or of the wrong kind")]
    Claims,
    #[error("the issuer's keys were never fetched and it does not answer")]
    KeysUnavailable,
}

impl AuthRefusal {
    /// A short name from a closed set, for the metric.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "auth_missing",
            Self::Duplicate => "auth_duplicate",
            Self::NotBearer => "auth_not_bearer",
            Self::TooLarge { .. } => "auth_too_large",
            Self::Malformed => "auth_malformed",
            Self::UnknownIssuer => "auth_issuer",
            Self::Algorithm => "auth_algorithm",
            Self::UnknownKey => "auth_unknown_key",
            Self::Signature => "auth_signature",
            Self::Audience => "auth_audience",
            Self::Expired { .. } => "auth_expired",
            Self::NotYet { .. } => "auth_not_yet",
            Self::Claims => "auth_claims",
            Self::KeysUnavailable => "auth_keys_unavailable",
        }
    }
}

impl From<AuthRefusal> for Reject {
    fn from(refusal: AuthRefusal) -> Self {
        // Our trouble, not the caller's: a 401 would make clients throw good tokens away.
        if refusal == AuthRefusal::KeysUnavailable {
            return Self::new(Code::Unavailable, refusal.label(), refusal.to_string())
                .retry_after(1);
        }
        Self::new(Code::Unauthenticated, refusal.label(), refusal.to_string())
    }
}
