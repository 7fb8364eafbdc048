use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::Verifier;
use crate::auth::jwks::KeyFetch;
use crate::auth::refusal::AuthRefusal;
use crate::auth::testing::{NOW_S, TestIssuer, TestKey, claims, issuer};
use crate::kernel::clock::UnixMs;
use crate::kernel::principal::Principal;
use crate::kernel::reject::Reject;

const NOW: UnixMs = UnixMs(NOW_S * 1000);

fn at(seconds: i64) -> UnixMs {
    UnixMs((NOW_S + seconds) * 1000)
}

fn verifier(served: &Arc<TestIssuer>) -> Verifier {
    let fetch: Arc<dyn KeyFetch> = served.clone();
    Verifier::new(vec![issuer()], &fetch, 100)
}

struct World {
    key: TestKey,
    served: Arc<TestIssuer>,
    verifier: Verifier,
}

fn world() -> World {
    let key = TestKey::ed("key-1", 1);
    let served = TestIssuer::publishing(&[key.published()]);
    let verifier = verifier(&served);
    World {
        key,
        served,
        verifier,
    }
}

impl World {
    async fn verify(&self, token: &str, now: UnixMs) -> Result<Arc<Principal>, AuthRefusal> {
        self.verifier.verify(token, now).await
    }

    /// The verdict on an honest token with one claim changed or, with null, removed.
    async fn with(&self, claim: &str, value: Value) -> Result<(), AuthRefusal> {
        let mut claims = claims();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(claim);
        } else {
            claims[claim] = value;
        }
        self.verify(&self.key.sign(&claims), NOW).await.map(|_| ())
    }
}

#[tokio::test]
async fn an_honest_token_says_who_is_calling() {
    let world = world();
    let token = world.key.sign(&claims());
    let principal = world.verify(&token, NOW).await.unwrap();
    assert_eq!(principal.subject, "usr_1");
    assert_eq!(principal.token_id, "tok_1");
    assert_eq!(principal.orgs["org_a"], "owner");
    assert_eq!(
        (principal.plan.as_str(), principal.scopes.len()),
        ("PRO", 1)
    );
    assert_eq!(principal.expires_at, at(900));
    assert_eq!(
        world.with("aud", json!(["other", "chefcloud"])).await,
        Ok(())
    );
    assert_eq!(world.with("nbf", Value::Null).await, Ok(()));
}

#[tokio::test]
async fn claims_are_checked() {
    let world = world();
    let cases = [
        ("iss", json!("somebody"), AuthRefusal::UnknownIssuer),
        ("iss", Value::Null, AuthRefusal::Claims),
        ("aud", json!("other"), AuthRefusal::Audience),
        ("aud", json!([]), AuthRefusal::Audience),
        ("aud", Value::Null, AuthRefusal::Claims),
        ("exp", Value::Null, AuthRefusal::Claims),
        ("exp", json!("never"), AuthRefusal::Claims),
        ("exp", json!(1e300), AuthRefusal::Claims),
        ("exp", json!(i64::MAX), AuthRefusal::Claims),
        ("exp", json!(NOW_S - 30), AuthRefusal::Expired { ago_s: 0 }),
        (
            "exp",
            json!(-1),
            AuthRefusal::Expired {
                ago_s: 1_699_999_971,
            },
        ),
        ("nbf", json!(NOW_S + 31), AuthRefusal::NotYet { in_s: 1 }),
        ("nbf", json!("now"), AuthRefusal::Claims),
        ("sub", Value::Null, AuthRefusal::Claims),
        ("sub", json!(""), AuthRefusal::Claims),
        ("jti", Value::Null, AuthRefusal::Claims),
        ("plan", Value::Null, AuthRefusal::Claims),
        ("orgs", json!(["org_a"]), AuthRefusal::Claims),
    ];
    for (claim, value, expected) in cases {
        assert_eq!(
            world.with(claim, value.clone()).await,
            Err(expected),
            "{claim} {value}"
        );
    }
}

#[tokio::test]
async fn leeway_is_given_and_no_more() {
    let world = world();
    let token = world.key.sign(&claims());
    let verdict = async |seconds| world.verify(&token, at(seconds)).await.map(|_| ());
    assert_eq!(verdict(929).await, Ok(()));
    assert_eq!(verdict(930).await, Err(AuthRefusal::Expired { ago_s: 0 }));
    assert_eq!(verdict(-30).await, Ok(()));
    assert_eq!(verdict(-31).await, Err(AuthRefusal::NotYet { in_s: 1 }));
}

#[tokio::test]
async fn another_key_is_another_signer() {
    let world = world();
    let forged = TestKey::ed("key-1", 2).sign(&claims());
    assert_eq!(
        world.verify(&forged, NOW).await.unwrap_err(),
        AuthRefusal::Signature
    );
    let honest = world.key.sign(&claims());
    let (rest, signature) = honest.rsplit_once('.').unwrap();
    let empty = format!("{rest}.");
    assert_eq!(
        world.verify(&empty, NOW).await.unwrap_err(),
        AuthRefusal::Signature
    );
    let mut parts = honest.split('.');
    let (header, _) = (parts.next().unwrap(), parts.next());
    let mut richer = claims();
    richer["plan"] = json!("ENT");
    let payload = URL_SAFE_NO_PAD.encode(richer.to_string());
    let changed = format!("{header}.{payload}.{signature}");
    assert_eq!(
        world.verify(&changed, NOW).await.unwrap_err(),
        AuthRefusal::Signature
    );
}

#[tokio::test]
async fn the_algorithm_is_not_the_tokens_to_choose() {
    let world = world();
    let payload = URL_SAFE_NO_PAD.encode(claims().to_string());
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = json!({ "alg": alg, "typ": "JWT", "kid": "key-1" }).to_string();
        let header = URL_SAFE_NO_PAD.encode(header);
        for signature in ["", "AA"] {
            let token = format!("{header}.{payload}.{signature}");
            assert_eq!(
                world.verify(&token, NOW).await.unwrap_err(),
                AuthRefusal::Malformed
            );
        }
    }
    // The public key as a shared secret: the classic confusion.
    let public = world.key.published()["x"].as_str().unwrap().to_owned();
    for secret in [
        public.clone().into_bytes(),
        URL_SAFE_NO_PAD.decode(&public).unwrap(),
    ] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("key-1".into());
        let key = EncodingKey::from_secret(&secret);
        let token = jsonwebtoken::encode(&header, &claims(), &key).unwrap();
        assert_eq!(
            world.verify(&token, NOW).await.unwrap_err(),
            AuthRefusal::Algorithm
        );
    }
    // A good key of a kind that this issuer is not to use.
    let other = TestKey::ec("key-2");
    world
        .served
        .publish(&[world.key.published(), other.published()]);
    let refusal = world.verify(&other.sign(&claims()), NOW).await.unwrap_err();
    assert_eq!(refusal, AuthRefusal::Algorithm);
}

#[tokio::test]
async fn a_key_is_used_for_its_own_algorithm_only() {
    let other = TestKey::ec("key-1");
    let served = TestIssuer::publishing(&[other.published()]);
    let token = TestKey::ed("key-1", 1).sign(&claims());
    let refusal = verifier(&served).verify(&token, NOW).await.unwrap_err();
    assert_eq!(refusal, AuthRefusal::UnknownKey);
}

#[tokio::test]
async fn headers_that_ask_for_more_are_refused() {
    let world = world();
    let with = |change: fn(&mut Header)| {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some("key-1".into());
        change(&mut header);
        world.key.sign_with(&header, &claims())
    };
    assert!(world.verify(&with(|_| {}), NOW).await.is_ok());
    let critical = with(|header| header.crit = Some(vec!["b64".into()]));
    assert_eq!(
        world.verify(&critical, NOW).await.unwrap_err(),
        AuthRefusal::Malformed
    );
    let nameless = with(|header| header.kid = None);
    assert_eq!(
        world.verify(&nameless, NOW).await.unwrap_err(),
        AuthRefusal::UnknownKey
    );
    // Keys and addresses of keys in the token are of no interest.
    let away = with(|header| header.jku = Some("https://evil.example/jwks".into()));
    assert!(world.verify(&away, NOW).await.is_ok());
}

#[tokio::test]
async fn garbage_is_refused_before_anything_is_fetched() {
    let world = world();
    let oversized = "a".repeat(8 * 1024 + 1);
    for bad in [
        "",
        ".",
        "..",
        "a.b.c",
        "a.b",
        "a.b.c.d.e",
        "\u{0}",
        "eyJ9.e30.",
        &oversized,
    ] {
        assert!(world.verify(bad, NOW).await.is_err());
    }
    assert_eq!(world.served.fetches(), 0);
}

#[tokio::test]
async fn a_known_token_is_not_checked_again_until_something_changes() {
    let world = world();
    let token = world.key.sign(&claims());
    let first = world.verify(&token, NOW).await.unwrap();
    let again = world.verify(&token, at(1)).await.unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert!(matches!(
        world.verify(&token, at(930)).await,
        Err(AuthRefusal::Expired { .. })
    ));

    // The issuer takes the key back; the next fetch makes the token worthless.
    world.served.publish(&[TestKey::ed("key-2", 2).published()]);
    assert!(world.verify(&token, at(301)).await.is_ok());
    until(|| world.served.fetches() == 2).await;
    until_async(async || world.verify(&token, at(302)).await.is_err()).await;
    assert_eq!(
        world.verify(&token, at(302)).await.unwrap_err(),
        AuthRefusal::UnknownKey
    );
}

#[tokio::test]
async fn many_at_once_fetch_once() {
    let world = Arc::new(world());
    let token = world.key.sign(&claims());
    world.served.hang();
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (world, token) = (world.clone(), token.clone());
            tokio::spawn(async move { world.verify(&token, NOW).await.is_ok() })
        })
        .collect();
    until(|| world.served.fetches() == 1).await;
    world.served.answer();
    for task in tasks {
        assert!(task.await.unwrap());
    }
    assert_eq!(world.served.fetches(), 1);
}

#[tokio::test]
async fn unknown_keys_cost_one_fetch_per_cooldown() {
    let world = world();
    let flood = async |now| {
        for n in 0..100 {
            let token = TestKey::ed(&format!("made-up-{n}"), 9).sign(&claims());
            assert_eq!(
                world.verify(&token, now).await.unwrap_err(),
                AuthRefusal::UnknownKey
            );
        }
        world.served.fetches()
    };
    assert_eq!(flood(NOW).await, 1);
    assert_eq!(flood(at(29)).await, 1);
    assert_eq!(flood(at(30)).await, 2);
    // A key that appears is found by the fetch that its first token causes.
    let new = TestKey::ed("key-2", 2);
    world
        .served
        .publish(&[world.key.published(), new.published()]);
    assert!(world.verify(&new.sign(&claims()), at(60)).await.is_ok());
    assert!(
        world
            .verify(&world.key.sign(&claims()), at(60))
            .await
            .is_ok()
    );
    assert_eq!(world.served.fetches(), 3);
}

#[tokio::test]
async fn old_keys_are_used_while_the_issuer_is_away() {
    let world = world();
    assert!(world.verifier.warm(NOW).await);
    world.served.serve(Err("connection refused"));
    let mut late = claims();
    late["exp"] = json!(NOW_S + 200_000);
    for (n, seconds) in [301, 3600, 86_000].into_iter().enumerate() {
        late["jti"] = json!(format!("tok_{n}"));
        assert!(
            world
                .verify(&world.key.sign(&late), at(seconds))
                .await
                .is_ok(),
            "{seconds}"
        );
        until(|| world.served.fetches() == n + 2).await;
    }
    let (_, keys) = world.verifier.key_sets().next().unwrap();
    until(|| keys.last_error().is_some()).await;
    let token = world.key.sign(&late);
    let refusal = world.verify(&token, at(86_400 + 300)).await.unwrap_err();
    assert_eq!(refusal, AuthRefusal::KeysUnavailable);
    assert_eq!(Reject::from(refusal).status().as_u16(), 503);
    world.served.publish(&[world.key.published()]);
    assert!(world.verify(&token, at(86_400 + 400)).await.is_ok());
}

#[tokio::test]
async fn an_issuer_that_starts_late_is_asked_again_soon() {
    let world = world();
    world.served.serve(Err("connection refused"));
    let token = world.key.sign(&claims());
    assert!(!world.verifier.warm(NOW).await);
    assert_eq!(
        world.verify(&token, NOW).await.unwrap_err(),
        AuthRefusal::KeysUnavailable
    );
    world.served.publish(&[world.key.published()]);
    assert!(world.verify(&token, at(1)).await.is_ok());
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_stop_the_fetch() {
    let world = world();
    world.served.hang();
    let token = world.key.sign(&claims());
    let gone = tokio::time::timeout(std::time::Duration::ZERO, world.verify(&token, NOW)).await;
    assert!(gone.is_err());
    world.served.answer();
    assert!(world.verify(&token, NOW).await.is_ok());
    assert_eq!(world.served.fetches(), 1);
}

#[tokio::test]
async fn a_bad_key_set_replaces_nothing() {
    let world = world();
    assert!(world.verifier.warm(NOW).await);
    let oct = json!({ "kty": "oct", "kid": "key-1", "k": "c2VjcmV0", "alg": "HS256" });
    let encryption = {
        let mut key = world.key.published();
        key["use"] = json!("enc");
        key
    };
    let documents = [
        "".to_owned(),
        "{}".to_owned(),
        r#"{"keys":[]}"#.to_owned(),
        json!({ "keys": [oct] }).to_string(),
        json!({ "keys": [encryption] }).to_string(),
        format!("{{\"keys\":[],\"pad\":\"{}\"}}", "x".repeat(70_000)),
    ];
    let (_, keys) = world.verifier.key_sets().next().unwrap();
    for (n, document) in documents.into_iter().enumerate() {
        world.served.serve(Ok(document));
        let now = at(i64::try_from(n).unwrap() * 40 + 400);
        assert!(keys.refreshed(now).await.is_some());
        assert!(keys.last_error().is_some(), "document {n}");
        assert!(
            world.verify(&world.key.sign(&claims()), now).await.is_ok(),
            "document {n}"
        );
    }
    // Keys that are not for us stand beside one that is.
    world
        .served
        .publish(&[json!({ "kty": "XYZ" }), json!(7), world.key.published()]);
    assert!(keys.refreshed(at(800)).await.is_some());
    assert_eq!(keys.last_error(), None);
}

proptest! {
    #[test]
    fn no_text_is_a_token(text in "[A-Za-z0-9_.-]{0,200}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let verdict = runtime.block_on(async { world().verify(&text, NOW).await });
        prop_assert!(verdict.is_err());
    }
}

/// Lets other tasks run until `reached`; fails after too many turns.
async fn until(reached: impl Fn() -> bool) {
    until_async(async || reached()).await;
}

async fn until_async(reached: impl AsyncFn() -> bool) {
    for _ in 0..10_000 {
        if reached().await {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never reached");
}
