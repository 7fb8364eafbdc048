//! Every preset through the same cases: what others signed is accepted, and refused once it is
//! spoiled in any of the known ways.

use super::vector::{Case, Sent, endpoint};
use crate::kernel::clock::UnixMs;
use crate::webhook::Refusal;
use crate::webhook::verify::ITEMS_MAX;

#[test]
fn what_others_signed_is_accepted() {
    for case in Case::all() {
        let name = case.preset.name;
        let said = case.fixture.own != case.fixture.sdk.is_some();
        assert!(said, "{name}: say where it comes from");
        for vector in &case.fixture.accept {
            assert!(!vector.source.is_empty());
            let secrets = vector.secrets.as_ref().unwrap_or(&case.fixture.secrets);
            let endpoint = endpoint(&case.preset, secrets, vector.secret_bytes_min);
            let sent = Sent::of(vector);
            let verified = sent.verify(&endpoint);
            let verified = verified.unwrap_or_else(|e| panic!("{name}, {}: {e}", vector.name));
            let id = verified.event_id.signed();
            assert_eq!(id, vector.event_id.as_deref(), "{name}, {}", vector.name);
            for bytes in [1_000, 16_384] {
                let chunked = sent.verify_in_chunks(&endpoint, bytes);
                assert_eq!(chunked.as_ref(), Ok(&verified), "{name}, {}", vector.name);
            }
        }
    }
}

#[test]
fn another_secret_is_refused_and_either_of_two_is_found() {
    for case in Case::all() {
        let (name, other) = (case.preset.name, case.stranger());
        let wrong = endpoint(&case.preset, std::slice::from_ref(&other), None);
        let refusal = case.sent.verify(&wrong).unwrap_err();
        assert_eq!(refusal, Refusal::NoMatch, "{name}");
        let secrets = [other, case.fixture.secrets[0].clone()];
        let both = endpoint(&case.preset, &secrets, None);
        let verified = case.sent.verify(&both).unwrap();
        assert_eq!(&*verified.secret_name, "secret-1", "{name}");
        let alone = case.sent.verify(&case.endpoint).unwrap();
        assert_eq!(alone.replay_key, verified.replay_key, "{name}");
    }
}

#[test]
fn a_flipped_byte_is_refused() {
    for case in Case::all() {
        if case.endpoint.scheme.signs_body() {
            for at in [0, case.sent.body.len() / 2, case.sent.body.len() - 1] {
                let mut changed = case.sent.clone();
                changed.body[at] ^= 1;
                let refusal = case.refuses("another body", &changed);
                assert_eq!(refusal, Refusal::NoMatch, "{}", case.preset.name);
            }
            let mut longer = case.sent.clone();
            longer.body.push(b'\n');
            case.refuses("a longer body", &longer);
        }
        let signature = case.signature();
        for at in [0, signature.len() / 2] {
            let mut changed = signature.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = case.with_signature(&String::from_utf8(changed).unwrap());
            case.refuses("another signature", &changed);
        }
    }
}

#[test]
fn stale_and_future_are_refused_to_the_millisecond() {
    for case in Case::all() {
        let at = |ms: i64| {
            let mut moved = case.sent.clone();
            moved.now = UnixMs(moved.now.0 + ms);
            moved.verify(&case.endpoint)
        };
        let Some(rule) = &case.preset.spec.ts else {
            assert!(at(86_400_000_000).is_ok(), "{}", case.preset.name);
            continue;
        };
        let past = i64::from(rule.past_s) * 1000;
        let future = i64::from(rule.future_s) * 1000;
        assert!(at(past).is_ok() && at(-future).is_ok());
        assert!(matches!(at(past + 1), Err(Refusal::Stale { .. })));
        assert!(matches!(at(-future - 1), Err(Refusal::Future { .. })));
    }
}

#[test]
fn missing_empty_truncated_and_doubled_headers_are_refused() {
    for case in Case::all() {
        let header = case.header();
        case.refuses("no signature", &case.sent.without(&header));
        case.refuses("an empty header", &case.sent.with(&header, ""));
        case.refuses("no signature in the item", &case.with_signature(""));
        let signature = case.signature();
        for len in [1, signature.len() / 2, signature.len() - 1] {
            let truncated = case.with_signature(&signature[..len]);
            case.refuses("a truncated signature", &truncated);
        }
        let longer = case.with_signature(&format!("{signature}00"));
        case.refuses("a longer signature", &longer);
        if case.preset.spec.lines_max.is_none() {
            let refusal = case.refuses("two lines", &case.sent.twice(&header));
            assert!(matches!(refusal, Refusal::DuplicateHeader(_)));
        } else {
            let mut many = case.sent.clone();
            (0..4).for_each(|_| many = many.twice(&header));
            case.refuses("five lines", &many);
        }
    }
}

#[test]
fn signed_headers_and_parameters_are_refused_when_they_are_doubled_or_changed() {
    for case in Case::all() {
        let signed = case.preset.spec.signed.clone().unwrap_or_default();
        let named = signed.split("{header:").skip(1);
        let named = named.map(|rest| rest.split('}').next().unwrap().parse().unwrap());
        for other in named.chain(case.ts_header()) {
            case.refuses("a signed header twice", &case.sent.twice(&other));
            case.refuses("no signed header", &case.sent.without(&other));
            case.refuses("another value", &case.sent.with(&other, "1700000001"));
        }
        if signed.contains("{query:") {
            for query in ["", "data.id=ORD02", "data.id=ORD01&data.id=ORD01"] {
                let mut changed = case.sent.clone();
                changed.query = query.into();
                case.refuses(query, &changed);
            }
        }
    }
}

#[test]
fn another_spelling_of_the_signature_is_refused() {
    for case in Case::all() {
        let signature = case.signature();
        let plain = signature.trim_end_matches('=');
        let other = match case.encoding() {
            "hex" => vec![signature.to_uppercase()],
            "HEX" => vec![signature.to_lowercase()],
            "base64" if plain == signature => vec![format!("{signature}=")],
            "base64" => {
                // The lowest bit of the last digit carries nothing.
                let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
                let (head, last) = plain.split_at(plain.len() - 1);
                let next = &alphabet[alphabet.find(last).unwrap() + 1..][..1];
                let pad = &signature[plain.len()..];
                vec![plain.to_owned(), format!("{head}{next}{pad}")]
            }
            "text" => vec![format!("{signature} "), signature.to_lowercase() + "x"],
            encoding => panic!("{encoding}"),
        };
        for other in other {
            assert_ne!(other, signature, "{}", case.preset.name);
            case.refuses(&other, &case.with_signature(&other));
        }
    }
}

#[test]
fn a_flood_of_signatures_is_refused() {
    for case in Case::all() {
        let separator = case.preset.spec.split.as_deref().unwrap_or(",");
        let item = format!("{}{}", case.label(), case.signature());
        let more = vec![item; 64].join(separator);
        let line = format!("{}{separator}{more}", case.line());
        let flood = case.sent.with(&case.header(), line);
        let refusal = case.refuses("64 signatures", &flood);
        if case.preset.spec.split.is_some() {
            assert_eq!(refusal, Refusal::TooManyItems { max: ITEMS_MAX });
        }
    }
}

const BAD_TIMESTAMPS: [&str; 14] = [
    "",
    "NaN",
    "inf",
    "1700000000.0",
    "1.7e9",
    "-1700000000",
    "+1700000000",
    "01700000000",
    "0x6553f100",
    "17000000000000",
    "99999999999999999999999999",
    "1700000000abc",
    "null",
    "1700000000 1700000000",
];

#[test]
fn timestamps_that_are_none_are_refused() {
    for case in Case::all() {
        let Some(rule) = &case.preset.spec.ts else {
            continue;
        };
        for bad in BAD_TIMESTAMPS {
            let spoiled = match (rule.from.as_str(), case.ts_header()) {
                (_, Some(name)) => case.sent.with(&name, bad),
                ("match", None) => {
                    let good = ["1700000000000", "1700000000"];
                    let line = case.line();
                    let good = good.into_iter().find(|g| line.contains(g)).unwrap();
                    case.sent.with(&case.header(), line.replacen(good, bad, 1))
                }
                (_, None) => {
                    let mut changed = case.sent.clone();
                    let body = String::from_utf8(changed.body).unwrap();
                    changed.body = body.replace("1700000000000", bad).into();
                    changed
                }
            };
            let refusal = case.refuses(bad, &spoiled);
            // One in the body is not even read: the signature does not fit any more.
            let in_body = rule.from.starts_with("json:");
            assert_eq!(in_body, refusal == Refusal::NoMatch, "{bad}: {refusal}");
        }
    }
}
