//! Who is calling, once proven.

use std::collections::BTreeMap;

use super::clock::UnixMs;

/// A verified caller. Built only by `auth` from a credential that was checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Principal {
    /// `usr_…`, the key of limits and streams.
    pub subject: String,
    /// The credential's own id (`jti`), by which it is revoked.
    pub token_id: String,
    /// Organisation id → role in it.
    pub orgs: BTreeMap<String, String>,
    /// Plan name: `FREE`, `PRO`, `ENT` or what the configuration calls them.
    pub plan: String,
    /// What the credential may be used for.
    pub scopes: Vec<String>,
    /// The moment from which the credential is no longer good.
    pub expires_at: UnixMs,
}
