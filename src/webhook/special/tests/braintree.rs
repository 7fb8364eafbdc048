//! Braintree: what its signature covers, and what its challenge must not sign.

use super::{Kind, Sent, vector};
use crate::webhook::handshake::{Handshake, challenge};
use crate::webhook::special::form;
use crate::webhook::{Covers, Endpoint, Refusal};

fn open() -> (Endpoint, Sent, Vec<(String, Vec<u8>)>) {
    let vector = vector("braintree");
    assert_eq!(vector.kind(), Kind::Braintree);
    let (endpoint, sent) = vector.open();
    let fields = form::read(&sent.body).unwrap();
    let named = |(n, v)| (String::from_utf8(n).unwrap(), v);
    (endpoint, sent, fields.into_iter().map(named).collect())
}

fn with(sent: &Sent, fields: &[(&str, &[u8])]) -> Sent {
    sent.clone().with(|s| s.body = form::write(fields))
}

fn of(fields: &[(String, Vec<u8>)], name: &str) -> Vec<u8> {
    fields.iter().find(|(n, _)| n == name).unwrap().1.clone()
}

#[test]
fn only_the_payload_is_vouched_for() {
    let (endpoint, sent, fields) = open();
    let (signature, payload) = (of(&fields, "bt_signature"), of(&fields, "bt_payload"));
    let verified = sent.verify(&endpoint).unwrap();
    assert!(matches!(verified.covers, Covers::Fields(_)));
    let more = with(
        &sent,
        &[
            ("x", b"1"),
            ("bt_payload", &payload),
            ("bt_signature", &signature),
        ],
    );
    assert_eq!(
        more.verify(&endpoint).unwrap().replay_key,
        verified.replay_key
    );
    let trimmed = with(
        &sent,
        &[
            ("bt_signature", &signature),
            ("bt_payload", payload.trim_ascii_end()),
        ],
    );
    assert_eq!(
        trimmed.verify(&endpoint).unwrap().replay_key,
        verified.replay_key
    );
}

#[test]
fn a_field_that_is_missing_or_there_twice_is_refused() {
    let (endpoint, sent, fields) = open();
    let (signature, payload) = (of(&fields, "bt_signature"), of(&fields, "bt_payload"));
    let (s, p) = (
        ("bt_signature", &signature[..]),
        ("bt_payload", &payload[..]),
    );
    for bad in [
        &[s][..],
        &[p],
        &[s, s, p],
        &[s, p, p],
        &[s, ("bt_payload", b"")],
        &[("bt_signature", b""), p],
    ] {
        let refused = with(&sent, bad).verify(&endpoint).unwrap_err();
        assert!(matches!(refused, Refusal::MissingField(_)), "{refused}");
    }
    let json = sent.clone();
    let json = json.with(|s| *s.header("content-type") = b"application/json".to_vec());
    assert!(matches!(
        json.verify(&endpoint).unwrap_err(),
        Refusal::BadBody(_)
    ));
    for payload in [&b"not base64!"[..], b"\xff\xfe", b"a b", b"<x>"] {
        let refused = with(&sent, &[s, ("bt_payload", payload)]).verify(&endpoint);
        assert!(matches!(refused.unwrap_err(), Refusal::BadBody(_)));
    }
}

#[test]
fn a_signature_counts_under_our_public_key_only() {
    let (endpoint, sent, fields) = open();
    let (signature, payload) = (of(&fields, "bt_signature"), of(&fields, "bt_payload"));
    let text = String::from_utf8(signature).unwrap();
    let (_, mac) = text.split_once('|').unwrap();
    let send = |signature: &str| {
        let fields = [
            ("bt_signature", signature.as_bytes()),
            ("bt_payload", &payload[..]),
        ];
        with(&sent, &fields).verify(&endpoint)
    };
    assert!(send(&text).is_ok());
    assert!(send(&format!("x|y|z&{text}&")).is_ok());
    let other = send(&format!("another_key|{mac}"));
    assert_eq!(other.unwrap_err(), Refusal::NoMatch);
    for bad in [
        mac.to_owned(),
        format!("integration_public_key|{}", mac.to_uppercase()),
        format!("integration_public_key|{}", &mac[..39]),
        format!("integration_public_key|{mac}0"),
        "integration_public_key|".to_owned(),
        "&&&".to_owned(),
    ] {
        assert_eq!(send(&bad).unwrap_err(), Refusal::NoSignature, "{bad}");
    }
    let many = format!("{}{text}", "a|b&".repeat(16));
    assert!(matches!(send(&many), Err(Refusal::TooManyItems { .. })));
}

/// The challenge is signed for anybody who asks, with the same key.
#[test]
fn the_answer_to_a_challenge_signs_no_message() {
    let (mut endpoint, sent, _) = open();
    endpoint.handshake = Some(Handshake::Braintree);
    for text in ["20f9f8ed05f77439fe955c977e4c8a53", "abcdefabcdefabcdefab"] {
        let reply = challenge(&endpoint, &format!("bt_challenge={text}"), super::NOW).unwrap();
        for payload in [text.to_owned(), format!("{text}\n")] {
            let fields = [
                ("bt_signature", &reply.body[..]),
                ("bt_payload", payload.as_bytes()),
            ];
            let refused = with(&sent, &fields).verify(&endpoint).unwrap_err();
            assert_eq!(refused, Refusal::Ambiguous, "{payload}");
        }
    }
}
