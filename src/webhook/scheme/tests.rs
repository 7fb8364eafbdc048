mod keys;

use http::HeaderMap;
use proptest::prelude::*;

use super::{Inputs, OnReplay, Scheme, SchemeSpec, TsSpec};
use crate::kernel::clock::UnixMs;
use crate::kernel::secret::Secret;
use crate::webhook::ActiveSecret;

fn good() -> SchemeSpec {
    SchemeSpec {
        header: "X-Signature".into(),
        signed: Some("{ts}.{body}".into()),
        ts: Some(ts("header:X-Timestamp", "ms")),
        ..SchemeSpec::default()
    }
}

fn ts(from: &str, unit: &str) -> TsSpec {
    TsSpec {
        from: from.into(),
        unit: unit.into(),
        past_s: 300,
        future_s: 300,
    }
}

fn signed(template: &str) -> SchemeSpec {
    SchemeSpec {
        signed: Some(template.into()),
        ..good()
    }
}

/// Keys that are complained about.
fn keys(spec: &SchemeSpec) -> Vec<&'static str> {
    let errors = Scheme::build(spec).err().unwrap_or_default();
    errors.iter().map(|error| error.key).collect()
}

#[test]
fn a_scheme_has_sensible_defaults() {
    let scheme = Scheme::build(&good()).unwrap();
    assert!(scheme.signs_body());
    assert_eq!(scheme.on_replay(), OnReplay::Reject);
    let timeless = SchemeSpec {
        ts: None,
        ..signed("{body}")
    };
    assert_eq!(Scheme::build(&timeless).unwrap().on_replay(), OnReplay::Ack);
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let spec = SchemeSpec {
        header: "X Signature".into(),
        split: Some("|".into()),
        items: vec!["v1".into()],
        alg: Some("md5".into()),
        encoding: Some("rot13".into()),
        key: Some("magic".into()),
        signed: Some("{foo}".into()),
        ts: Some(ts("nowhere", "ms")),
        id: Some("cookie:x".into()),
        replay: Some("maybe".into()),
        secret_bytes_min: Some(1),
        ..SchemeSpec::default()
    };
    let expected = [
        "header",
        "split",
        "alg",
        "match",
        "encoding",
        "key",
        "signed",
        "ts.from",
        "id",
        "replay",
        "secret_bytes_min",
    ];
    assert_eq!(keys(&spec), expected);
}

#[test]
fn an_unsigned_body_must_be_written_out() {
    let spec = SchemeSpec {
        signed: Some("{ts}".into()),
        ..good()
    };
    assert_eq!(keys(&spec), ["signed"]);
    assert!(
        keys(&SchemeSpec {
            unsigned_body: true,
            ..spec
        })
        .is_empty()
    );
    assert_eq!(
        keys(&SchemeSpec {
            signed: None,
            ..good()
        }),
        ["signed", "ts.from"]
    );
    let equal = SchemeSpec {
        alg: Some("equal".into()),
        header: "X-Token".into(),
        ..Default::default()
    };
    assert_eq!(keys(&equal), ["signed"]);
    assert!(
        keys(&SchemeSpec {
            unsigned_body: true,
            ..equal.clone()
        })
        .is_empty()
    );
    let pretends = SchemeSpec {
        signed: Some("{body}".into()),
        ..equal
    };
    assert_eq!(keys(&pretends), ["alg"]);
}

#[test]
fn a_timestamp_must_be_signed() {
    assert_eq!(keys(&signed("{body}")), ["ts.from"]);
    assert_eq!(keys(&SchemeSpec { ts: None, ..good() }), ["ts"]);
    let in_body = |template: &str| SchemeSpec {
        ts: Some(ts("json:/at", "ms")),
        ..signed(template)
    };
    assert!(keys(&in_body("{body}")).is_empty());
    assert_eq!(keys(&in_body("{ts}.{body}")), ["ts.from"]);
    let item = SchemeSpec {
        ts: Some(ts("match", "s")),
        ..good()
    };
    assert_eq!(keys(&item), ["ts.from"]);
    let both = SchemeSpec {
        split: Some(",".into()),
        items: vec!["t={ts}".into(), "{sig}".into()],
        ..good()
    };
    assert_eq!(keys(&both), ["ts.from"]);
    for (past_s, future_s) in [(86_401, 300), (300, 86_401)] {
        let ts = Some(TsSpec {
            past_s,
            future_s,
            ..ts("header:X-Timestamp", "ms")
        });
        assert_eq!(keys(&SchemeSpec { ts, ..good() }), ["ts"]);
    }
    let unit = SchemeSpec {
        ts: Some(ts("header:X-Timestamp", "us")),
        ..good()
    };
    assert_eq!(keys(&unit), ["ts.unit"]);
}

#[test]
fn a_template_with_two_readings_does_not_build() {
    for ok in [
        "{ts}{body}",
        "{body}{ts}",
        "{method}:{ts}{body}",
        "{header:a}.{ts}.{body}",
        "[id:{query:data.id};]ts:{ts};{body}",
        "{header:a} {body}{ts}",
    ] {
        assert!(
            keys(&signed(ok)).is_empty(),
            "{ok}: {:?}",
            Scheme::build(&signed(ok)).err()
        );
    }
    for bad in [
        "{header:a}{ts}{body}",
        "{header:a}{body}.{ts}",
        "{ts}.{method}{body}",
        "{ts}.{body}{body}",
        "{ts}{ts}.{body}",
        "{header:a}[.{header:b}.]{ts}{body}",
        "{ts}.{query:a}{header:b}.{body}",
    ] {
        assert_eq!(keys(&signed(bad)), ["signed"], "{bad}");
    }
    let auto = SchemeSpec {
        ts: Some(ts("header:X-Timestamp", "auto")),
        ..signed("{ts}{body}")
    };
    assert_eq!(keys(&auto), ["signed"]);
    for broken in [
        "{ts}.{body",
        "{ts}.body}",
        "[{ts}.{body}",
        "{ts}]{body}",
        "{ts}.{}{body}",
        "{ts}.{Body}",
        "[x]{ts}.{body}",
        "[{ts}.]{body}",
        "{header:}{ts}.{body}",
        "{query:}.{ts}.{body}",
        "[a[{header:b}]]{ts}.{body}",
        "{header:X-Signature}.{ts}.{body}",
    ] {
        assert!(keys(&signed(broken)).contains(&"signed"), "{broken}");
    }
}

#[test]
fn a_signed_url_must_be_configured() {
    let spec = SchemeSpec {
        ts: None,
        ..signed("{url}{body}")
    };
    assert_eq!(keys(&spec), ["public_url"]);
    let plain = SchemeSpec {
        public_url: Some("http://a.example/x".into()),
        ..spec.clone()
    };
    assert_eq!(keys(&plain), ["public_url"]);
    assert!(
        keys(&SchemeSpec {
            public_url: Some("https://a.example/x".into()),
            ..spec
        })
        .is_empty()
    );
}

#[test]
fn items_must_make_sense_together() {
    let items = |items: &[&str], split: Option<&str>| SchemeSpec {
        items: items.iter().map(|item| (*item).into()).collect(),
        split: split.map(str::to_owned),
        ..good()
    };
    assert_eq!(keys(&items(&["v1={sig}", "v2={sig}"], None)), ["split"]);
    assert!(keys(&items(&["v1={sig}", "v2={sig}"], Some(","))).is_empty());
    let no_signature = SchemeSpec {
        ts: Some(ts("match", "s")),
        ..items(&["t={ts}"], Some(","))
    };
    assert_eq!(keys(&no_signature), ["match"]);
}

#[test]
fn a_retry_of_a_scheme_without_timestamps_is_not_refused() {
    let spec = SchemeSpec {
        ts: None,
        replay: Some("reject".into()),
        ..signed("{body}")
    };
    assert_eq!(keys(&spec), ["replay"]);
}

#[test]
fn a_flag_that_contradicts_the_template_is_refused() {
    let both = SchemeSpec {
        unsigned_body: true,
        ..good()
    };
    assert_eq!(keys(&both), ["unsigned_body"]);
}

#[test]
fn lines_of_a_header_are_counted_from_one() {
    let lines = |lines_max| {
        keys(&SchemeSpec {
            lines_max: Some(lines_max),
            ..good()
        })
    };
    assert_eq!(
        (lines(0), lines(17)),
        (vec!["lines_max"], vec!["lines_max"])
    );
    assert!(lines(1).is_empty() && lines(16).is_empty());
}

#[test]
fn a_signed_url_may_be_decoded_first() {
    let spec = SchemeSpec {
        public_url: Some("https://edge.example/a%20b%2Fc%3fd=%2c%25".into()),
        ..signed("{url:decoded}{body}{ts}")
    };
    let scheme = Scheme::build(&spec).unwrap();
    let rendered = scheme.signed.render(&Inputs {
        ts: b"1111111111111",
        method: "POST",
        url: &scheme.public_url,
        query: "",
        headers: &HeaderMap::new(),
    });
    let before = rendered.unwrap().before;
    assert_eq!(before, b"https://edge.example/a%20b/c?d=,%25");
}

#[test]
fn a_file_says_only_what_is_known() {
    let spec: SchemeSpec = serde_json::from_str(
        r#"{"header":"X-Signature","match":["{sig}"],"signed":"{ts}.{body}",
            "ts":{"from":"header:X-Timestamp","unit":"ms"}}"#,
    )
    .unwrap();
    assert_eq!(
        spec.ts.as_ref().map(|ts| (ts.past_s, ts.future_s)),
        Some((300, 300))
    );
    assert!(Scheme::build(&spec).is_ok());
    assert!(serde_json::from_str::<SchemeSpec>(r#"{"header":"X","sgined":"{body}"}"#).is_err());
}

/// What a request offers; the alphabet is small so that collisions are likely.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Offer {
    header: Option<String>,
    ts: String,
    method: String,
    query: Option<String>,
    body: String,
}

fn offer() -> impl Strategy<Value = Offer> {
    let text = "[1.:;a]{0,3}";
    let ts = prop_oneof![
        Just("1111111111".to_owned()),
        Just("1111111111111".to_owned())
    ];
    let method = prop_oneof![Just("GET".to_owned()), Just("POST".to_owned())];
    let body = prop_oneof![text.prop_map(String::from), Just("1111111111.1".to_owned())];
    (
        proptest::option::of(text),
        ts,
        method,
        proptest::option::of(text),
        body,
    )
        .prop_map(|(header, ts, method, query, body)| Offer {
            header,
            ts,
            method,
            query,
            body,
        })
}

/// The signed bytes and which parts of the offer the template uses.
fn render(scheme: &Scheme, offer: &Offer) -> Option<Vec<u8>> {
    let mut headers = HeaderMap::new();
    if let Some(header) = &offer.header {
        headers.insert("a", header.parse().unwrap());
    }
    let unit = scheme.ts.as_ref().unwrap().unit;
    unit.parse(offer.ts.as_bytes())?;
    let query = offer
        .query
        .as_ref()
        .map(|value| format!("b={value}"))
        .unwrap_or_default();
    let inputs = Inputs {
        ts: offer.ts.as_bytes(),
        method: &offer.method,
        url: "https://edge.example/x",
        query: &query,
        headers: &headers,
    };
    let rendered = scheme.signed.render(&inputs).ok()?;
    Some(rendered.pieces(offer.body.as_bytes()).concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// The reason for the rules about templates: signed bytes have one reading.
    #[test]
    fn different_requests_have_different_signed_bytes(one in offer(), two in offer()) {
        for (template, unit) in [
            ("{header:a}.{ts}.{query:b}:{method}:{body}", "auto"),
            ("{ts}{body}:{header:a};{method}:{query:b}", "s"),
            ("{method}:{header:a}{ts}.{query:b}.{body}", "ms"),
            ("{body}{ts}.{header:a}.{method}:{query:b}", "ms"),
            ("[id:{query:b};][h:{header:a};]ts:{ts};{method}.{body}", "auto"),
        ] {
            let spec = SchemeSpec { ts: Some(ts("header:X-Timestamp", unit)), ..signed(template) };
            let scheme = Scheme::build(&spec).unwrap();
            let (first, second) = (render(&scheme, &one), render(&scheme, &two));
            if let (Some(first), Some(second)) = (first, second) {
                prop_assert_eq!(one == two, first == second, "{} {:?} {:?}", template, one, two);
            }
        }
    }
}
