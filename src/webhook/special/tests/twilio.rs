//! Twilio: the URL, the two kinds of body, and who chooses the algorithm.

use super::{Kind, SpecialSpec, no_fetch, vector};
use crate::webhook::special::Special;
use crate::webhook::{Covers, Refusal};

const FORM: &str = "application/x-www-form-urlencoded";

fn spec(url: &str, alg: Option<&str>) -> SpecialSpec {
    SpecialSpec {
        public_url: Some(url.into()),
        alg: alg.map(str::to_owned),
        ..SpecialSpec::default()
    }
}

#[test]
fn the_url_is_the_configured_one_with_the_query_that_came() {
    let (endpoint, sent) = vector("twilio form with query").open();
    assert!(sent.verify(&endpoint).is_ok());
    for query in ["", "tenant=8&x=%20y", "tenant=7&x=+y", "x=%20y&tenant=7"] {
        let changed = sent.clone().with(|s| s.query = query.into());
        assert_eq!(
            changed.verify(&endpoint).unwrap_err(),
            Refusal::NoMatch,
            "{query}"
        );
    }
    let mut elsewhere = vector("twilio form");
    elsewhere.public_url = Some("https://edge.example.com/webhooks/twilio/".into());
    let (endpoint, sent) = elsewhere.open();
    assert_eq!(sent.verify(&endpoint).unwrap_err(), Refusal::NoMatch);
    // A host header changes nothing.
    let (endpoint, mut sent) = vector("twilio form").open();
    sent.headers.push(("host".into(), b"evil.example".to_vec()));
    assert!(sent.verify(&endpoint).is_ok());
}

#[test]
fn either_port_is_taken_and_is_one_message() {
    let (endpoint, plain) = vector("twilio form").open();
    let with_port = vector("twilio form signed with the port").sent();
    let keys = [plain, with_port].map(|s| s.verify(&endpoint).unwrap().replay_key);
    assert_eq!(keys[0], keys[1]);
}

#[test]
fn the_hash_in_the_url_is_the_bodys() {
    let (endpoint, sent) = vector("twilio json").open();
    assert_eq!(sent.verify(&endpoint).unwrap().covers, Covers::Body);
    let changed = sent.clone().replaced("delivered", "failed");
    assert_eq!(changed.verify(&endpoint).unwrap_err(), Refusal::NoMatch);
    let twice = sent.clone().with(|s| s.query = format!("{0}&{0}", s.query));
    let refused = twice.verify(&endpoint).unwrap_err();
    assert!(matches!(refused, Refusal::BadQuery(_)), "{refused}");
    // Without the hash the body is nobody's word, whatever its type says.
    let unhashed = sent.clone().with(|s| s.query.clear());
    assert!(matches!(
        unhashed.verify(&endpoint).unwrap_err(),
        Refusal::BadBody(_)
    ));
    let upper = sent.with(|s| s.query = s.query.to_uppercase());
    assert!(upper.verify(&endpoint).is_err());
}

#[test]
fn only_a_form_is_read_as_one() {
    let (endpoint, sent) = vector("twilio form").open();
    for kind in ["application/json", "text/plain", "", "multipart/form-data"] {
        let changed = sent.clone();
        let changed = changed.with(|s| *s.header("content-type") = kind.into());
        let refused = changed.verify(&endpoint).unwrap_err();
        assert!(matches!(refused, Refusal::BadBody(_)), "{kind}: {refused}");
    }
    let twice = sent.clone();
    let twice = twice.with(|s| s.headers.push(("content-type".into(), FORM.into())));
    assert!(twice.verify(&endpoint).is_err());
    assert!(sent.without("content-type").verify(&endpoint).is_err());
}

#[test]
fn a_form_cannot_be_turned_into_a_query() {
    let (endpoint, sent) = vector("twilio form with query").open();
    let mut fields = super::super::form::read(&sent.body).unwrap();
    fields.sort();
    let parts = fields.into_iter().flat_map(|(name, value)| [name, value]);
    let text: Vec<u8> = parts.flatten().collect();
    let text = String::from_utf8(text).unwrap();
    let moved = sent.with(|s| {
        s.query = format!("{}{text}", s.query);
        s.body.clear();
    });
    let refused = moved.verify(&endpoint).unwrap_err();
    assert!(matches!(refused, Refusal::BadBody(_)), "{refused}");
}

#[test]
fn a_form_that_is_cut_elsewhere_is_the_same_message() {
    let (endpoint, sent) = vector("twilio form").open();
    let moved = sent.clone().replaced("From=", "Fro=m");
    let (one, other) = (sent.verify(&endpoint), moved.verify(&endpoint));
    assert_eq!(one.unwrap().replay_key, other.unwrap().replay_key);
}

#[test]
fn the_sender_does_not_choose_the_algorithm() {
    let sha256 = vector("twilio form, shared key");
    let mut sha1 = sha256.clone();
    sha1.alg = Some("hmac-sha1".into());
    let (endpoint, sent) = sha1.open();
    assert_eq!(sent.verify(&endpoint).unwrap_err(), Refusal::BadEncoding);
    let (endpoint, sent) = sha256.open();
    let name = "x-twilio-webhooks-signature-settings";
    let says = |text: &str| sent.clone().with(|s| *s.header(name) = text.into());
    assert!(says("algorithm=HMAC_SHA1").verify(&endpoint).is_ok());
    assert!(sent.clone().without(name).verify(&endpoint).is_ok());
}

#[test]
fn an_unsigned_token_is_only_a_claim() {
    let (endpoint, mut sent) = vector("twilio form").open();
    let token = ("i-twilio-idempotency-token".into(), b"abc-1".to_vec());
    sent.headers.push(token);
    let verified = sent.verify(&endpoint).unwrap();
    assert_eq!(verified.claimed_id.as_deref(), Some("abc-1"));
    assert_eq!(verified.event_id.signed(), None);
}

#[test]
fn what_could_not_be_verified_does_not_build() {
    let build = |spec: &SpecialSpec| Special::build(Kind::Twilio, spec, &no_fetch());
    for url in [
        "",
        "http://edge.example/x",
        "https://",
        "https:///x",
        "https://edge.example/x?a=1",
        "https://edge.example/x#a",
        "https://edge.example/a b",
    ] {
        let errors = build(&spec(url, None)).unwrap_err();
        assert_eq!(errors[0].key, "public_url", "{url}");
    }
    let good = "https://edge.example/x";
    for alg in ["hmac-sha512", "equal", "HMAC_SHA1"] {
        let errors = build(&spec(good, Some(alg))).unwrap_err();
        assert!(errors.iter().any(|e| e.key == "alg"), "{alg}");
    }
    for url in [
        good,
        "https://user:pass@edge.example:8443/x",
        "https://[::1]/x",
        "https://[::1]:444/",
    ] {
        assert!(build(&spec(url, Some("hmac-sha256"))).is_ok(), "{url}");
    }
}

#[test]
fn the_port_is_taken_off_and_put_on() {
    let urls = |url: &str| super::super::twilio::urls(url).unwrap();
    for (url, without, with) in [
        ("https://a/x", "https://a/x", "https://a:443/x"),
        ("https://a:8443/x", "https://a/x", "https://a:8443/x"),
        ("https://u:p@a/x", "https://u:p@a/x", "https://u:p@a:443/x"),
        (
            "https://[::1]:4/x:y",
            "https://[::1]/x:y",
            "https://[::1]:4/x:y",
        ),
        ("https://a", "https://a", "https://a:443"),
    ] {
        assert_eq!(urls(url), [without, with]);
    }
}
