//! Decides whether a token is good, now, and whose it is. Algorithms and keys come from the
//! configuration and the issuer; the token only says which of them it claims.
//!
//! A token that was found good is remembered by its SHA-256 until it expires or its issuer's keys
//! change, because checking a signature costs fifty times what looking it up does. Bad tokens are not
//! remembered. Memory: about 0.5 KB for each remembered token.

use std::collections::BTreeMap;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use quick_cache::sync::Cache;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Issuer;
use super::credential::TOKEN_BYTES_MAX;
use super::jwks::{KeyFetch, KeySet, Keys};
use super::refusal::AuthRefusal;
use crate::kernel::clock::UnixMs;
use crate::kernel::principal::Principal;

/// Verifies tokens of all configured issuers.
pub struct Verifier {
    issuers: Vec<Trusted>,
    known: Cache<[u8; 32], Known>,
}

struct Trusted {
    issuer: Issuer,
    keys: Arc<KeySet>,
}

/// A token that was found good.
#[derive(Clone)]
struct Known {
    principal: Arc<Principal>,
    /// Index of its issuer.
    issuer: usize,
    generation: u64,
    good: Span,
}

/// When a token counts, with its issuer's leeway: from `from` and before `until`.
#[derive(Clone, Copy)]
struct Span {
    from: UnixMs,
    until: UnixMs,
}

impl Verifier {
    /// Keys are fetched with the first token of each issuer, or by [`Self::warm`].
    #[must_use]
    pub fn new(issuers: Vec<Issuer>, fetch: &Arc<dyn KeyFetch>, tokens_max: usize) -> Self {
        let trusted = |issuer: Issuer| {
            let (from, fetch) = (issuer.keys.clone(), fetch.clone());
            let keys = KeySet::new(from, issuer.keys_ttl_s, issuer.keys_cooldown_s, fetch);
            Trusted {
                keys: Arc::new(keys),
                issuer,
            }
        };
        Self {
            issuers: issuers.into_iter().map(trusted).collect(),
            known: Cache::new(tokens_max),
        }
    }

    /// Fetches the keys of every issuer; true when all have some.
    pub async fn warm(&self, now: UnixMs) -> bool {
        let mut all = true;
        for trusted in &self.issuers {
            all &= trusted.keys.refreshed(now).await.is_some();
        }
        all
    }

    /// The key sets, for readiness and logs.
    pub fn key_sets(&self) -> impl Iterator<Item = (&str, &Arc<KeySet>)> {
        self.issuers
            .iter()
            .map(|trusted| (trusted.issuer.issuer.as_str(), &trusted.keys))
    }

    /// Who sent `token`. Waits only where a key is not known yet.
    ///
    /// # Errors
    /// The first check that failed; the caller turns it into a `Reject`, which does not say which.
    pub async fn verify(&self, token: &str, now: UnixMs) -> Result<Arc<Principal>, AuthRefusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthRefusal::TooLarge {
                max: TOKEN_BYTES_MAX,
            });
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(principal) = self.recall(&digest, now)? {
            return Ok(principal);
        }
        let claimed = Claimed::read(token)?;
        let (at, trusted) = self.issuer(&claimed)?;
        if !trusted.issuer.algorithms.contains(&claimed.algorithm) {
            return Err(AuthRefusal::Algorithm);
        }
        let keys = trusted.keys_for(&claimed, now).await?;
        let key = keys
            .find(&claimed.key_id, claimed.algorithm)
            .ok_or(AuthRefusal::UnknownKey)?;
        let (principal, good) = check(token, &trusted.issuer, claimed.algorithm, key, now)?;
        let principal = Arc::new(principal);
        let known = Known {
            principal: principal.clone(),
            issuer: at,
            generation: keys.generation,
            good,
        };
        self.known.insert(digest, known);
        Ok(principal)
    }

    fn recall(
        &self,
        digest: &[u8; 32],
        now: UnixMs,
    ) -> Result<Option<Arc<Principal>>, AuthRefusal> {
        let Some(known) = self.known.get(digest) else {
            return Ok(None);
        };
        let keys = self
            .issuers
            .get(known.issuer)
            .and_then(|trusted| trusted.keys.usable(now));
        if keys.is_none_or(|keys| keys.generation != known.generation) {
            return Ok(None);
        }
        known.good.check(now)?;
        Ok(Some(known.principal))
    }

    fn issuer(&self, claimed: &Claimed) -> Result<(usize, &Trusted), AuthRefusal> {
        let mut issuers = self.issuers.iter().enumerate();
        issuers
            .find(|(_, trusted)| trusted.issuer.issuer == claimed.issuer)
            .ok_or(AuthRefusal::UnknownIssuer)
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier")
            .field("issuers", &self.issuers.len())
            .finish_non_exhaustive()
    }
}

impl Trusted {
    /// Keys that have the claimed one if the issuer publishes it. An unknown id is worth one fetch
    /// per cooldown: the issuer may have begun to use a new key.
    async fn keys_for(&self, claimed: &Claimed, now: UnixMs) -> Result<Arc<Keys>, AuthRefusal> {
        let has = |keys: &Arc<Keys>| keys.find(&claimed.key_id, claimed.algorithm).is_some();
        if let Some(keys) = self.keys.usable(now).filter(has) {
            return Ok(keys);
        }
        self.keys
            .refreshed(now)
            .await
            .ok_or(AuthRefusal::KeysUnavailable)
    }
}

/// What a token says of itself before anything is believed.
struct Claimed {
    issuer: String,
    key_id: String,
    algorithm: Algorithm,
}

impl Claimed {
    fn read(token: &str) -> Result<Self, AuthRefusal> {
        #[derive(Deserialize)]
        struct Unverified {
            iss: String,
        }
        // Three parts; the library would take an encrypted or detached form for something else.
        if token.split('.').count() != 3 {
            return Err(AuthRefusal::Malformed);
        }
        // `alg: none` is no `Algorithm`, so such a header does not even parse.
        let header: Header =
            jsonwebtoken::decode_header(token).map_err(|_| AuthRefusal::Malformed)?;
        // Extensions that must be understood (RFC 7515, section 4.1.11); we understand none.
        if header.crit.is_some() || header.enc.is_some() || header.zip.is_some() {
            return Err(AuthRefusal::Malformed);
        }
        // Read only to choose the issuer whose key must then have signed the same claim.
        let unverified: Unverified = jsonwebtoken::dangerous::insecure_decode_claims(token)
            .map_err(|_| AuthRefusal::Claims)?;
        let key_id = header.kid.ok_or(AuthRefusal::UnknownKey)?;
        Ok(Self {
            issuer: unverified.iss,
            key_id,
            algorithm: header.alg,
        })
    }
}

/// Claims of an access token (ADR 1).
#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    sub: String,
    jti: String,
    exp: i64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(default)]
    orgs: BTreeMap<String, String>,
    plan: String,
    #[serde(default)]
    scopes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn names(&self, wanted: &str) -> bool {
        match self {
            Self::One(only) => only == wanted,
            Self::Several(all) => all.iter().any(|one| one == wanted),
        }
    }
}

/// Everything that can be decided about a token once its key is at hand.
fn check(
    token: &str,
    issuer: &Issuer,
    algorithm: Algorithm,
    key: &DecodingKey,
    now: UnixMs,
) -> Result<(Principal, Span), AuthRefusal> {
    let claims = verified_claims(token, algorithm, key)?;
    if claims.iss != issuer.issuer {
        return Err(AuthRefusal::UnknownIssuer);
    }
    if !claims.aud.names(&issuer.audience) {
        return Err(AuthRefusal::Audience);
    }
    let leeway_ms = i64::from(issuer.leeway_s) * 1000;
    let ms = |seconds: i64| seconds.checked_mul(1000).ok_or(AuthRefusal::Claims);
    let expires_at = UnixMs(ms(claims.exp)?);
    let good = Span {
        from: UnixMs(
            claims
                .nbf
                .map_or(Ok(i64::MIN), ms)?
                .saturating_sub(leeway_ms),
        ),
        until: UnixMs(expires_at.0.saturating_add(leeway_ms)),
    };
    good.check(now)?;
    if claims.sub.is_empty() || claims.jti.is_empty() {
        return Err(AuthRefusal::Claims);
    }
    let principal = Principal {
        subject: claims.sub,
        token_id: claims.jti,
        orgs: claims.orgs,
        plan: claims.plan,
        scopes: claims.scopes,
        expires_at,
    };
    Ok((principal, good))
}

/// The claims of a token whose signature is good. Times and audience are checked by the caller: the
/// library would ask the machine for the time.
fn verified_claims(
    token: &str,
    algorithm: Algorithm,
    key: &DecodingKey,
) -> Result<Claims, AuthRefusal> {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    let decoded = jsonwebtoken::decode::<Claims>(token, key, &validation);
    match decoded {
        Ok(data) => Ok(data.claims),
        Err(error) if matches!(error.kind(), jsonwebtoken::errors::ErrorKind::Json(_)) => {
            Err(AuthRefusal::Claims)
        }
        Err(_) => Err(AuthRefusal::Signature),
    }
}

impl Span {
    fn check(self, now: UnixMs) -> Result<(), AuthRefusal> {
        if now >= self.until {
            let ago_s = now.0.saturating_sub(self.until.0).unsigned_abs() / 1000;
            return Err(AuthRefusal::Expired { ago_s });
        }
        if now < self.from {
            let in_s = self.from.0.saturating_sub(now.0).unsigned_abs() / 1000;
            return Err(AuthRefusal::NotYet { in_s });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
