mod adyen;
mod braintree;
mod paypal;
mod rest;
mod twilio;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde::Deserialize;

use super::{CertificateFetch, Kind, Special, SpecialSpec};
use crate::kernel::clock::UnixMs;
use crate::kernel::reject::{Code, Reject};
use crate::kernel::secret::Secret;
use crate::webhook::handshake::Handshake;
use crate::webhook::sign::{Unsigned, sign};
use crate::webhook::{
    ActiveSecret, Covers, Endpoint, Head, Mode, Refusal, SignedParts, Verified, Verifier, verify,
};

/// 2023-11-14T22:13:20Z.
const NOW: UnixMs = UnixMs(1_700_000_000_000);

/// A message signed by somebody else's code; see `tests/fixtures/webhook/generate/`.
#[derive(Clone, Deserialize)]
struct Vector {
    name: String,
    special: String,
    secret: String,
    headers: BTreeMap<String, String>,
    query: String,
    body: String,
    public_url: Option<String>,
    alg: Option<String>,
    key_id: Option<String>,
    /// To a challenge; such a vector is no message.
    answer: Option<String>,
}

fn fixture(name: &str) -> Vec<u8> {
    let root = env!("CARGO_MANIFEST_DIR");
    std::fs::read(format!("{root}/tests/fixtures/webhook/special/{name}")).unwrap()
}

fn vectors() -> Vec<Vector> {
    let files = ["node.json", "python.json"];
    let read = |name: &str| -> Vec<Vector> { serde_json::from_slice(&fixture(name)).unwrap() };
    files.into_iter().flat_map(read).collect()
}

fn messages() -> Vec<Vector> {
    let all = vectors().into_iter();
    all.filter(|vector| vector.answer.is_none()).collect()
}

fn vector(name: &str) -> Vector {
    vectors().into_iter().find(|v| v.name == name).unwrap()
}

/// For schemes that fetch nothing.
struct NoFetch;

#[async_trait]
impl CertificateFetch for NoFetch {
    async fn fetch(&self, url: &str, _: usize, _: Duration) -> Result<Bytes, String> {
        panic!("fetched {url}")
    }
}

fn no_fetch() -> Arc<dyn CertificateFetch> {
    Arc::new(NoFetch)
}

impl Vector {
    fn kind(&self) -> Kind {
        match self.special.as_str() {
            "adyen-standard" => Kind::AdyenStandard,
            "braintree" => Kind::Braintree,
            "toast" => Kind::Toast,
            "twilio" => Kind::Twilio,
            other => panic!("{other}"),
        }
    }

    fn special(&self) -> Special {
        let spec = SpecialSpec {
            alg: self.alg.clone(),
            public_url: self.public_url.clone(),
            ..SpecialSpec::default()
        };
        Special::build(self.kind(), &spec, &no_fetch()).unwrap()
    }

    fn endpoint(&self, secrets: &[&str]) -> Endpoint {
        endpoint(self.special(), secrets, self.key_id.as_deref())
    }

    fn sent(&self) -> Sent {
        let line = |(n, v): (&String, &String)| (n.clone(), v.clone().into_bytes());
        Sent {
            headers: self.headers.iter().map(line).collect(),
            query: self.query.clone(),
            body: self.body.clone().into_bytes(),
        }
    }

    /// The endpoint that the message is for, and the message.
    fn open(&self) -> (Endpoint, Sent) {
        (self.endpoint(&[&self.secret]), self.sent())
    }
}

fn endpoint(special: Special, secrets: &[&str], key_id: Option<&str>) -> Endpoint {
    let active = |(at, secret): (usize, &&str)| {
        let made = ActiveSecret::new(
            &format!("secret-{at}"),
            &Secret::new(*secret),
            special.keys(),
        );
        made.unwrap().called(key_id)
    };
    Endpoint {
        name: "payments".into(),
        provider: "somebody".into(),
        secrets: secrets.iter().enumerate().map(active).collect(),
        scheme: Arc::new(special.into()),
        handshake: None,
        mode: Mode::Pass,
        order_key: None,
        upstream: "api".into(),
        body_bytes_max: 1 << 20,
        body_timeout_ms: 10_000,
    }
}

#[derive(Clone, Debug)]
struct Sent {
    headers: Vec<(String, Vec<u8>)>,
    query: String,
    body: Vec<u8>,
}

impl Sent {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn header(&mut self, name: &str) -> &mut Vec<u8> {
        let found = self.headers.iter_mut().find(|(n, _)| n == name);
        &mut found.unwrap().1
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| n != name);
        self
    }

    fn replaced(mut self, from: &str, to: &str) -> Self {
        let body = String::from_utf8(self.body).unwrap();
        assert!(body.contains(from), "{from} is not in {body}");
        self.body = body.replacen(from, to, 1).into_bytes();
        self
    }

    fn map(&self) -> HeaderMap {
        let line = |(n, v): &(String, Vec<u8>)| {
            let name: HeaderName = n.parse().unwrap();
            (name, HeaderValue::from_bytes(v).unwrap())
        };
        self.headers.iter().map(line).collect()
    }

    fn verify(&self, endpoint: &Endpoint) -> Result<Verified, Refusal> {
        self.verify_at(endpoint, NOW)
    }

    fn verify_at(&self, endpoint: &Endpoint, now: UnixMs) -> Result<Verified, Refusal> {
        let headers = self.map();
        let parts = SignedParts {
            method: "POST",
            query: &self.query,
            headers: &headers,
            body: &self.body,
        };
        verify(endpoint, &parts, now)
    }
}

#[test]
fn what_the_providers_own_code_signs_is_accepted() {
    for vector in messages() {
        let (endpoint, sent) = vector.open();
        let verified = sent.verify(&endpoint);
        assert!(verified.is_ok(), "{}: {verified:?}", vector.name);
        // With the right secret behind a wrong one, too.
        let wrong = "00000000000000000000000000000000";
        let two = vector.endpoint(&[wrong, &vector.secret]);
        let verified = sent.verify(&two).unwrap();
        assert_eq!(&*verified.secret_name, "secret-1", "{}", vector.name);
    }
}

#[test]
fn another_secret_or_none_is_refused() {
    for vector in messages() {
        let wrong = vector.endpoint(&["00000000000000000000000000000000"]);
        let refused = vector.sent().verify(&wrong);
        assert_eq!(refused.unwrap_err(), Refusal::NoMatch, "{}", vector.name);
        let none = vector.endpoint(&[]);
        let refused = vector.sent().verify(&none).unwrap_err();
        assert_eq!(refused, Refusal::NoActiveSecret, "{}", vector.name);
        assert!(refused.is_ours());
        assert_eq!(Reject::from(refused).code, Code::Unavailable);
    }
}

#[test]
fn what_is_cut_short_or_empty_is_refused() {
    for vector in messages() {
        let (endpoint, sent) = vector.open();
        let whole = sent.verify(&endpoint).unwrap();
        let mut accepted = 0;
        for len in 0..sent.body.len() {
            let cut = sent.clone().with(|s| s.body.truncate(len));
            // Twilio signs each value of a name once, Braintree's last line break may be lost.
            if let Ok(verified) = cut.verify(&endpoint) {
                assert_eq!(
                    verified.replay_key, whole.replay_key,
                    "{} at {len}",
                    vector.name
                );
                assert!(
                    matches!(verified.covers, Covers::Fields(_)),
                    "{}",
                    vector.name
                );
                accepted += 1;
            }
        }
        let may = vector.name.ends_with("a name twice") || vector.special == "braintree";
        assert!(accepted <= usize::from(may), "{}: {accepted}", vector.name);
    }
}

#[test]
fn the_same_message_has_one_replay_key_and_another_has_another() {
    let mut keys = std::collections::BTreeSet::new();
    for vector in messages() {
        let (endpoint, sent) = vector.open();
        let first = sent.verify(&endpoint).unwrap();
        let again = sent.verify_at(&endpoint, UnixMs(NOW.0 + 1)).unwrap();
        assert_eq!(first.replay_key, again.replay_key, "{}", vector.name);
        let (mut other, name) = (endpoint, vector.name);
        other.name = "elsewhere".into();
        let elsewhere = sent.verify(&other).unwrap();
        assert_ne!(first.replay_key, elsewhere.replay_key, "{name}");
        keys.insert(first.replay_key);
    }
    // Signed alike: three of Braintree's, two of Adyen's, and twice two of Twilio's.
    assert_eq!(keys.len(), messages().len() - 5);
}

#[test]
fn hostile_signatures_are_refused_and_never_panic() {
    let long = "A".repeat(256 * 1024);
    let hostile = ["", " ", "=", "AA==", "é", "a|b&c|d", "null", &long];
    for vector in messages() {
        let (endpoint, sent) = vector.open();
        let names: Vec<_> = sent.headers.iter().map(|(n, _)| n.clone()).collect();
        for name in names.iter().filter(|n| n.ends_with("signature")) {
            for text in hostile {
                let changed = sent.clone();
                let changed = changed.with(|s| *s.header(name) = text.as_bytes().to_vec());
                assert!(changed.verify(&endpoint).is_err(), "{} {text}", vector.name);
            }
            let twice = sent.clone().with(|s| {
                let line = s.header(name).clone();
                s.headers.push((name.clone(), line));
            });
            let refused = twice.verify(&endpoint).unwrap_err();
            assert!(matches!(refused, Refusal::DuplicateHeader(_)), "{refused}");
            let missing = sent.clone().without(name);
            let refused = missing.verify(&endpoint).unwrap_err();
            assert!(matches!(refused, Refusal::MissingHeader(_)), "{refused}");
            // Another spelling of the same bytes.
            let spelled = sent.clone().with(|s| {
                let line = s.header(name);
                let at = line.len() - 2;
                let flipped = line[at];
                line[at] = if flipped == b'B' { b'C' } else { flipped + 1 };
            });
            assert!(spelled.verify(&endpoint).is_err(), "{}", vector.name);
        }
    }
}

#[test]
fn a_compressed_body_is_refused() {
    for vector in messages() {
        let (endpoint, mut sent) = vector.open();
        sent.headers
            .push(("content-encoding".into(), b"gzip".to_vec()));
        assert_eq!(
            sent.verify(&endpoint).unwrap_err(),
            Refusal::ContentEncoding
        );
    }
}

#[test]
fn what_we_sign_ourselves_is_accepted() {
    let bodies: [(&str, &[u8]); 6] = [
        ("adyen one item", &fixture_body("adyen one item")),
        ("twilio form", b"Body=x+y&From=%2B1"),
        ("twilio json", br#"{"a":1}"#),
        ("twilio form, shared key", b"A=1"),
        ("braintree", b"<notification></notification>"),
        (
            "toast",
            br#"{"timestamp":"2023-11-14T22:13:20Z","guid":"1"}"#,
        ),
    ];
    for (name, body) in bodies {
        let endpoint = vector(name).endpoint(&[&vector(name).secret]);
        let unsigned = Unsigned {
            method: "POST",
            query: "",
            event_id: "evt_1",
            body,
        };
        let signed = sign(&endpoint.scheme, &endpoint.secrets[0], &unsigned, NOW).unwrap();
        let line = |(n, v): &(HeaderName, HeaderValue)| (n.to_string(), v.as_bytes().to_vec());
        let sent = Sent {
            headers: signed.headers.iter().map(line).collect(),
            query: signed.query.unwrap_or_default(),
            body: signed.body.unwrap_or_else(|| body.to_vec()),
        };
        let verified = sent.verify(&endpoint);
        assert!(verified.is_ok(), "{name}: {verified:?}");
    }
}

fn fixture_body(name: &str) -> Vec<u8> {
    vector(name).body.into_bytes()
}

proptest! {
    #[test]
    fn no_bytes_panic(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        query in "[ -~]{0,60}",
        form in any::<bool>(),
    ) {
        for vector in messages() {
            let (endpoint, mut sent) = vector.open();
            (sent.body, sent.query) = (body.clone(), query.clone());
            if form {
                let kind = b"application/x-www-form-urlencoded".to_vec();
                *sent.header("content-type") = kind;
            }
            prop_assert!(sent.verify(&endpoint).is_err());
        }
    }

    #[test]
    fn one_changed_byte_is_not_believed(which in any::<usize>(), at in any::<usize>(), to: u8) {
        let all = messages();
        let vector = &all[which % all.len()];
        let (endpoint, mut sent) = vector.open();
        let before = sent.verify(&endpoint).unwrap();
        let at = at % sent.body.len();
        sent.body[at] = to;
        // A byte that is not covered may change, and then the message is the same one.
        if let Ok(after) = sent.verify(&endpoint) {
            prop_assert_eq!(before.replay_key, after.replay_key);
            prop_assert!(after.covers.as_str() != "body" || sent.body == vector.body.as_bytes());
        }
    }
}

#[test]
fn a_braintree_endpoint_answers_the_challenge_as_the_sdk_does() {
    let vector = vector("braintree challenge");
    let mut endpoint = vector.endpoint(&[&vector.secret]);
    let ask = |e: &Endpoint, query: &str| crate::webhook::handshake::challenge(e, query, NOW);
    assert!(ask(&endpoint, &vector.query).is_none(), "not switched on");
    endpoint.handshake = Some(Handshake::Braintree);
    let reply = ask(&endpoint, &vector.query).unwrap();
    assert_eq!(reply.body, vector.answer.unwrap());
    for bad in [
        "",
        "bt_challenge=",
        "bt_challenge=20f9f8ed05f77439fe9",
        "bt_challenge=20F9F8ED05F77439FE955C977E4C8A53",
        "bt_challenge=20f9f8ed05f77439fe955c977e4c8a53&x=1",
        "x=1&bt_challenge=20f9f8ed05f77439fe955c977e4c8a53",
        "bt_challenge=PG5vdGlmaWNhdGlvbj48L25v",
        "bt_challenge=20f9f8ed05f77439fe955c977e4c8a530",
    ] {
        assert!(ask(&endpoint, bad).is_none(), "{bad}");
    }
}

/// The check that takes the body as it comes says the same as the one that has it whole.
#[test]
fn the_body_may_come_in_pieces() {
    for vector in messages() {
        let (endpoint, sent) = vector.open();
        let headers = sent.map();
        let head = Head {
            method: "POST",
            query: &sent.query,
            headers: &headers,
        };
        let mut verifier = Verifier::begin(&endpoint, &head, NOW).unwrap();
        sent.body.chunks(7).for_each(|chunk| verifier.update(chunk));
        let verified = verifier.finish(&sent.body, NOW);
        assert_eq!(verified, sent.verify(&endpoint), "{}", vector.name);
    }
}
