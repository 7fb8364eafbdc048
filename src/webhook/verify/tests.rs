use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use proptest::prelude::*;
use serde::Deserialize;

use super::{EventId, ITEMS_MAX, SignedParts, Verified, verify};
use crate::kernel::clock::UnixMs;
use crate::kernel::reject::Reject;
use crate::kernel::secret::Secret;
use crate::webhook::replay::{Arrival, Policy, Store};
use crate::webhook::scheme::{OnReplay, Scheme, SchemeSpec, TsSpec};
use crate::webhook::sign::{Unsigned, sign};
use crate::webhook::{ActiveSecret, Endpoint, Mode, Refusal};

const NOW: UnixMs = UnixMs(1_700_000_000_000);
const SECRET: &str = "chefcloud-test-secret-0123456789abcdef";
const BODY: &[u8] = br#"{"event":"invoice.paid","id":"evt_test_123","amount":5000}"#;

/// A webhook signed by somebody else; see `tests/fixtures/webhook/generate.py`.
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
        scheme: Arc::new(scheme),
        mode: Mode::Pass,
        upstream: "api".into(),
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
        let signature = hex::encode(endpoint.secrets[0].mac(&[message]));
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

#[test]
fn a_list_of_signatures_is_bounded_and_sorted() {
    let endpoint = endpoint(&stripe_spec(), &[SECRET]);
    let sent = Sent::signed(&endpoint, BODY, NOW);
    let good = sent.value("stripe-signature");
    let (ts, signature) = good.split_once(',').unwrap();
    let zeros = format!("v1={}", "0".repeat(64));
    let with = |line: String| {
        sent.with("stripe-signature", line)
            .verify(&endpoint, NOW)
            .map(|_| ())
    };

    assert_eq!(with(format!("{signature}, {ts}")), Ok(()));
    assert_eq!(with(format!("{ts},{zeros},{signature},v2=xyz,,")), Ok(()));
    let filler = vec![zeros.as_str(); ITEMS_MAX - 2].join(",");
    assert_eq!(with(format!("{ts},{filler},{signature}")), Ok(()));
    let max = ITEMS_MAX;
    assert_eq!(
        with(format!("{ts},{filler},{zeros},{signature}")),
        Err(Refusal::TooManyItems { max })
    );
    assert_eq!(with(ts.to_owned()), Err(Refusal::NoSignature));
    assert_eq!(
        with(format!("{ts},v0={}", &signature[3..])),
        Err(Refusal::NoSignature)
    );
    assert_eq!(
        with(format!("{ts},V1={}", &signature[3..])),
        Err(Refusal::NoSignature)
    );
    assert_eq!(with(format!("{ts},v1=")), Err(Refusal::BadEncoding));
    assert_eq!(with(signature.to_owned()), Err(Refusal::MissingTimestamp));
    assert_eq!(
        with(format!("{ts},{ts},{signature}")),
        Err(Refusal::DuplicateTimestamp)
    );
    assert_eq!(
        with(format!("t=NaN,{signature}")),
        Err(Refusal::BadTimestamp)
    );
    assert_eq!(with(String::new()), Err(Refusal::NoSignature));
}

#[test]
fn a_separator_inside_a_signed_value_is_refused() {
    let spec = SchemeSpec {
        header: "webhook-signature".into(),
        signed: Some("{header:webhook-id}.{ts}.{body}".into()),
        ts: Some(TsSpec {
            from: "header:webhook-timestamp".into(),
            unit: "s".into(),
            past_s: 300,
            future_s: 300,
        }),
        ..SchemeSpec::default()
    };
    let endpoint = endpoint(&spec, &[SECRET]);
    let sent = Sent::signed(&endpoint, BODY, NOW);
    assert!(sent.verify(&endpoint, NOW).is_ok());
    assert_eq!(
        sent.with("webhook-id", "msg.1").refusal(&endpoint),
        Refusal::Ambiguous
    );
}

#[test]
fn a_query_parameter_that_is_signed_must_be_there_once() {
    let spec = SchemeSpec {
        header: "x-signature".into(),
        signed: Some("{query:id}:{body}".into()),
        ..SchemeSpec::default()
    };
    let endpoint = endpoint(&spec, &[SECRET]);
    let with = |query: &str| {
        let message = [b"7:".as_slice(), BODY].concat();
        let signature = hex::encode(endpoint.secrets[0].mac(&[message]));
        let headers = vec![("x-signature".to_owned(), signature.into_bytes())];
        let sent = Sent {
            headers,
            query: query.into(),
            body: BODY.into(),
        };
        sent.verify(&endpoint, NOW).map(|_| ())
    };
    assert_eq!(with("a=b&id=7"), Ok(()));
    assert_eq!(with("id=%37"), Ok(()));
    assert_eq!(with("a=b"), Err(Refusal::MissingQuery("id".into())));
    assert_eq!(with("id=7&i%64=8"), Err(Refusal::BadQuery("id".into())));
    assert_eq!(with("id=%7"), Err(Refusal::BadQuery("id".into())));
    assert_eq!(with("id=7:"), Err(Refusal::Ambiguous));
}

#[test]
fn the_same_signed_bytes_are_one_message_whatever_is_around_them() {
    let (endpoint, sent) = Sent::chefcloud();
    let first = sent.verify(&endpoint, NOW).unwrap();
    let again = sent
        .with("x-request-id", "another")
        .verify(&endpoint, NOW)
        .unwrap();
    assert_eq!(first.replay_key, again.replay_key);

    let store = Store::local(Policy::default());
    let arrive = |verified: &Verified| store.reserve("billing", verified, OnReplay::Reject, NOW);
    match arrive(&first).unwrap() {
        Arrival::Fresh(reservation) => reservation.commit(NOW),
        Arrival::Duplicate => panic!("the first is no duplicate"),
    }
    let refusal = arrive(&again).unwrap_err();
    assert_eq!(refusal, Refusal::Replay);
    assert_eq!(Reject::from(refusal).status().as_u16(), 401);

    let later = UnixMs(NOW.0 + 1000);
    let anew = Sent::signed(&endpoint, BODY, later)
        .verify(&endpoint, later)
        .unwrap();
    assert_ne!(anew.replay_key, first.replay_key);
    assert!(matches!(arrive(&anew), Ok(Arrival::Duplicate)));
}

#[test]
fn two_signatures_of_one_message_are_one_message() {
    let old = "the-secret-before-0123456789abcdefgh";
    let both = endpoint(&chefcloud_spec(), &[SECRET, old]);
    let by_new = Sent::signed(&both, BODY, NOW);
    let by_old = Sent::signed(&endpoint(&chefcloud_spec(), &[old]), BODY, NOW);
    assert_ne!(by_new.value("x-signature"), by_old.value("x-signature"));
    let key = |sent: &Sent| sent.verify(&both, NOW).unwrap().replay_key;
    assert_eq!(key(&by_new), key(&by_old));
}

#[test]
fn endpoints_with_one_secret_do_not_share_messages() {
    let (billing, sent) = Sent::chefcloud();
    let marketplace = Endpoint {
        name: "marketplace".into(),
        ..billing.clone()
    };
    let key = |endpoint: &Endpoint| sent.verify(endpoint, NOW).unwrap().replay_key;
    assert_ne!(key(&billing), key(&marketplace));
}

#[test]
fn an_unsigned_body_is_part_of_the_message() {
    let spec = SchemeSpec {
        header: "x-token".into(),
        alg: Some("equal".into()),
        unsigned_body: true,
        id: Some("json:/id".into()),
        ..SchemeSpec::default()
    };
    let endpoint = endpoint(&spec, &[SECRET]);
    let sent = |body: &[u8]| Sent {
        headers: vec![("x-token".into(), SECRET.into())],
        query: String::new(),
        body: body.to_vec(),
    };
    let (one, two) = (
        sent(BODY).verify(&endpoint, NOW),
        sent(b"{}").verify(&endpoint, NOW),
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.replay_key, two.replay_key);
    assert_eq!(one.expires_at, None);
    assert!(one.event_id.signed().is_none());
    assert_eq!(one.claimed_id.as_deref(), Some("evt_test_123"));
    for bad in [
        "",
        "wrong",
        &SECRET[1..],
        &format!("{SECRET} "),
        &SECRET.to_uppercase(),
    ] {
        let refusal = sent(BODY).with("x-token", bad).refusal(&endpoint);
        assert!(
            matches!(refusal, Refusal::NoMatch | Refusal::BadEncoding),
            "{bad}"
        );
    }
}

#[test]
fn ids_that_cannot_travel_are_replaced_and_stay_stable() {
    let (endpoint, _) = Sent::chefcloud();
    let id = |id: &str, at: UnixMs| {
        let body = serde_json::json!({ "id": id }).to_string();
        Sent::signed(&endpoint, body.as_bytes(), at)
            .verify(&endpoint, at)
            .unwrap()
            .event_id
    };
    for odd in ["a.b", "a b", "a\nb", "caf\u{e9}", &"x".repeat(129)] {
        let (first, later) = (id(odd, NOW), id(odd, UnixMs(NOW.0 + 5)));
        assert_eq!(first, later, "{odd:?}");
        assert!(
            first
                .signed()
                .is_some_and(|id| id.starts_with("evt_") && id.len() == 68)
        );
    }
    assert!(id("", NOW).signed().is_none());
    assert_eq!(id("WB123", NOW), EventId::Signed("WB123".into()));
}

#[test]
fn a_refusal_tells_the_sender_nothing() {
    let random = crate::kernel::id::Random::seeded(1).request_id();
    let answers: std::collections::HashSet<_> = [
        Refusal::NoMatch,
        Refusal::Stale { age_s: 301 },
        Refusal::Replay,
        Refusal::BadEncoding,
        Refusal::MissingTimestamp,
    ]
    .into_iter()
    .map(|refusal| Reject::from(refusal).to_reply(&random).body)
    .collect();
    assert_eq!(answers.len(), 1);
    let in_progress = Reject::from(Refusal::InProgress);
    assert_eq!(
        (in_progress.status().as_u16(), in_progress.retry_after_s),
        (503, Some(1))
    );
    assert_eq!(Reject::from(Refusal::StoreFull).status().as_u16(), 503);
}

proptest! {
    #[test]
    fn what_is_signed_is_accepted(
        body in proptest::collection::vec(any::<u8>(), 0..512),
        drift_ms in -300_000i64..=300_000,
    ) {
        for spec in [chefcloud_spec(), stripe_spec()] {
            let endpoint = endpoint(&spec, &[SECRET]);
            let sent = Sent::signed(&endpoint, &body, NOW);
            let now = UnixMs(NOW.0 + drift_ms);
            prop_assert!(sent.verify(&endpoint, now).is_ok());
        }
    }

    #[test]
    fn a_random_header_is_never_accepted(line in proptest::collection::vec(0x20u8..0x7f, 0..200)) {
        for spec in [chefcloud_spec(), stripe_spec()] {
            let endpoint = endpoint(&spec, &[SECRET]);
            let name = spec.header.to_lowercase();
            let sent = Sent::signed(&endpoint, BODY, NOW).with(&name, &line);
            prop_assert!(sent.verify(&endpoint, NOW).is_err());
        }
    }

    #[test]
    fn a_changed_body_is_never_accepted(
        body in proptest::collection::vec(any::<u8>(), 1..128),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let endpoint = endpoint(&chefcloud_spec(), &[SECRET]);
        let mut sent = Sent::signed(&endpoint, &body, NOW);
        let at = at.index(body.len());
        sent.body[at] ^= 1 << bit;
        prop_assert_eq!(sent.verify(&endpoint, NOW).unwrap_err(), Refusal::NoMatch);
    }
}
