//! The webhook lane as a provider, an attacker and the API see it: what is accepted and how it is
//! delivered, what is refused, and that nothing is delivered twice.

mod api;
mod bodies;
mod recorder;

use std::time::Duration;

use tokio::task::JoinSet;

use crate::harness::edge::{Edge, Setup};
use crate::harness::hook::{EXAMPLE, Event, PATH, delivery_signature};
use crate::harness::keys::{TokenIssuer, WEBHOOK_SECRET, now_ms};
use crate::harness::origin::{Origin, Script, Seen};
use crate::harness::within;

const APPLIED: &str = r#"{"status":"applied"}"#;

/// An origin that applies everything, and an edge with more configuration in front of it.
async fn pair(extra: &str) -> (Origin, Edge) {
    scripted(extra, |_| Script::json(APPLIED)).await
}

async fn scripted(
    extra: &str,
    script: impl Fn(&Seen) -> Script + Send + Sync + 'static,
) -> (Origin, Edge) {
    let origin = Origin::start(TokenIssuer::new().jwks(), script).await;
    let edge = Edge::with(&origin, extra).await;
    (origin, edge)
}

/// Posts over a connection of its own; the status.
async fn status(edge: &Edge, event: &Event) -> u16 {
    let mut client = edge.connect().await;
    within("an answer", event.post(&mut client))
        .await
        .unwrap()
        .status
}

#[tokio::test]
async fn the_platforms_example_is_delivered_byte_for_byte_and_signed_by_us() {
    let (origin, edge) = pair("").await;
    let event = Event::of(EXAMPLE)
        .with("x-request-id", "provider-1")
        .with("x-maitred-provider", "forged")
        .with("x-maitred-attempt", "99")
        .with("webhook-id", "forged")
        .with("webhook-signature", "v1,forged")
        .with("idempotency-key", "forged")
        .with("authorization", "Bearer forged")
        .with("cookie", "forged");
    let before = now_ms();
    let answer = event.post(&mut edge.connect().await).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, APPLIED));
    assert_eq!(answer.header("x-request-id"), Some("provider-1"));

    let mut all = origin.seen();
    assert_eq!(all.len(), 1);
    let seen = all.remove(0);
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("POST", "/internal/webhooks/billing")
    );
    assert_eq!(seen.body, EXAMPLE);
    let expected = [
        ("content-type", "application/json"),
        ("webhook-id", "evt_test_123"),
        ("idempotency-key", "evt_test_123"),
        ("x-maitred-provider", "chefcloud"),
        ("x-maitred-attempt", "1"),
        ("content-length", "58"),
    ];
    for (name, value) in expected {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    assert_eq!(
        seen.header("webhook-signature"),
        Some(delivery_signature(&seen).as_str())
    );
    let at: i64 = seen.header("webhook-timestamp").unwrap().parse().unwrap();
    assert!((before / 1000 - 1..=now_ms() / 1000).contains(&at), "{at}");
    let received = seen.header("x-maitred-received-at").unwrap();
    assert_eq!((received.len(), received.ends_with('Z')), (24, true));
    let forged = |value: &str| value.contains("forged") || value == event.signature;
    let leaked: Vec<_> = seen.headers.iter().filter(|(_, v)| forged(v)).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    let mut names: Vec<_> = seen.headers.iter().map(|(n, _)| n).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), seen.headers.len(), "a header came twice");
}

#[tokio::test]
async fn the_same_over_http2() {
    let (origin, edge) = pair("").await;
    let client = edge.connect_h2().await;
    let event = Event::of(EXAMPLE);
    let answer = event.post_h2(&client).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, APPLIED));
    assert_eq!(origin.seen()[0].body, EXAMPLE);
    assert_eq!(event.post_h2(&client).await.unwrap().status, 401);
    assert_eq!(origin.seen().len(), 1);
}

/// Signatures that are none.
fn unsigned() -> Vec<(&'static str, Event)> {
    let good = || Event::of(EXAMPLE);
    let bent = |bend: fn(&mut Event)| {
        let mut event = good();
        bend(&mut event);
        event
    };
    let now = now_ms();
    vec![
        (
            "another secret",
            Event::signed(
                EXAMPLE,
                "dev-another-secret-of-forty-characters-x",
                &now.to_string(),
            ),
        ),
        (
            "an empty secret",
            Event::signed(EXAMPLE, "", &now.to_string()),
        ),
        ("a flipped byte", bent(|e| e.body[20] ^= 1)),
        ("a byte more", bent(|e| e.body.push(b'\n'))),
        ("a byte less", bent(|e| e.body.truncate(e.body.len() - 1))),
        (
            "another timestamp",
            bent(|e| e.timestamp = (now_ms() + 1).to_string()),
        ),
        (
            "a signature of zeros",
            bent(|e| e.signature = "0".repeat(64)),
        ),
        ("an empty signature", bent(|e| e.signature.clear())),
        ("half a signature", bent(|e| e.signature.truncate(32))),
        (
            "upper-case hex",
            bent(|e| e.signature.make_ascii_uppercase()),
        ),
        (
            "a labelled signature",
            bent(|e| e.signature.insert_str(0, "sha256=")),
        ),
        (
            "two signatures in one",
            bent(|e| e.signature = format!("{0},{0}", e.signature)),
        ),
        (
            "a signature twice",
            bent(|e| e.extra.push(("X-Signature".into(), e.signature.clone()))),
        ),
        (
            "a second, wrong signature",
            good().with("x-signature", &"0".repeat(64)),
        ),
        (
            "a timestamp twice",
            bent(|e| e.extra.push(("X-Timestamp".into(), e.timestamp.clone()))),
        ),
    ]
}

/// Good signatures at another time than now, or at none.
fn untimely() -> Vec<(&'static str, Event)> {
    let spelled = |timestamp: &str| Event::signed(EXAMPLE, WEBHOOK_SECRET, timestamp);
    let now = now_ms();
    vec![
        ("stale", Event::shifted(-301_000)),
        ("very stale", Event::shifted(-86_400_000)),
        ("future", Event::shifted(303_000)),
        ("very far future", spelled("9223372036854775807")),
        ("overflow", spelled("9223372036854775808000")),
        ("seconds", spelled(&(now / 1000).to_string())),
        ("negative", spelled(&format!("-{now}"))),
        ("plus sign", spelled(&format!("+{now}"))),
        ("leading zero", spelled(&format!("0{now}"))),
        ("float", spelled(&format!("{now}.0"))),
        ("exponent", spelled("1.7e12")),
        ("hex", spelled(&format!("{now:#x}"))),
        ("not a number", spelled("NaN")),
        ("letters after", spelled(&format!("{now}abc"))),
        ("no timestamp's text", spelled("")),
    ]
}

/// Every way of being not authentic; the client learns nothing of which.
pub fn unauthentic() -> Vec<(&'static str, Event)> {
    let mut all = unsigned();
    all.extend(untimely());
    all
}

#[tokio::test]
async fn what_is_not_authentic_gets_one_and_the_same_401() {
    let (origin, edge) = pair("[classes.webhooks_failed]\nrequests = 1000").await;
    let mut wrong = Vec::new();
    let mut answers = std::collections::BTreeSet::new();
    let client = edge.connect_h2().await;
    let mut h1 = edge.connect().await;
    for (name, event) in unauthentic() {
        let over_h2 = event.post_h2(&client).await.unwrap();
        let over_h1 = event.post(&mut h1).await.unwrap();
        for answer in [over_h1, over_h2] {
            let mut problem = answer.json();
            problem["request_id"].take();
            answers.insert(problem.to_string());
            if answer.status != 401 {
                wrong.push((name, answer.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(origin.byte_count(), 0);
}

#[tokio::test]
async fn a_header_that_is_missing_is_a_401() {
    let (origin, edge) = pair("").await;
    let mut client = edge.connect().await;
    let event = Event::of(EXAMPLE);
    for left_out in ["x-signature", "x-timestamp"] {
        let mut headers = event.headers();
        headers.retain(|(name, _)| *name != left_out);
        let answer = client.request("POST", PATH, &headers, &event.body).await;
        assert_eq!(answer.unwrap().status, 401, "{left_out}");
    }
    let bare = client.request("POST", PATH, &[], &event.body).await;
    assert_eq!(bare.unwrap().status, 401);
    assert_eq!(origin.byte_count(), 0);
    // The same bytes with everything there: so it was the header.
    assert_eq!(event.post(&mut client).await.unwrap().status, 200);
}

#[tokio::test]
async fn the_clock_is_forgiven_just_within_the_tolerance() {
    let (origin, edge) = pair("").await;
    let mut client = edge.connect().await;
    for shift in [-290_000, 290_000] {
        let event = Event::signed(
            format!(r#"{{"id":"evt_{shift}"}}"#),
            WEBHOOK_SECRET,
            &(now_ms() + shift).to_string(),
        );
        assert_eq!(
            event.post(&mut client).await.unwrap().status,
            200,
            "{shift}"
        );
        assert_eq!(
            event.post(&mut client).await.unwrap().status,
            401,
            "{shift}"
        );
    }
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn the_same_signed_bytes_again_are_a_replay_whatever_the_request_id() {
    let (origin, edge) = pair("").await;
    let event = Event::of(EXAMPLE).with("x-request-id", "first");
    assert_eq!(status(&edge, &event).await, 200);
    assert_eq!(status(&edge, &event).await, 401);
    let mut other = event.clone();
    other.extra = vec![("x-request-id".into(), "second".into())];
    assert_eq!(status(&edge, &other).await, 401);
    other.extra.clear();
    other
        .extra
        .push(("content-type".into(), "text/plain".into()));
    assert_eq!(status(&edge, &other).await, 401);
    assert_eq!(origin.seen().len(), 1);
    let replays = r#"maitred_webhooks_total{endpoint="billing",outcome="replay"}"#;
    assert_eq!(edge.metric(replays).await, 3.0);
}

#[tokio::test]
async fn an_unsigned_request_id_does_not_keep_another_event_out() {
    let (origin, edge) = pair("").await;
    let first = Event::named("evt_a").with("x-request-id", "the-same");
    let second = Event::named("evt_b").with("x-request-id", "the-same");
    let mut forged = Event::named("evt_c").with("x-request-id", "the-same");
    forged.signature = "0".repeat(64);
    assert_eq!(status(&edge, &forged).await, 401);
    assert_eq!(status(&edge, &first).await, 200);
    assert_eq!(status(&edge, &second).await, 200);
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn the_same_event_signed_anew_is_a_duplicate_and_not_delivered_again() {
    let (origin, edge) = pair("").await;
    assert_eq!(status(&edge, &Event::shifted(-10)).await, 200);
    let again = Event::shifted(0);
    let answer = again.post(&mut edge.connect().await).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        serde_json::json!({ "status": "duplicate", "id": "evt_test_123" })
    );
    // Another body with the id of an event that was accepted is that event, too.
    let other = Event::of(r#"{"id":"evt_test_123","amount":1}"#);
    assert_eq!(status(&edge, &other).await, 200);
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn of_fifty_copies_at_once_one_is_delivered() {
    let slow = |_: &Seen| Script::Late(Duration::from_millis(400));
    let (origin, edge) = scripted("", slow).await;
    let event = Event::of(EXAMPLE);
    let mut clients = Vec::new();
    for _ in 0..25 {
        clients.push(edge.connect().await);
    }
    let h2 = edge.connect_h2().await;
    let mut copies = JoinSet::new();
    for mut client in clients {
        let event = event.clone();
        copies.spawn(async move { event.post(&mut client).await.unwrap() });
    }
    for _ in 0..25 {
        let (event, client) = (event.clone(), h2.clone());
        copies.spawn(async move { event.post_h2(&client).await.unwrap() });
    }
    let answers = within("fifty answers", copies.join_all()).await;
    let of = |status: u16| answers.iter().filter(|a| a.status == status).count();
    assert_eq!(of(200), 1);
    assert_eq!(of(401) + of(503), 49);
    let waits = |a: &&_| -> bool {
        let answer: &crate::harness::client::Response = a;
        answer.status == 503 && answer.header("retry-after").is_none()
    };
    assert_eq!(
        answers.iter().filter(waits).count(),
        0,
        "503 without Retry-After"
    );
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn only_post_and_only_what_is_configured() {
    let (origin, edge) = pair("").await;
    let mut client = edge.connect().await;
    let event = Event::of(EXAMPLE);
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        let answer = client
            .request(method, PATH, &event.headers(), b"")
            .await
            .unwrap();
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("OPTIONS, POST"), "{method}");
    }
    for path in [
        "/webhooks/unknown",
        "/webhooks/",
        "/webhooks/billing/x",
        "/internal/webhooks/billing",
    ] {
        let answer = client
            .request("POST", path, &event.headers(), &event.body)
            .await;
        assert_eq!(answer.unwrap().status, 404, "{path}");
        client = edge.connect().await;
    }
    assert_eq!(origin.byte_count(), 0);
    assert_eq!(event.post(&mut client).await.unwrap().status, 200);
}

#[tokio::test]
async fn during_a_rotation_both_secrets_count_and_a_metric_says_which() {
    const OLD: &str = "dev-previous-secret-of-the-integration-tests";
    const ENDED: &str = "dev-ended-secret-of-the-integration-tests";
    let origin = Origin::start(TokenIssuer::new().jwks(), |_| Script::json(APPLIED)).await;
    let secrets = format!(
        r#"danger_secret = "{{webhook}}" }},
  {{ name = "previous", danger_secret = "{OLD}" }},
  {{ name = "ended", danger_secret = "{ENDED}", not_after = "2020-01-01T00:00:00Z" }}"#
    );
    let edge = Edge::start(Setup {
        origins: vec![origin.address],
        extra: "",
        replace: vec![(r#"danger_secret = "{webhook}" }"#, &secrets)],
    })
    .await;
    let now = now_ms().to_string();
    let old = Event::signed(r#"{"id":"evt_old"}"#, OLD, &now);
    let ended = Event::signed(r#"{"id":"evt_ended"}"#, ENDED, &now);
    assert_eq!(status(&edge, &old).await, 200);
    assert_eq!(status(&edge, &Event::named("evt_new")).await, 200);
    assert_eq!(status(&edge, &ended).await, 401);
    // A provider that signs with both secrets sends one message, not two.
    let both = Event::signed(&old.body, WEBHOOK_SECRET, &now);
    assert_eq!(status(&edge, &both).await, 401);
    assert_eq!(origin.seen().len(), 2);
    for (secret, count) in [("previous", 1.0), ("current", 2.0), ("ended", 0.0)] {
        let series = format!(
            r#"maitred_webhook_secret_matched_total{{endpoint="billing",secret="{secret}"}}"#
        );
        assert_eq!(edge.metric(&series).await, count, "{secret}");
    }
}

/// The limit is looked at after the signature: it slows guessing down, and whoever shares an address
/// with a forger (a provider's own cloud, a NAT) does not pay for it.
#[tokio::test]
async fn an_address_that_forges_too_often_gets_429_and_good_webhooks_from_it_pass() {
    let low = "[classes.webhooks_failed]\nrequests = 3\nwindow_s = 60";
    let (origin, edge) = pair(low).await;
    let mut forged = Event::of(EXAMPLE);
    forged.signature = "0".repeat(64);
    for _ in 0..3 {
        assert_eq!(status(&edge, &forged).await, 401);
    }
    for forwarded_for in ["", "198.51.100.7", "127.0.0.2, 10.0.0.1"] {
        let spoofed = forged.clone().with("x-forwarded-for", forwarded_for);
        let answer = spoofed.post(&mut edge.connect().await).await.unwrap();
        assert_eq!(answer.status, 429, "{forwarded_for:?}");
        let wait: u32 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
    let good = Event::named("evt_after");
    assert_eq!(status(&edge, &good).await, 200);
    // A replay of it is a failure again.
    assert_eq!(status(&edge, &good).await, 429);
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn what_passes_does_not_count_as_failed() {
    let low = "[classes.webhooks_failed]\nrequests = 2\nwindow_s = 60";
    let (origin, edge) = pair(low).await;
    let mut client = edge.connect().await;
    for at in 0..10 {
        let event = Event::named(&format!("evt_{at}"));
        assert_eq!(event.post(&mut client).await.unwrap().status, 200, "{at}");
    }
    assert_eq!(origin.seen().len(), 10);
}
