use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use super::Signer;
use crate::kernel::clock::UnixMs;
use crate::kernel::id::RequestId;
use crate::kernel::principal::Principal;
use crate::kernel::secret::Secret;

fn golden() -> Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/contract/identity-assertion.json"
    );
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn signed(golden: &Value) -> String {
    let claims = &golden["claims"];
    let principal = Principal {
        subject: text(&claims["sub"]),
        token_id: text(&claims["jti"]),
        orgs: serde_json::from_value(claims["orgs"].clone()).unwrap(),
        plan: text(&claims["plan"]),
        scopes: serde_json::from_value(claims["scopes"].clone()).unwrap(),
        expires_at: UnixMs(0),
    };
    let signer = Signer::new(&Secret::new(text(&golden["secret"]))).unwrap();
    let request_id = RequestId::parse(&text(&claims["rid"])).unwrap();
    let now = UnixMs(golden["now_ms"].as_i64().unwrap());
    let value = signer.sign(&principal, &request_id, now).unwrap();
    assert!(value.is_sensitive());
    value.to_str().unwrap().to_owned()
}

#[test]
fn the_assertion_is_the_golden_one() {
    let golden = golden();
    assert_eq!(signed(&golden), text(&golden["token"]));
}

#[test]
fn another_library_believes_it_with_the_right_secret_only() {
    let golden = golden();
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_exp = false;
    validation.set_issuer(&["maitred"]);
    validation.set_audience(&["chefcloud-api"]);
    let decode = |secret: &str| {
        let key = DecodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::decode::<Value>(signed(&golden), &key, &validation)
    };
    assert_eq!(
        decode(&text(&golden["secret"])).unwrap().claims,
        golden["claims"]
    );
    assert!(decode("another-secret-of-32-characters!").is_err());
}

#[test]
fn a_short_secret_does_not_sign() {
    for bad in ["", "short", &" ".repeat(40), &"x".repeat(31)] {
        assert!(Signer::new(&Secret::new(bad)).is_err(), "{bad:?}");
    }
}
