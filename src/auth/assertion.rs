//! The edge's own word for who is calling: a short-lived HS256 token for the API (ADR 1). Decides
//! nothing; what it says was proven by `auth::jwt`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderValue;
use serde::Serialize;
use sha2::Sha256;
use std::collections::BTreeMap;

use crate::kernel::clock::UnixMs;
use crate::kernel::id::RequestId;
use crate::kernel::principal::Principal;
use crate::kernel::secret::Secret;

/// Shortest secret accepted on either side.
const SECRET_CHARS_MIN: usize = 32;
const LIFETIME_S: i64 = 60;
/// `{"alg":"HS256","typ":"JWT"}` in base64url, and the dot.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.";

/// Signs assertions; made once from `EDGE_ASSERTION_SECRET`.
#[derive(Clone)]
pub struct Signer(Hmac<Sha256>);

/// A secret that is too short to sign with.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("must be at least 32 characters; `openssl rand -base64 32` makes one")]
pub struct BadSecret;

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'static str,
    aud: &'static str,
    sub: &'a str,
    jti: &'a str,
    orgs: &'a BTreeMap<String, String>,
    plan: &'a str,
    scopes: &'a [String],
    rid: &'a str,
    iat: i64,
    exp: i64,
}

impl Signer {
    /// From the shared secret's text.
    ///
    /// # Errors
    /// [`BadSecret`] for one that is too short.
    pub fn new(secret: &Secret) -> Result<Self, BadSecret> {
        if secret.expose().trim_ascii().len() < SECRET_CHARS_MIN {
            return Err(BadSecret);
        }
        Hmac::new_from_slice(secret.expose())
            .map(Self)
            .map_err(|_| BadSecret)
    }

    /// The value of `X-Maitred-Identity`. `None` only if the claims cannot be written as JSON, which
    /// no principal causes; the caller answers 500 and forwards nothing.
    #[must_use]
    pub fn sign(
        &self,
        principal: &Principal,
        request_id: &RequestId,
        now: UnixMs,
    ) -> Option<HeaderValue> {
        let iat = now.seconds();
        let claims = Claims {
            iss: "maitred",
            aud: "chefcloud-api",
            sub: &principal.subject,
            jti: &principal.token_id,
            orgs: &principal.orgs,
            plan: &principal.plan,
            scopes: &principal.scopes,
            rid: request_id.as_str(),
            iat,
            exp: iat.saturating_add(LIFETIME_S),
        };
        let payload = serde_json::to_vec(&claims).ok()?;
        let mut token = String::with_capacity(HEADER.len() + payload.len() * 4 / 3 + 48);
        token.push_str(HEADER);
        URL_SAFE_NO_PAD.encode_string(&payload, &mut token);
        let mut mac = self.0.clone();
        mac.update(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(mac.finalize().into_bytes(), &mut token);
        let mut value = HeaderValue::try_from(token).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(redacted)")
    }
}

#[cfg(test)]
mod tests;
