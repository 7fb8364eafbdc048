//! An issuer for tests: makes keys, signs tokens, publishes a key set, goes away when told to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::jwks::{FetchError, KeyFetch};
use super::{Issuer, KeysFrom};

pub(super) const NOW_S: i64 = 1_700_000_000;

/// A key pair with a name.
pub(super) struct TestKey {
    pub(super) id: String,
    pub(super) algorithm: Algorithm,
    pub(super) key: EncodingKey,
}

impl TestKey {
    pub(super) fn ed(id: &str, seed: u8) -> Self {
        // PKCS #8 around an Ed25519 seed (RFC 8410).
        let mut der = hex::decode("302e020100300506032b657004220420").unwrap();
        der.extend([seed; 32]);
        Self {
            id: id.into(),
            algorithm: Algorithm::EdDSA,
            key: EncodingKey::from_ed_der(&der),
        }
    }

    pub(super) fn ec(id: &str) -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        Self {
            id: id.into(),
            algorithm: Algorithm::ES256,
            key,
        }
    }

    pub(super) fn published(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        let mut value = serde_json::to_value(jwk).unwrap();
        value["kid"] = json!(self.id);
        value["use"] = json!("sig");
        value
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.clone());
        self.sign_with(&header, claims)
    }

    pub(super) fn sign_with(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &self.key).unwrap()
    }
}

pub(super) fn claims() -> Value {
    json!({
        "iss": "chefcloud-api", "aud": "chefcloud", "sub": "usr_1", "jti": "tok_1",
        "orgs": { "org_a": "owner" }, "plan": "PRO", "scopes": ["stream"],
        "iat": NOW_S, "nbf": NOW_S, "exp": NOW_S + 900,
    })
}

pub(super) fn issuer() -> Issuer {
    Issuer {
        issuer: "chefcloud-api".into(),
        audience: "chefcloud".into(),
        algorithms: vec![Algorithm::EdDSA],
        leeway_s: 30,
        keys: KeysFrom::Upstream {
            pool: "api".into(),
            path: "/.well-known/jwks.json".into(),
        },
        keys_ttl_s: 300,
        keys_cooldown_s: 30,
    }
}

/// Serves what it is told to and counts.
pub(super) struct TestIssuer {
    document: Mutex<Result<Bytes, FetchError>>,
    fetches: AtomicUsize,
    /// A fetch takes one permit; none means that the issuer hangs.
    answers: Semaphore,
}

impl TestIssuer {
    pub(super) fn publishing(keys: &[Value]) -> Arc<Self> {
        let issuer = Self {
            document: Mutex::new(Err(FetchError("not told yet".into()))),
            fetches: AtomicUsize::new(0),
            answers: Semaphore::new(1_000_000),
        };
        issuer.publish(keys);
        Arc::new(issuer)
    }

    pub(super) fn publish(&self, keys: &[Value]) {
        self.serve(Ok(json!({ "keys": keys }).to_string()));
    }

    pub(super) fn serve(&self, document: Result<String, &str>) {
        let document = document
            .map(Bytes::from)
            .map_err(|text| FetchError(text.into()));
        *self.document.lock().unwrap() = document;
    }

    pub(super) fn hang(&self) {
        self.answers.forget_permits(usize::MAX >> 4);
    }

    pub(super) fn answer(&self) {
        self.answers.add_permits(1_000_000);
    }

    pub(super) fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl KeyFetch for TestIssuer {
    async fn fetch(&self, _: &KeysFrom) -> Result<Bytes, FetchError> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        self.answers.acquire().await.unwrap().forget();
        self.document.lock().unwrap().clone()
    }
}
