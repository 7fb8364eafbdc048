//! Toast and Mollie.

use super::{Kind, Sent, SpecialSpec, endpoint, no_fetch, vector};
use crate::kernel::clock::UnixMs;
use crate::webhook::scheme::OnReplay;
use crate::webhook::special::{Special, toast};
use crate::webhook::{Covers, Refusal};

#[test]
fn toast_says_when_and_which() {
    let (endpoint, sent) = vector("toast").open();
    let verified = sent.verify(&endpoint).unwrap();
    assert_eq!(verified.covers, Covers::Body);
    assert_eq!(verified.signed_at, Some(UnixMs(1_700_000_000_123)));
    let guid = "c9cb1b08-1c9c-4ee1-8f0f-7d4b7a4bd3b6";
    assert_eq!(verified.event_id.signed(), Some(guid));
    assert_eq!(endpoint.scheme.on_replay(), OnReplay::Ack);
    let (past_s, future_s) = toast::TOLERANCE_S;
    let at = |ms: i64| sent.verify_at(&endpoint, UnixMs(1_700_000_000_123 + ms));
    let (past_ms, future_ms) = (i64::from(past_s) * 1000, i64::from(future_s) * 1000);
    assert!(at(past_ms).is_ok());
    assert!(matches!(at(past_ms + 1), Err(Refusal::Stale { .. })));
    assert!(at(-future_ms).is_ok());
    assert!(matches!(at(-future_ms - 1), Err(Refusal::Future { .. })));
}

#[test]
fn toasts_timestamp_must_be_there_once_and_plain() {
    let (endpoint, sent) = vector("toast").open();
    let stamp = "\"timestamp\": \"2023-11-14T22:13:20.123Z\"";
    let once_more = format!("{stamp}, {stamp}");
    for (to, expected) in [
        ("\"timestamp\": null", Refusal::MissingTimestamp),
        (
            "\"timestamp\": [\"2023-11-14T22:13:20Z\"]",
            Refusal::MissingTimestamp,
        ),
        ("\"timestamp\": 1700000000", Refusal::BadTimestamp),
        ("\"timestamp\": \"\"", Refusal::BadTimestamp),
        ("\"timestamp\": \"NaN\"", Refusal::BadTimestamp),
        (
            "\"timestamp\": \"2023-11-14T22:13:20.124Z\"",
            Refusal::NoMatch,
        ),
        (
            "\"time\": \"2023-11-14T22:13:20.123Z\"",
            Refusal::MissingTimestamp,
        ),
        (&once_more, Refusal::MissingTimestamp),
    ] {
        let refused = sent.clone().replaced(stamp, to).verify(&endpoint);
        assert_eq!(refused.unwrap_err(), expected, "{to}");
    }
    // A timestamp that the sender hid after the document.
    let after = sent.clone().with(|s| s.body.extend(b"{}"));
    assert_eq!(
        after.verify(&endpoint).unwrap_err(),
        Refusal::MissingTimestamp
    );
    let changed = sent.clone().replaced("out_of_stock", "in_stock");
    assert_eq!(changed.verify(&endpoint).unwrap_err(), Refusal::NoMatch);
    let invalid = sent.with(|s| s.body[60] = 0xff);
    assert!(invalid.verify(&endpoint).is_err());
}

#[test]
fn deep_and_large_json_is_refused_without_harm() {
    let (endpoint, sent) = vector("toast").open();
    for body in [
        "[".repeat(256 * 1024),
        format!("{{\"a\":\"{}", "x".repeat(256 * 1024)),
    ] {
        let hostile = sent.clone().with(|s| s.body = body.into_bytes());
        assert_eq!(
            hostile.verify(&endpoint).unwrap_err(),
            Refusal::MissingTimestamp
        );
    }
}

fn mollie(danger_unsigned: bool) -> Result<Special, Vec<crate::webhook::SchemeError>> {
    let spec = SpecialSpec {
        danger_unsigned,
        ..SpecialSpec::default()
    };
    Special::build(Kind::MollieClassic, &spec, &no_fetch())
}

fn call(body: &[u8]) -> Sent {
    let kind = b"application/x-www-form-urlencoded".to_vec();
    Sent {
        headers: vec![("content-type".into(), kind)],
        query: String::new(),
        body: body.to_vec(),
    }
}

#[test]
fn mollie_is_for_those_who_say_that_they_know() {
    let errors = mollie(false).unwrap_err();
    assert_eq!(errors[0].key, "danger_unsigned");
    let endpoint = endpoint(mollie(true).unwrap(), &[], None);
    let verified = call(b"id=tr_WDqYK6vllg").verify(&endpoint).unwrap();
    assert_eq!(verified.covers, Covers::Nothing);
    assert_eq!(verified.claimed_id.as_deref(), Some("tr_WDqYK6vllg"));
    assert_eq!(verified.event_id.signed(), None);
    // The same id comes at each change of state.
    let later = UnixMs(super::NOW.0 + 1);
    let again = call(b"id=tr_WDqYK6vllg")
        .verify_at(&endpoint, later)
        .unwrap();
    assert_ne!(verified.replay_key, again.replay_key);
}

#[test]
fn nothing_but_an_id_gets_through() {
    let endpoint = endpoint(mollie(true).unwrap(), &[], None);
    let long = format!("id=tr_{}", "a".repeat(256 * 1024));
    for bad in [
        "",
        "id=",
        "id=tr_",
        "id=_a",
        "id=tr",
        "id=tr_a&id=tr_b",
        "id=tr_a&amount=1",
        "amount=1&id=tr_a",
        "id=tr_a%0A",
        "id=tr_a\n",
        "id=tr_a.b",
        "id=TR_a",
        "{\"id\":\"tr_a\"}",
        &long,
    ] {
        let refused = call(bad.as_bytes()).verify(&endpoint).unwrap_err();
        assert!(matches!(refused, Refusal::BadBody(_)), "{bad}");
    }
    assert!(call(b"id=tr_\xff").verify(&endpoint).is_err());
    assert!(
        call(b"id=tr_a")
            .without("content-type")
            .verify(&endpoint)
            .is_err()
    );
}
