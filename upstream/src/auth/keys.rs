//! The Ed25519 key that signs access tokens, kept in the database so that tokens survive a restart
//! and every replica signs with the same one. Whoever can read the database can sign: its backups
//! are as secret as the key.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::SigningKey;
use jsonwebtoken::EncodingKey;
use rand::RngCore as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use zeroize::Zeroizing;

use crate::{error::ApiResult, kernel::clock::Millis, store::Store};

/// PKCS#8 v1 around a 32-byte Ed25519 seed (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

#[derive(Clone)]
pub(crate) struct Signer {
    pub kid: String,
    pub key: EncodingKey,
}

/// Loads the active key, making it if there is none.
pub(crate) async fn open(store: &Store, now: Millis) -> ApiResult<Signer> {
    let mut seed = Zeroizing::new([0_u8; 32]);
    rand::rng().fill_bytes(&mut *seed);
    let mut tx = store.begin().await?;
    sqlx::query(
        "INSERT INTO signing_keys (slot, kid, seed, created_at) VALUES ('active', $1, $2, $3)
         ON CONFLICT DO NOTHING",
    )
    .bind(kid(&seed))
    .bind(URL_SAFE_NO_PAD.encode(*seed))
    .bind(now.0)
    .execute(&mut *tx)
    .await?;
    let row = sqlx::query("SELECT kid, seed FROM signing_keys WHERE slot = 'active'")
        .fetch_one(&mut *tx)
        .await?;
    let seed = decode_seed(&Zeroizing::new(row.try_get::<String, _>("seed")?))?;
    let signer = Signer {
        kid: row.try_get("kid")?,
        key: encoding_key(&seed),
    };
    tx.commit().await?;
    Ok(signer)
}

/// Every key whose tokens may still be alive.
pub(crate) async fn published(store: &Store) -> ApiResult<Value> {
    let rows = sqlx::query("SELECT kid, seed FROM signing_keys ORDER BY created_at, kid")
        .fetch_all(store.reader())
        .await?;
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        let seed = decode_seed(&Zeroizing::new(row.try_get::<String, _>("seed")?))?;
        keys.push(json!({
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA",
            "kid": row.try_get::<String, _>("kid")?,
            "x": public_point(&seed),
        }));
    }
    Ok(json!({ "keys": keys }))
}

fn decode_seed(text: &str) -> ApiResult<Zeroizing<[u8; 32]>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map(Zeroizing::new);
    let seed = bytes
        .ok()
        .and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
    Ok(Zeroizing::new(seed.ok_or_else(|| {
        anyhow::anyhow!("a stored signing key is damaged")
    })?))
}

fn encoding_key(seed: &[u8; 32]) -> EncodingKey {
    let mut der = Zeroizing::new(PKCS8_PREFIX.to_vec());
    der.extend_from_slice(seed);
    EncodingKey::from_ed_der(&der)
}

fn public_point(seed: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(SigningKey::from_bytes(seed).verifying_key().as_bytes())
}

/// The RFC 7638 thumbprint.
fn kid(seed: &[u8; 32]) -> String {
    let members = format!(
        r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#,
        public_point(seed)
    );
    URL_SAFE_NO_PAD.encode(Sha256::digest(members))
}
