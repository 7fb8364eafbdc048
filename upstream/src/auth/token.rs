//! The two tokens a login yields: a signed access token that the edge verifies by itself, and a
//! refresh token that is random, single-use and stored only as a hash.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Header};
use rand::RngCore as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    auth::keys::Signer,
    error::ApiResult,
    kernel::{clock::Millis, role::Role, secret::Secret},
};

pub(crate) const ISSUER: &str = "chefcloud-api";
pub(crate) const AUDIENCE: &str = "chefcloud";
pub(crate) const ACCESS_SECONDS: i64 = 900;
/// What an ordinary session's token may be used for; finer rights come from the role.
pub(crate) const SESSION_SCOPE: &str = "api";

#[derive(Serialize)]
struct AccessClaims<'a> {
    iss: &'static str,
    aud: &'static str,
    sub: &'a str,
    jti: &'a str,
    orgs: &'a BTreeMap<String, Role>,
    plan: &'a str,
    scopes: [&'static str; 1],
    iat: i64,
    nbf: i64,
    exp: i64,
}

pub(crate) struct Grant<'a> {
    pub user_id: &'a str,
    pub jti: &'a str,
    pub orgs: &'a BTreeMap<String, Role>,
    pub plan: &'a str,
}

pub(crate) fn sign_access(signer: &Signer, grant: &Grant<'_>, now: Millis) -> ApiResult<String> {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(signer.kid.clone());
    let iat = now.seconds();
    let claims = AccessClaims {
        iss: ISSUER,
        aud: AUDIENCE,
        sub: grant.user_id,
        jti: grant.jti,
        orgs: grant.orgs,
        plan: grant.plan,
        scopes: [SESSION_SCOPE],
        iat,
        nbf: iat,
        exp: iat + ACCESS_SECONDS,
    };
    jsonwebtoken::encode(&header, &claims, &signer.key).map_err(|error| {
        anyhow::Error::new(error)
            .context("signing an access token")
            .into()
    })
}

pub(crate) fn fresh_refresh() -> Secret {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    Secret::new(format!("rt_{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// What is stored: the token has 256 random bits, so a plain hash is enough.
pub(crate) fn digest(refresh: &Secret) -> String {
    hex::encode(Sha256::digest(refresh.expose()))
}
