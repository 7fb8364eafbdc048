use std::sync::Arc;

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::{Handshake, answer, code};
use crate::kernel::clock::UnixMs;
use crate::kernel::reply::Reply;
use crate::kernel::secret::Secret;
use crate::webhook::scheme::{Scheme, SchemeSpec, TsSpec};
use crate::webhook::sign::{Unsigned, sign};
use crate::webhook::{ActiveSecret, Endpoint, Mode, SignedParts, verify};

const NOW: UnixMs = UnixMs(1_700_000_000_000);
const SECRET: &str = "a-secret-token-of-zoom-or-slack";

/// `v0:{ts}:{body}`, as Slack and Zoom sign.
fn endpoint(handshake: Option<Handshake>) -> Endpoint {
    let scheme = Scheme::build(&SchemeSpec {
        header: "x-signature".into(),
        items: vec!["v0={sig}".into()],
        signed: Some("v0:{ts}:{body}".into()),
        ts: Some(TsSpec {
            from: "header:x-timestamp".into(),
            unit: "s".into(),
            past_s: 300,
            future_s: 300,
        }),
        ..SchemeSpec::default()
    })
    .unwrap();
    let secret =
        |name: &str, text: &str| ActiveSecret::new(name, &Secret::new(text), &scheme).unwrap();
    Endpoint {
        name: "meetings".into(),
        provider: "zoom".into(),
        secrets: vec![
            secret("previous", "another-secret-that-is-not-it"),
            secret("current", SECRET),
        ],
        scheme: Arc::new(scheme.into()),
        handshake,
        mode: Mode::Pass,
        order_key: None,
        upstream: "api".into(),
        body_bytes_max: 1 << 20,
        body_timeout_ms: 10_000,
    }
}

/// Signs, verifies, and asks for the answer.
fn ask(handshake: Handshake, body: &str) -> Option<Reply> {
    let endpoint = endpoint(Some(handshake));
    let body = body.as_bytes();
    let unsigned = Unsigned {
        method: "POST",
        query: "",
        event_id: "",
        body,
    };
    let signed = sign(&endpoint.scheme, &endpoint.secrets[1], &unsigned, NOW).unwrap();
    let headers: HeaderMap = signed.headers.into_iter().collect();
    let parts = SignedParts {
        method: "POST",
        query: "",
        headers: &headers,
        body,
    };
    let verified = verify(&endpoint, &parts, NOW).unwrap();
    answer(&endpoint, &verified, body)
}

#[test]
fn slacks_challenge_is_sent_back() {
    let body = r#"{"token":"x","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}"#;
    let reply = ask(Handshake::Slack, body).unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.body,
        "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"
    );
    assert!(
        reply
            .headers
            .iter()
            .any(|(n, v)| n == CONTENT_TYPE && v == "text/plain; charset=utf-8")
    );
    for event in [
        r#"{"type":"event_callback","challenge":"x"}"#,
        r#"{"type":"url_verification"}"#,
        r#"{"type":"url_verification","challenge":"a","challenge":"b"}"#,
        r#"{"type":"url_verification","challenge":"<b> x"}"#,
        r#"{"type":"url_verification","challenge":{}}"#,
        "url_verification",
        "",
    ] {
        assert!(ask(Handshake::Slack, event).is_none(), "{event}");
    }
}

/// The MAC was made with `openssl dgst -sha256 -hmac`.
#[test]
fn zooms_token_is_sent_back_with_its_mac() {
    let body = r#"{"payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event_ts":1654503849680,"event":"endpoint.url_validation"}"#;
    let reply = ask(Handshake::Zoom, body).unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(answer["plainToken"], "qgg8vlvZRS6UYooatFL8Aw");
    let mac = "b2bd730a936c64401f749a4a042efa168d6fd65c13f35751b1cf13c04cc925c8";
    assert_eq!(answer["encryptedToken"], mac);
}

/// The same key signs messages as `v0:{ts}:{body}`.
#[test]
fn zooms_token_cannot_be_a_message() {
    for token in ["v0:1700000000:{}", "", "a b", "a.b", "é", &"a".repeat(257)] {
        let body = serde_json::json!({
            "event": "endpoint.url_validation", "payload": { "plainToken": token }
        });
        assert!(ask(Handshake::Zoom, &body.to_string()).is_none(), "{token}");
    }
    let event = r#"{"event":"meeting.started","payload":{"plainToken":"abc"}}"#;
    assert!(ask(Handshake::Zoom, event).is_none());
}

#[test]
fn discords_ping_is_answered() {
    let reply = ask(Handshake::Discord, r#"{"id":"1","type":1,"token":"x"}"#).unwrap();
    assert_eq!(reply.body, r#"{"type":1}"#);
    for event in [
        r#"{"type":2}"#,
        r#"{"type":1,"type":2}"#,
        r#"{"type":[1]}"#,
        "{}",
    ] {
        assert!(ask(Handshake::Discord, event).is_none(), "{event}");
    }
}

#[test]
fn clovers_code_is_shown_only_where_that_is_switched_on() {
    let body = br#"{"verificationCode":"ce7643c1-83ea-4218-abe6-da876c9c7a0a"}"#;
    let on = endpoint(Some(Handshake::DangerClover));
    let (shown, reply) = code(&on, body).unwrap();
    assert_eq!(shown.reveal(), "ce7643c1-83ea-4218-abe6-da876c9c7a0a");
    assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
    for other in [None, Some(Handshake::Slack), Some(Handshake::Zoom)] {
        assert!(code(&endpoint(other), body).is_none());
    }
    for bad in [
        &br#"{"verificationCode":"ce7643c1-83ea-4218-abe6-da876c9c7a0a","x":1}"#[..],
        br#"{"verificationCode":"\nfaked log line, as long as a uuid...."}"#,
        br#"{"verificationCode":""}"#,
        br#"{"verificationCode":1}"#,
        br#"{"appId":"1","merchants":{}}"#,
        b"",
    ] {
        assert!(code(&on, bad).is_none());
    }
}

#[test]
fn an_endpoint_without_handshake_answers_nothing() {
    let plain = endpoint(None);
    let verified = crate::webhook::Verified {
        replay_key: crate::webhook::replay::ReplayKey([0; 32]),
        signed_at: None,
        expires_at: None,
        event_id: crate::webhook::verify::EventId::Derived("evt".into()),
        claimed_id: None,
        secret_name: "current".into(),
        covers: crate::webhook::Covers::Body,
    };
    let body = br#"{"type":"url_verification","challenge":"x"}"#;
    assert!(answer(&plain, &verified, body).is_none());
    assert!(
        super::challenge(&plain, "bt_challenge=20f9f8ed05f77439fe955c977e4c8a53", NOW).is_none()
    );
}
