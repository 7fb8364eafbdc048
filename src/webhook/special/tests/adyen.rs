//! Adyen: what its signature covers, and batches that try to get around it.

use super::{Kind, Sent, vector};
use crate::webhook::verify::ITEMS_MAX;
use crate::webhook::{Covers, Endpoint, Refusal};

fn open(name: &str) -> (Endpoint, Sent) {
    let vector = vector(name);
    assert_eq!(vector.kind(), Kind::AdyenStandard);
    vector.open()
}

#[test]
fn an_item_has_an_id_of_its_signed_fields() {
    let (endpoint, sent) = open("adyen one item");
    let verified = sent.verify(&endpoint).unwrap();
    let id = "7914073381342284:AUTHORISATION:true";
    assert_eq!(verified.event_id.signed(), Some(id));
    assert!(matches!(verified.covers, Covers::Fields(_)));
    // Several items are no one event.
    let (endpoint, sent) = open("adyen two items, colons in the merchant's reference");
    assert_eq!(sent.verify(&endpoint).unwrap().event_id.signed(), None);
}

#[test]
fn a_signed_field_cannot_change_and_an_unsigned_one_is_the_same_message() {
    let (endpoint, sent) = open("adyen one item");
    for (from, to) in [
        ("7914073381342284", "7914073381342285"),
        ("TestMerchant", "TestMerchanu"),
        ("TestPayment", "TestPaymenu"),
        ("1130", "1131"),
        ("\"EUR\"", "\"USD\""),
        ("AUTHORISATION", "CANCELLATION"),
        ("\"true\"", "\"false\""),
        ("\"originalReference\":\"\"", "\"originalReference\":\"x\""),
    ] {
        let changed = sent.clone().replaced(from, to);
        assert_eq!(
            changed.verify(&endpoint).unwrap_err(),
            Refusal::NoMatch,
            "{from}"
        );
    }
    let unsigned = sent.clone().replaced("visa", "bank");
    let (before, after) = (sent.verify(&endpoint), unsigned.verify(&endpoint));
    assert_eq!(before.unwrap().replay_key, after.unwrap().replay_key);
}

#[test]
fn every_item_must_be_signed() {
    let (endpoint, sent) = open("adyen two items, colons in the merchant's reference");
    // The second one is the one that is wrong.
    let changed = sent
        .clone()
        .replaced("8835511210681324", "8835511210681325");
    assert_eq!(changed.verify(&endpoint).unwrap_err(), Refusal::NoMatch);
    let (endpoint, one) = open("adyen one item");
    let unsigned = one.clone().replaced("hmacSignature", "hmacsignature");
    let refused = unsigned.verify(&endpoint).unwrap_err();
    assert!(matches!(refused, Refusal::MissingField(_)), "{refused}");
}

#[test]
fn a_batch_that_says_nothing_or_two_things_is_refused() {
    let (endpoint, sent) = open("adyen one item");
    let body = |body: &str| sent.clone().with(|s| s.body = body.as_bytes().to_vec());
    let refused = body(r#"{"notificationItems":[]}"#).verify(&endpoint);
    assert_eq!(refused.unwrap_err(), Refusal::NothingSigned);
    for bad in [
        "",
        "{}",
        "[]",
        "null",
        "{\"notificationItems\":null}",
        "\u{feff}{}",
    ] {
        let refused = body(bad).verify(&endpoint).unwrap_err();
        assert!(matches!(refused, Refusal::BadBody(_)), "{bad}: {refused}");
    }
    for (from, to) in [
        // The same key again: another reader might take that one.
        (
            "\"success\":\"true\"",
            "\"success\":\"true\",\"success\":\"false\"",
        ),
        ("\"value\":1130", "\"value\":1130,\"v\\u0061lue\":1"),
        ("\"live\"", "\"notificationItems\":[],\"live\""),
        // Other types for the same text.
        ("1130", "1130.0"),
        ("1130", "\"1130\""),
        ("\"true\"", "true"),
        ("\"true\"", "\"TRUE\""),
    ] {
        let refused = sent.clone().replaced(from, to).verify(&endpoint);
        let refused = refused.unwrap_err();
        assert!(matches!(refused, Refusal::BadBody(_)), "{to}: {refused}");
    }
    let item = String::from_utf8(sent.body.clone()).unwrap();
    let (from, to) = (item.find('[').unwrap() + 1, item.rfind(']').unwrap());
    let many = vec![&item[from..to]; ITEMS_MAX + 1].join(",");
    let refused = body(&format!("{{\"notificationItems\":[{many}]}}")).verify(&endpoint);
    assert!(matches!(refused, Err(Refusal::TooManyItems { .. })));
}

#[test]
fn the_signed_text_cannot_be_cut_elsewhere() {
    let (endpoint, sent) = open("adyen one item");
    // `::TestMerchant:TestPayment-…` as other fields with the same text.
    let moved = sent
        .clone()
        .replaced("\"TestMerchant\"", "\"TestMerchant:TestPayment\"")
        .replaced("TestPayment-", "-");
    assert_eq!(moved.verify(&endpoint).unwrap_err(), Refusal::Ambiguous);
    let moved = sent.replaced("\"EUR\"", "\"EUR:X\"");
    assert_eq!(moved.verify(&endpoint).unwrap_err(), Refusal::Ambiguous);
}

#[test]
fn another_spelling_of_the_signature_is_refused() {
    let (endpoint, sent) = open("adyen one item");
    let text = String::from_utf8(sent.body.clone()).unwrap();
    let from = text.find("\"hmacSignature\":\"").unwrap() + 17;
    let to = from + text[from..].find('"').unwrap();
    let signature = &text[from..to];
    assert!(signature.ends_with('='));
    let tail = signature.len() - 2;
    let other_tail = signature.as_bytes()[tail] + 1;
    for bad in [
        signature.trim_end_matches('=').to_owned(),
        format!("{signature}="),
        format!(" {signature}"),
        // The bits of the last letter that no byte has.
        format!("{}{}=", &signature[..tail], char::from(other_tail)),
        String::new(),
    ] {
        let changed = sent.clone().replaced(signature, &bad);
        let refused = changed.verify(&endpoint).unwrap_err();
        assert_eq!(refused, Refusal::BadEncoding, "{bad}");
    }
}
