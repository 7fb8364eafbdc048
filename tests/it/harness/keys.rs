//! Certificates, the token issuer and the webhook signer of the tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ED25519};
use serde_json::{Value, json};
use sha2::Sha256;

pub const WEBHOOK_SECRET: &str = "dev-webhook-secret-of-the-integration-tests";
pub const ASSERTION_SECRET: &str = "dev-assertion-secret-of-the-integration-tests";
/// As Standard Webhooks writes a secret.
pub const DELIVERY_SECRET: &str = "whsec_ZGV2LWRlbGl2ZXJ5LXNlY3JldC1mb3ItdGhlLXRlc3RzLTE=";

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// `X-Signature` of the platform's scheme.
pub fn sign(secret: &str, timestamp_ms: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(timestamp_ms.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// Signs tokens; its JWKS is what the origin publishes.
pub struct TokenIssuer {
    pair: KeyPair,
    pub kid: String,
}

impl TokenIssuer {
    pub fn new() -> Self {
        Self {
            pair: KeyPair::generate_for(&PKCS_ED25519).unwrap(),
            kid: "test-1".into(),
        }
    }

    pub fn jwks(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key_raw());
        json!({ "keys": [{
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.kid, "x": x,
        }]})
    }

    /// Any claims at all, for the attacks.
    pub fn encode(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        let key = EncodingKey::from_ed_der(&self.pair.serialize_der());
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }

    /// A good token for a user in some organisations.
    pub fn token(&self, subject: &str, orgs: &[&str], plan: &str) -> String {
        self.encode(&claims(subject, orgs, plan, 900))
    }
}

/// Good claims; tests bend them.
pub fn claims(subject: &str, orgs: &[&str], plan: &str, lives_s: i64) -> Value {
    let orgs: BTreeMap<&str, &str> = orgs.iter().map(|o| (*o, "manager")).collect();
    let now = now_ms() / 1000;
    json!({
        "iss": "chefcloud-api", "aud": "chefcloud", "sub": subject,
        "jti": format!("tok_{}", now_ms()), "orgs": orgs, "plan": plan, "scopes": [],
        "iat": now, "nbf": now, "exp": now + lives_s,
    })
}

/// A certificate authority with server certificates in a folder.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "maitred tests");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Writes `{stem}.pem` and `{stem}.key` for these names.
    pub fn issue(&self, dir: &Path, stem: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (chain, secret) = (
            dir.join(format!("{stem}.pem")),
            dir.join(format!("{stem}.key")),
        );
        std::fs::write(&chain, certificate.pem()).unwrap();
        std::fs::write(&secret, key.serialize_pem()).unwrap();
        (chain, secret)
    }
}
