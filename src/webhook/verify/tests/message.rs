//! What counts as one message, and what lists of signatures and signed values may look like.

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::webhook::replay::{Arrival, Policy, Store};
use crate::webhook::scheme::OnReplay;
use crate::webhook::verify::ITEMS_MAX;

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
    assert_eq!(with(format!("{ts},{signature},{zeros}")), Ok(()));
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
fn several_lines_of_the_header_count_together() {
    let spec = SchemeSpec {
        lines_max: Some(3),
        ..stripe_spec()
    };
    let endpoint = endpoint(&spec, &[SECRET]);
    let sent = Sent::signed(&endpoint, BODY, NOW);
    let zeros = format!("v1={}", "0".repeat(64));
    let with = |lines: &[&str]| {
        let mut more = sent.clone();
        let lines = lines.iter().map(|l| l.as_bytes().to_vec());
        more.headers
            .extend(lines.map(|l| ("stripe-signature".to_owned(), l)));
        more.verify(&endpoint, NOW).map(|_| ())
    };
    assert_eq!(with(&[&zeros, &zeros]), Ok(()));
    assert!(matches!(
        with(&[&zeros, &zeros, &zeros]),
        Err(Refusal::DuplicateHeader(_))
    ));
    let many = vec![zeros.as_str(); ITEMS_MAX - 2].join(",");
    assert_eq!(with(&[&many]), Ok(()));
    let max = ITEMS_MAX;
    assert_eq!(with(&[&many, &zeros]), Err(Refusal::TooManyItems { max }));
    assert_eq!(
        with(&["t=1700000000"]),
        Err(Refusal::DuplicateTimestamp),
        "a second timestamp in another line"
    );
}

#[test]
fn signatures_by_public_keys_are_few() {
    let spec = SchemeSpec {
        header: "x-signature".into(),
        split: Some(",".into()),
        alg: Some("ed25519".into()),
        key: Some("hex".into()),
        signed: Some("{body}".into()),
        ..SchemeSpec::default()
    };
    let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let endpoint = endpoint(&spec, &[key]);
    let with = |count: usize| {
        let line = vec!["00".repeat(64); count].join(",");
        let headers = vec![("x-signature".to_owned(), line.into_bytes())];
        let sent = Sent {
            headers,
            query: String::new(),
            body: BODY.into(),
        };
        sent.verify(&endpoint, NOW).map(|_| ())
    };
    assert_eq!(with(4), Err(Refusal::NoMatch));
    assert_eq!(with(5), Err(Refusal::TooManyItems { max: 4 }));
}

#[test]
fn a_head_that_cannot_be_signed_is_refused_before_the_body() {
    let (endpoint, sent) = Sent::chefcloud();
    let begin = |headers: &HeaderMap| {
        let head = Head {
            method: "POST",
            query: "",
            headers,
        };
        Verifier::begin(&endpoint, &head, NOW).map(|_| ())
    };
    let mut headers = HeaderMap::new();
    assert!(matches!(begin(&headers), Err(Refusal::MissingHeader(_))));
    headers.insert("x-signature", "00".repeat(32).parse().unwrap());
    assert_eq!(begin(&headers), Err(Refusal::MissingTimestamp));
    let ts = sent.value("x-timestamp");
    headers.insert("x-timestamp", ts.parse().unwrap());
    assert_eq!(begin(&headers), Ok(()));
}

proptest! {
    #[test]
    fn it_does_not_matter_how_the_body_arrives(
        body in proptest::collection::vec(any::<u8>(), 0..400),
        cuts in proptest::collection::vec(1usize..60, 1..20),
    ) {
        let (endpoint, _) = Sent::chefcloud();
        let sent = Sent::signed(&endpoint, &body, NOW);
        let whole = sent.verify(&endpoint, NOW).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in &sent.headers {
            let name: http::HeaderName = name.parse().unwrap();
            headers.insert(name, http::HeaderValue::from_bytes(value).unwrap());
        }
        let head = Head { method: "POST", query: "", headers: &headers };
        let mut verifier = Verifier::begin(&endpoint, &head, NOW).unwrap();
        let mut rest = body.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, after) = rest.split_at((*cut).min(rest.len()));
            verifier.update(chunk);
            rest = after;
        }
        prop_assert_eq!(verifier.finish(&body, NOW), Ok(whole));
    }
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
        let signature = hex::encode(endpoint.secrets[0].sign(&[message]).unwrap());
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

    let store = Store::local(Policy::default(), &[]);
    let arrive = |verified: &Verified| {
        let reserve = store.reserve("billing", verified, OnReplay::Reject, NOW);
        reserve.now_or_never().unwrap()
    };
    match arrive(&first).unwrap() {
        Arrival::Fresh(reservation) => reservation.commit(NOW).now_or_never().unwrap().unwrap(),
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
