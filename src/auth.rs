//! Decides who is calling and whether the route is theirs to call. Does not count, route or forward.
//!
//! Order of steps: `credential::bearer` → [`Verifier::verify`] → `policy::authorise` → for the
//! upstream, `assertion::Signer::sign`.

pub mod assertion;
pub mod credential;
pub mod jwks;
pub mod jwt;
pub mod policy;
pub mod refusal;
#[cfg(test)]
mod testing;

use std::sync::Arc;

pub use jwks::KeyFetch;
pub use jwt::Verifier;
pub use refusal::AuthRefusal;

/// What a route asks of the caller.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    pub need: Need,
    /// Where the request names an organisation that must be one of the caller's.
    pub org: Option<OrgFrom>,
    /// Roles of which the caller must hold one in that organisation; empty = any.
    pub roles: Vec<String>,
}

/// Whether a caller must prove who they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// Nobody is asked; no identity goes upstream.
    Public,
    /// Without a good credential the answer is 401.
    Required,
}

/// Where a request names its organisation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum OrgFrom {
    /// A query parameter; it must be there exactly once.
    Query(String),
}

/// A party whose tokens are believed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Issuer {
    /// `iss` of its tokens.
    pub issuer: String,
    /// `aud` that must be among theirs.
    pub audience: String,
    /// Algorithms accepted from it, e.g. `EdDSA`; never taken from the token.
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    pub leeway_s: u32,
    pub keys: KeysFrom,
    /// How long fetched keys are used before they are fetched again.
    pub keys_ttl_s: u32,
    /// Shortest time between two fetches, whatever unknown key ids arrive.
    pub keys_cooldown_s: u32,
}

/// Where an issuer's JWKS is fetched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeysFrom {
    /// A path on one of our upstream pools.
    Upstream { pool: Arc<str>, path: String },
    /// An https URL.
    Url(String),
}
