mod message;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use serde::Deserialize;

use super::{EventId, Head, SignedParts, Verified, Verifier, verify};
use crate::kernel::clock::UnixMs;
use crate::kernel::reject::Reject;
use crate::kernel::secret::Secret;
use crate::webhook::scheme::{Scheme, SchemeSpec, TsSpec};
use crate::webhook::sign::{Unsigned, sign};
use crate::webhook::{ActiveSecret, Endpoint, Mode, Refusal};

const NOW: UnixMs = UnixMs(1_700_000_000_000);
const SECRET: &str = "chefcloud-test-secret-0123456789abcdef";
const BODY: &[u8] = br#"{"event":"invoice.paid","id":"evt_test_123","amount":5000}"#;

/// A webhook signed by somebody else; see `tests/fixtures/webhook/generate/grammar.py`.
#[derive(Deserialize)]
struct Vector {
    name: String,
    spec: SchemeSpec,
    secret: String,
    headers: BTreeMap<String, String>,
    body_base64: String,
    now_ms: i64,
    query: String,
    event_id: Option<String>,
}

fn vectors() -> Vec<Vector> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/webhook/vectors.json"
    );
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn endpoint(spec: &SchemeSpec, secrets: &[&str]) -> Endpoint {
    let scheme = Scheme::build(spec).unwrap();
    let active = |(at, secret): (usize, &&str)| {
        ActiveSecret::new(&format!("secret-{at}"), &Secret::new(*secret), &scheme).unwrap()
    };
    Endpoint {
        name: "billing".into(),
        provider: "chefcloud".into(),
        secrets: secrets.iter().enumerate().map(active).collect(),
        scheme: Arc::new(scheme.into()),
        handshake: None,
        mode: Mode::Pass,
        upstream: "api".into(),
        order_key: None,
        body_bytes_max: 1 << 20,
        body_timeout_ms: 10_000,
    }
}

fn chefcloud_spec() -> SchemeSpec {
    SchemeSpec {
        header: "X-Signature".into(),
        signed: Some("{ts}.{body}".into()),
        secret_bytes_min: Some(32),
        id: Some("json:/id".into()),
        ts: Some(TsSpec {
            from: "header:X-Timestamp".into(),
            unit: "ms".into(),
            past_s: 300,
            future_s: 300,
        }),
        ..SchemeSpec::default()
    }
}

fn stripe_spec() -> SchemeSpec {
    SchemeSpec {
        header: "Stripe-Signature".into(),
        split: Some(",".into()),
        items: vec!["t={ts}".into(), "v1={sig}".into()],
        signed: Some("{ts}.{body}".into()),
        ts: Some(TsSpec {
            from: "match".into(),
            unit: "s".into(),
            past_s: 300,
            future_s: 300,
        }),
        ..SchemeSpec::default()
    }
}

/// A request that can be spoiled before it is verified.
#[derive(Clone)]
struct Sent {
    headers: Vec<(String, Vec<u8>)>,
    query: String,
    body: Vec<u8>,
}

impl Sent {
    fn signed(endpoint: &Endpoint, body: &[u8], at: UnixMs) -> Self {
        let unsigned = Unsigned {
            method: "POST",
            query: "",
            event_id: "msg_1",
            body,
        };
        let headers = sign(&endpoint.scheme, &endpoint.secrets[0], &unsigned, at).unwrap();
        let headers = headers
            .headers
            .iter()
            .map(|(n, v)| (n.to_string(), v.as_bytes().to_vec()));
        Self {
            headers: headers.collect(),
            query: String::new(),
            body: body.to_vec(),
        }
    }

    fn chefcloud() -> (Endpoint, Self) {
        let endpoint = endpoint(&chefcloud_spec(), &[SECRET]);
        let sent = Self::signed(&endpoint, BODY, NOW);
        (endpoint, sent)
    }

    fn value(&self, name: &str) -> String {
        let found = self.headers.iter().find(|(n, _)| n == name).unwrap();
        String::from_utf8(found.1.clone()).unwrap()
    }

    fn with(&self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let mut changed = self.without(name);
        changed.headers.push((name.into(), value.as_ref().to_vec()));
        changed
    }

    fn without(&self, name: &str) -> Self {
        let mut changed = self.clone();
        changed.headers.retain(|(n, _)| n != name);
        changed
    }

    fn verify(&self, endpoint: &Endpoint, now: UnixMs) -> Result<Verified, Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name: http::HeaderName = name.parse().unwrap();
            headers.append(name, http::HeaderValue::from_bytes(value).unwrap());
        }
        let request = SignedParts {
            method: "POST",
            query: &self.query,
            headers: &headers,
            body: &self.body,
        };
        verify(endpoint, &request, now)
    }

    fn refusal(&self, endpoint: &Endpoint) -> Refusal {
        self.verify(endpoint, NOW).expect_err("was accepted")
    }
}

#[test]
fn what_others_signed_is_accepted() {
    for vector in vectors() {
        let endpoint = endpoint(&vector.spec, &[&vector.secret]);
        let sent = Sent {
            headers: vector
                .headers
                .into_iter()
                .map(|(n, v)| (n, v.into_bytes()))
                .collect(),
            query: vector.query,
            body: STANDARD.decode(&vector.body_base64).unwrap(),
        };
        let now = UnixMs(vector.now_ms);
        let verified = sent.verify(&endpoint, now);
        let verified = verified.unwrap_or_else(|refusal| panic!("{}: {refusal}", vector.name));
        assert_eq!(
            verified.event_id.signed(),
            vector.event_id.as_deref(),
            "{}",
            vector.name
        );
        if endpoint.scheme.signs_body() {
            let mut changed = sent.clone();
            changed.body.push(b'\n');
            let refusal = changed.verify(&endpoint, now).unwrap_err();
            assert_eq!(refusal, Refusal::NoMatch, "{}", vector.name);
        }
    }
}

#[test]
fn the_platforms_example_passes_byte_for_byte() {
    let (endpoint, sent) = Sent::chefcloud();
    let verified = sent.verify(&endpoint, NOW).unwrap();
    assert_eq!(verified.event_id, EventId::Signed("evt_test_123".into()));
    assert_eq!(verified.signed_at, Some(NOW));
    assert_eq!(verified.expires_at, Some(UnixMs(NOW.0 + 305_000)));
    assert_eq!(&*verified.secret_name, "secret-0");
}

#[test]
fn a_changed_byte_anywhere_is_refused() {
    let (endpoint, sent) = Sent::chefcloud();
    for at in 0..sent.body.len() {
        let mut changed = sent.clone();
        changed.body[at] ^= 1;
        assert_eq!(
            changed.refusal(&endpoint),
            Refusal::NoMatch,
            "body byte {at}"
        );
    }
    let signature = sent.value("x-signature");
    for at in 0..signature.len() {
        let mut changed = signature.clone().into_bytes();
        changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
        let changed = sent.with("x-signature", changed);
        assert_eq!(
            changed.refusal(&endpoint),
            Refusal::NoMatch,
            "signature byte {at}"
        );
    }
    let other_ms = sent.with("x-timestamp", (NOW.0 + 1).to_string());
    assert_eq!(other_ms.refusal(&endpoint), Refusal::NoMatch);
}

#[test]
fn a_signature_in_another_spelling_is_refused() {
    let (endpoint, sent) = Sent::chefcloud();
    let good = sent.value("x-signature");
    for bad in [
        String::new(),
        good[..62].to_owned(),
        good[..63].to_owned(),
        format!("{good}00"),
        good.to_uppercase(),
        format!("0x{good}"),
        format!("{good},{good}"),
        format!("sha256={good}"),
        STANDARD.encode(hex::decode(&good).unwrap()),
    ] {
        let refusal = sent.with("x-signature", &bad).refusal(&endpoint);
        assert_eq!(refusal, Refusal::BadEncoding, "{bad}");
    }
    let with_blank = sent.with("x-signature", format!("{good} "));
    assert_eq!(with_blank.refusal(&endpoint), Refusal::BadEncoding);
    let binary = sent.with("x-signature", b"\xff\xfe");
    assert_eq!(binary.refusal(&endpoint), Refusal::BadEncoding);
}

#[test]
fn base64_has_one_spelling() {
    let spec = SchemeSpec {
        header: "X-Signature".into(),
        encoding: Some("base64".into()),
        signed: Some("{body}".into()),
        ..SchemeSpec::default()
    };
    let endpoint = endpoint(&spec, &[SECRET]);
    let sent = Sent::signed(&endpoint, BODY, NOW);
    let good = sent.value("x-signature");
    let (body, tail) = good.split_at(42);
    let sixth = tail.chars().next().unwrap();
    assert!(sent.verify(&endpoint, NOW).is_ok());
    // 32 bytes leave two bits unused in the last digit; only zeros there are canonical.
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let next = alphabet
        .chars()
        .nth(alphabet.find(sixth).unwrap() + 1)
        .unwrap_or('B');
    for bad in [
        format!("{body}{next}="),
        good.trim_end_matches('=').to_owned(),
        format!("{good}="),
        good.replace('+', "-").replace('/', "_").replace('=', "%3D"),
    ] {
        assert!(
            sent.with("x-signature", &bad)
                .verify(&endpoint, NOW)
                .is_err(),
            "{bad}"
        );
    }
}

#[test]
fn headers_must_be_there_once() {
    let (endpoint, sent) = Sent::chefcloud();
    for name in ["x-signature", "x-timestamp"] {
        let missing = sent.without(name).refusal(&endpoint);
        assert!(matches!(
            missing,
            Refusal::MissingHeader(_) | Refusal::MissingTimestamp
        ));
        let mut twice = sent.clone();
        twice
            .headers
            .push((name.into(), sent.value(name).into_bytes()));
        assert!(
            matches!(twice.refusal(&endpoint), Refusal::DuplicateHeader(_)),
            "{name}"
        );
    }
}

#[test]
fn timestamps_have_one_spelling() {
    let (endpoint, sent) = Sent::chefcloud();
    for bad in [
        "",
        "NaN",
        "inf",
        "1700000000000.0",
        "1.7e12",
        "-1700000000000",
        "+1700000000000",
        "01700000000000",
        "0700000000000",
        "0x18bcfe56800",
        "17000000000000",
        "1700000000",
        "99999999999999999999999999",
        " 1700000000000",
        "1700000000000abc",
        "170000000000\u{0660}",
        "1_700_000_000",
        "1700000000000,1700000000000",
        "null",
    ] {
        // Signed honestly over the bad text: the spelling alone must be the reason.
        let message = [bad.as_bytes(), b".", BODY].concat();
        let signature = hex::encode(endpoint.secrets[0].sign(&[message]).unwrap());
        let changed = sent.with("x-timestamp", bad).with("x-signature", signature);
        assert_eq!(changed.refusal(&endpoint), Refusal::BadTimestamp, "{bad}");
    }
}

#[test]
fn age_is_checked_on_both_sides_to_the_millisecond() {
    let (endpoint, sent) = Sent::chefcloud();
    let at = |ms: i64| sent.verify(&endpoint, UnixMs(NOW.0 + ms)).map(|_| ());
    assert_eq!(at(300_000), Ok(()));
    assert_eq!(at(300_001), Err(Refusal::Stale { age_s: 300 }));
    assert_eq!(at(-300_000), Ok(()));
    assert_eq!(at(-300_001), Err(Refusal::Future { ahead_s: 300 }));
    assert_eq!(at(86_400_000), Err(Refusal::Stale { age_s: 86_400 }));
}

#[test]
fn the_signature_is_judged_before_the_age() {
    let (endpoint, sent) = Sent::chefcloud();
    let forged = sent.with("x-signature", "0".repeat(64));
    let late = UnixMs(NOW.0 + 86_400_000);
    assert_eq!(
        forged.verify(&endpoint, late).unwrap_err(),
        Refusal::NoMatch
    );
}

#[test]
fn an_early_message_is_remembered_until_it_is_stale() {
    let (endpoint, sent) = Sent::chefcloud();
    let early = sent.verify(&endpoint, UnixMs(NOW.0 - 300_000)).unwrap();
    assert_eq!(early.expires_at, Some(UnixMs(NOW.0 + 305_000)));
}

#[test]
fn every_active_secret_counts_and_no_other() {
    let old = "the-secret-before-0123456789abcdefgh";
    let both = endpoint(&chefcloud_spec(), &[SECRET, old]);
    let only_old = endpoint(&chefcloud_spec(), &[old]);
    let sent = Sent::signed(&only_old, BODY, NOW);
    assert_eq!(&*sent.verify(&both, NOW).unwrap().secret_name, "secret-1");
    let (only_new, _) = Sent::chefcloud();
    assert_eq!(sent.refusal(&only_new), Refusal::NoMatch);

    let mut dated = both.clone();
    dated.secrets[1] = dated.secrets[1].clone().within(None, Some(NOW));
    assert_eq!(sent.refusal(&dated), Refusal::NoMatch);
    assert!(sent.verify(&dated, UnixMs(NOW.0 - 1)).is_ok());
    dated.secrets[0] = dated.secrets[0]
        .clone()
        .within(Some(UnixMs(NOW.0 + 1)), None);
    assert_eq!(sent.refusal(&dated), Refusal::NoActiveSecret);
    let reject = Reject::from(Refusal::NoActiveSecret);
    assert_eq!(reject.status().as_u16(), 503);
}

#[test]
fn bodies_of_any_kind_are_taken_as_they_are() {
    let (endpoint, _) = Sent::chefcloud();
    let large = vec![b'x'; 256 * 1024];
    let bodies: [&[u8]; 6] = [
        b"",
        b"\0",
        b"\xef\xbb\xbf{}\r\n",
        b"\xff\xfe\x00",
        b"{\"id\":",
        &large,
    ];
    for body in bodies {
        let verified = Sent::signed(&endpoint, body, NOW)
            .verify(&endpoint, NOW)
            .unwrap();
        assert!(matches!(verified.event_id, EventId::Derived(_)));
        assert!(verified.event_id.as_str().starts_with("evt_"));
    }
}

#[test]
fn an_encoded_body_is_refused() {
    let (endpoint, sent) = Sent::chefcloud();
    for encoding in ["gzip", "identity, gzip", "", "br"] {
        let refusal = sent.with("content-encoding", encoding).refusal(&endpoint);
        assert_eq!(refusal, Refusal::ContentEncoding, "{encoding}");
        assert_eq!(Reject::from(refusal).status().as_u16(), 415);
    }
    assert!(
        sent.with("content-encoding", "Identity")
            .verify(&endpoint, NOW)
            .is_ok()
    );
}
