//! Tokens: the good ones pass, every forgery gets the same answer, and none ever reaches the log.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{assert_hardened, assert_refused};
use crate::harness::edge::Edge;
use crate::harness::either::{BOTH, Client, Speaks};
use crate::harness::keys::{TokenIssuer, claims, now_ms};
use crate::harness::origin::{Origin, Script};

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn good() -> Value {
    claims("usr_a", &["org_a"], "ENT", 900)
}

/// The same claims with one of them changed; `null` removes it.
fn bent(name: &str, value: Value) -> Value {
    let mut claims = good();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

/// Signed with a secret that everybody knows.
fn symmetric(issuer: &TokenIssuer, secret: &[u8]) -> String {
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(issuer.kid.clone());
    jsonwebtoken::encode(&header, &good(), &EncodingKey::from_secret(secret)).unwrap()
}

/// A good signature under another header.
fn relabelled(token: &str, header: &Value) -> String {
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", part(header))
}

type Forgeries = Vec<(&'static str, String)>;

/// Nobody who holds the key signed these.
fn unsigned(issuer: &TokenIssuer) -> Forgeries {
    let token = issuer.encode(&good());
    let parts: Vec<&str> = token.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let kid = &issuer.kid;
    let alg = |alg: &str| format!("{}.{payload}.", part(&json!({"alg": alg, "kid": kid})));
    let none = json!({"alg": "none", "kid": kid});
    let other = part(&bent("sub", json!("usr_z")));
    let x = issuer.jwks()["keys"][0]["x"].as_str().unwrap().to_owned();
    let raw = URL_SAFE_NO_PAD.decode(&x).unwrap();
    let set = issuer.jwks().to_string();
    vec![
        ("alg none", alg("none")),
        ("alg None", alg("None")),
        ("alg none, signature kept", relabelled(&token, &none)),
        ("no signature", format!("{header}.{payload}.")),
        ("HMAC with the key's text", symmetric(issuer, x.as_bytes())),
        ("HMAC with the key", symmetric(issuer, &raw)),
        ("HMAC with the key set", symmetric(issuer, set.as_bytes())),
        ("HMAC with nothing", symmetric(issuer, b"")),
        ("another payload", format!("{header}.{other}.{signature}")),
        ("a bit of the signature", flipped(&token)),
        ("two parts", format!("{header}.{payload}")),
        ("five parts", format!("{token}.x.y")),
        ("not even base64", "a.b.c".into()),
        ("padding", format!("{token}=")),
        (
            "too long",
            format!("{header}.{}.{signature}", "A".repeat(9_000)),
        ),
    ]
}

/// The header leads to another key, or to none.
fn misleading(issuer: &TokenIssuer) -> Forgeries {
    let kid = &issuer.kid;
    let token = issuer.encode(&good());
    let stranger = TokenIssuer::new();
    let theirs = stranger.encode(&good());
    let key = stranger.jwks()["keys"][0].clone();
    let embedded = json!({"alg": "EdDSA", "kid": kid, "jwk": key});
    let elsewhere = json!({"alg": "EdDSA", "kid": kid, "jku": "https://evil.test/k"});
    let critical = json!({"alg": "EdDSA", "kid": kid, "crit": ["exp"]});
    let path = json!({"alg": "EdDSA", "kid": "../../dev/null"});
    vec![
        ("another key, same name", theirs.clone()),
        (
            "a key that the token brings",
            relabelled(&theirs, &embedded),
        ),
        ("a key from elsewhere", relabelled(&theirs, &elsewhere)),
        ("critical extension", relabelled(&token, &critical)),
        ("no key id", relabelled(&token, &json!({"alg": "EdDSA"}))),
        ("key id as a path", relabelled(&token, &path)),
    ]
}

/// Signed by the issuer, and yet not good here and now.
fn unfit(issuer: &TokenIssuer) -> Forgeries {
    let seconds = now_ms() / 1000;
    let list = [
        ("expired", bent("exp", json!(seconds - 120))),
        ("not yet", bent("nbf", json!(seconds + 120))),
        ("no expiry", bent("exp", Value::Null)),
        ("expiry as text", bent("exp", json!("9999999999"))),
        ("expiry beyond numbers", bent("exp", json!(1e300))),
        ("for somebody else", bent("aud", json!("another"))),
        ("for nobody", bent("aud", Value::Null)),
        ("audience as prefix", bent("aud", json!("chefcloud-evil"))),
        ("from somebody else", bent("iss", json!("another"))),
        ("from nobody", bent("iss", Value::Null)),
        ("about nobody", bent("sub", json!(""))),
        ("without id", bent("jti", Value::Null)),
        ("organisations as text", bent("orgs", json!("org_a"))),
    ];
    let sign = |(what, claims)| (what, issuer.encode(&claims));
    list.into_iter().map(sign).collect()
}

/// The token with one bit of its signature changed.
fn flipped(token: &str) -> String {
    let (head, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    bytes[7] ^= 1;
    format!("{head}.{}", URL_SAFE_NO_PAD.encode(bytes))
}

#[tokio::test]
async fn every_forgery_is_refused_in_the_same_words() {
    let issuer = TokenIssuer::new();
    let origin = Origin::start(issuer.jwks(), |_| Script::json("{}")).await;
    let edge = Edge::before(&origin).await;
    let list = [unsigned(&issuer), misleading(&issuer), unfit(&issuer)].concat();
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        for (what, token) in &list {
            let bearer = format!("Bearer {token}");
            let answer = client.get("/closed/x", &[("authorization", &bearer)]).await;
            assert_eq!(answer.status, 401, "{what}");
            assert_eq!(assert_refused(&answer, what), "unauthenticated");
            assert_hardened(&answer, what);
            let said = answer.json();
            assert_eq!(
                said["detail"], "The request carries no valid proof of who sent it.",
                "{what}"
            );
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{what}");
        }
    }
    assert_eq!(origin.byte_count(), 0, "nothing reached the service");
    assert!(origin.key_fetches() <= 4, "{}", origin.key_fetches());
    let log = edge.log();
    for (what, token) in &list {
        for part in token.split('.').filter(|p| p.len() > 20) {
            assert!(!log.contains(part), "{what} is in the log");
        }
    }
}

#[tokio::test]
async fn good_tokens_pass_and_stay_out_of_the_log() {
    let issuer = TokenIssuer::new();
    let origin = Origin::start(issuer.jwks(), |_| Script::json("{}")).await;
    let edge = Edge::before(&origin).await;
    let seconds = now_ms() / 1000;
    for (what, claims) in [
        ("as it should be", good()),
        (
            "within the leeway past its end",
            bent("exp", json!(seconds - 5)),
        ),
        (
            "within the leeway before its begin",
            bent("nbf", json!(seconds + 5)),
        ),
        (
            "one audience of several",
            bent("aud", json!(["other", "chefcloud"])),
        ),
        ("no begin", bent("nbf", Value::Null)),
    ] {
        let token = issuer.encode(&claims);
        for (speaks, scheme) in BOTH.into_iter().zip(["Bearer", "bEARER"]) {
            let mut client = Client::open(&edge, speaks).await;
            let value = format!("{scheme} {token}");
            let answer = client.get("/closed/x", &[("authorization", &value)]).await;
            assert_eq!(answer.status, 200, "{what}");
        }
        let log = edge.log();
        for part in token.split('.') {
            assert!(!log.contains(part), "{what} is in the log");
        }
    }
    for seen in origin.seen() {
        assert_eq!(seen.header("authorization"), None);
    }
}

#[tokio::test]
async fn a_credential_has_one_place() {
    let issuer = TokenIssuer::new();
    let origin = Origin::start(issuer.jwks(), |_| Script::json("{}")).await;
    let edge = Edge::before(&origin).await;
    let token = issuer.encode(&good());
    let bearer = format!("Bearer {token}");
    let basic = format!("Basic {token}");
    let listed = format!("{bearer}, {bearer}");
    let spaced = format!("Bearer  {token}");
    let cookie = format!("token={token}");
    let cases: [(&str, Vec<(&str, &str)>); 9] = [
        ("nothing", vec![]),
        (
            "twice",
            vec![("authorization", &bearer), ("authorization", &bearer)],
        ),
        (
            "twice, one bad",
            vec![("authorization", &bearer), ("authorization", "Bearer x")],
        ),
        ("a list", vec![("authorization", &listed)]),
        ("another scheme", vec![("authorization", &basic)]),
        ("no scheme", vec![("authorization", &token)]),
        ("two spaces", vec![("authorization", &spaced)]),
        (
            "another header",
            vec![
                ("x-authorization", &bearer),
                ("proxy-authorization", &bearer),
            ],
        ),
        ("a cookie", vec![("cookie", &cookie)]),
    ];
    for speaks in BOTH {
        for (what, headers) in &cases {
            let mut client = Client::open(&edge, speaks).await;
            let answer = client.get("/closed/x", headers).await;
            assert_eq!(answer.status, 401, "{speaks:?} {what}");
            assert_eq!(assert_refused(&answer, what), "unauthenticated");
        }
        let mut client = Client::open(&edge, speaks).await;
        for target in [
            format!("/closed/x?access_token={token}"),
            format!("/closed/x?token={token}"),
        ] {
            assert_eq!(client.get(&target, &[]).await.status, 401);
        }
    }
    assert_eq!(origin.byte_count(), 0);
    assert!(
        !edge.log().contains(&token),
        "the token of the query is in the log"
    );
}

#[tokio::test]
async fn a_token_ends_when_it_says_so() {
    let issuer = TokenIssuer::new();
    let origin = Origin::start(issuer.jwks(), |_| Script::json("{}")).await;
    let edge = Edge::before(&origin).await;
    // Three seconds of life are left once the leeway is counted in.
    let token = issuer.encode(&claims("usr_a", &["org_a"], "ENT", -27));
    let bearer = format!("Bearer {token}");
    let mut client = Client::open(&edge, Speaks::Http2).await;
    let first = client.get("/closed/x", &[("authorization", &bearer)]).await;
    assert_eq!(first.status, 200);
    // Remembered as good, and still not good for ever.
    crate::harness::until("it ends", || async {
        let mut client = Client::open(&edge, Speaks::Http2).await;
        let answer = client.get("/closed/x", &[("authorization", &bearer)]).await;
        (answer.status == 401).then_some(())
    })
    .await;
}
