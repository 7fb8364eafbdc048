//! Webhooks that are kept: what the provider is told, what the API gets and when, and what is left
//! after a restart, a kill, an upgrade or a full inbox.

mod kills;
mod leaving;
mod nodes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::edge::{Edge, Setup};
use crate::harness::hook::{EXAMPLE, Event, delivery_signature};
use crate::harness::keys::TokenIssuer;
use crate::harness::origin::{Origin, Script, Seen};
use crate::harness::{until, within};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Quick retries, and the platform's endpoint in its default mode.
const QUICK: &str = "[dispatch]\nbackoff_base_ms = 20\nbackoff_cap_ms = 200\n";

fn setup<'a>(origin: &Origin, extra: &'a str, replace: &[(&'a str, &'a str)]) -> Setup<'a> {
    let mut all = vec![("mode = \"pass\"\n", "")];
    all.extend(replace);
    Setup {
        origins: vec![origin.address],
        extra,
        replace: all,
    }
}

async fn pair(
    extra: &str,
    script: impl Fn(&Seen) -> Script + Send + Sync + 'static,
) -> (Origin, Edge) {
    let origin = Origin::start(TokenIssuer::new().jwks(), script).await;
    let edge = Edge::start(setup(&origin, extra, &[])).await;
    (origin, edge)
}

fn applied(_: &Seen) -> Script {
    Script::json(r#"{"status":"applied"}"#)
}

async fn post(edge: &Edge, event: &Event) -> (u16, String) {
    let mut client = edge.connect().await;
    let answer = within("an answer", event.post(&mut client)).await.unwrap();
    (answer.status, answer.text())
}

async fn delivered(origin: &Origin, count: usize) -> Vec<Seen> {
    until("deliveries", || async {
        let seen = origin.seen();
        (seen.len() >= count).then_some(seen)
    })
    .await
}

/// How many entries stand like this, by the metric.
async fn entries(edge: &Edge, standing: &str) -> f64 {
    let series = format!("maitred_inbox_entries{{endpoint=\"billing\",standing=\"{standing}\"}}");
    edge.metric(&series).await
}

#[tokio::test]
async fn an_event_is_acknowledged_and_then_delivered_as_it_came() {
    let (origin, edge) = pair(QUICK, applied).await;
    let event = Event::of(EXAMPLE).with("traceparent", TRACE);
    let (status, text) = post(&edge, &event).await;
    assert_eq!(
        (status, text.as_str()),
        (200, r#"{"id":"evt_test_123","status":"accepted"}"#)
    );
    let seen = delivered(&origin, 1).await.remove(0);
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("POST", "/internal/webhooks/billing")
    );
    assert_eq!(seen.body, EXAMPLE);
    for (name, value) in [
        ("content-type", "application/json"),
        ("webhook-id", "evt_test_123"),
        ("idempotency-key", "evt_test_123"),
        ("x-maitred-provider", "chefcloud"),
        ("x-maitred-attempt", "1"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    let signature = delivery_signature(&seen);
    assert_eq!(seen.header("webhook-signature"), Some(signature.as_str()));
    let trace = seen.header("traceparent").unwrap();
    assert!(
        trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-"),
        "{trace}"
    );
    assert_ne!(trace, TRACE, "a delivery is a span of its own");

    let (status, _) = post(&edge, &event).await;
    assert_eq!(status, 401, "the same bytes are a replay");
    let anew = Event::signed(EXAMPLE, crate::harness::keys::WEBHOOK_SECRET, &{
        (crate::harness::keys::now_ms() + 5).to_string()
    });
    let (status, text) = post(&edge, &anew).await;
    assert_eq!(
        (status, text.as_str()),
        (200, r#"{"id":"evt_test_123","status":"duplicate"}"#)
    );
    until("it is delivered", || async {
        (entries(&edge, "delivered").await >= 1.0).then_some(())
    })
    .await;
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn a_refused_webhook_reaches_neither_the_inbox_nor_the_api() {
    let (origin, edge) = pair(QUICK, applied).await;
    let mut forged = Event::named("forged");
    forged.signature = "0".repeat(64);
    assert_eq!(post(&edge, &forged).await.0, 401);
    assert_eq!(post(&edge, &Event::shifted(-301_000)).await.0, 401);
    assert_eq!(post(&edge, &Event::shifted(310_000)).await.0, 401);
    assert_eq!(post(&edge, &Event::named("good")).await.0, 200);
    delivered(&origin, 1).await;
    assert!(!origin.received(b"forged"));
    until("one is kept, and no more", || async {
        let kept = entries(&edge, "pending").await + entries(&edge, "delivered").await;
        (kept == 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_api_that_is_away_costs_the_provider_nothing() {
    let up = Arc::new(AtomicUsize::new(0));
    let seen_up = up.clone();
    let (origin, edge) = pair(QUICK, move |seen| match seen_up.load(Ordering::Relaxed) {
        0 => Script::status(503),
        _ => applied(seen),
    })
    .await;
    for number in 0..20 {
        assert_eq!(
            post(&edge, &Event::named(&format!("evt_{number}"))).await.0,
            200
        );
    }
    delivered(&origin, 1).await;
    up.store(1, Ordering::Relaxed);
    until("all are delivered", || async {
        (entries(&edge, "delivered").await >= 20.0).then_some(())
    })
    .await;
    let mut last: BTreeMap<String, (u32, Vec<u8>)> = BTreeMap::new();
    for seen in origin.seen() {
        let id = seen.header("webhook-id").unwrap().to_owned();
        let attempt = seen.header("x-maitred-attempt").unwrap().parse().unwrap();
        let known = last.entry(id).or_insert((0, seen.body.clone()));
        assert_eq!(
            (known.0 + 1, &known.1),
            (attempt, &seen.body),
            "attempts count up"
        );
        known.0 = attempt;
    }
    assert_eq!(last.len(), 20);
}

#[tokio::test]
async fn a_refusal_by_the_api_is_a_dead_letter_at_once_and_retry_after_is_waited_for() {
    let started = std::time::Instant::now();
    let (origin, edge) = pair(QUICK, |seen| {
        let attempt = seen.header("x-maitred-attempt");
        match seen.header("webhook-id").unwrap() {
            "bad" => Script::status(422),
            "later" if attempt == Some("1") => Script::Answer {
                status: 429,
                headers: vec![("retry-after", "1".into())],
                body: Vec::new(),
            },
            _ => applied(seen),
        }
    })
    .await;
    assert_eq!(post(&edge, &Event::named("bad")).await.0, 200);
    assert_eq!(post(&edge, &Event::named("later")).await.0, 200);
    until("both have ended", || async {
        let (dead, done) = (
            entries(&edge, "dead").await,
            entries(&edge, "delivered").await,
        );
        (dead == 1.0 && done == 1.0).then_some(())
    })
    .await;
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "Retry-After was not waited for"
    );
    let ids: Vec<_> = origin
        .seen()
        .iter()
        .map(|s| s.header("webhook-id").unwrap().to_owned())
        .collect();
    assert_eq!(ids.iter().filter(|id| *id == "bad").count(), 1);
    assert_eq!(ids.iter().filter(|id| *id == "later").count(), 2);
}

#[tokio::test]
async fn events_of_one_key_arrive_in_order_while_others_go_on() {
    let failures = AtomicUsize::new(0);
    let origin = Origin::start(TokenIssuer::new().jwks(), move |seen| {
        let first = seen.header("webhook-id") == Some("a0");
        match first && failures.fetch_add(1, Ordering::Relaxed) < 4 {
            true => Script::status(500),
            false => applied(seen),
        }
    })
    .await;
    let key = (
        "body_timeout_ms = 1500\nsecrets",
        "order_key = \"json:/account\"\nbody_timeout_ms = 1500\nsecrets",
    );
    let edge = Edge::start(setup(&origin, QUICK, &[key])).await;
    for number in 0..5 {
        for account in ["a", "b"] {
            let body = format!(r#"{{"id":"{account}{number}","account":"{account}"}}"#);
            assert_eq!(post(&edge, &Event::of(body)).await.0, 200);
        }
    }
    until("all are delivered", || async {
        (entries(&edge, "delivered").await >= 10.0).then_some(())
    })
    .await;
    let seen = origin.seen();
    let order = |account: &str| -> Vec<String> {
        let ids = seen
            .iter()
            .map(|s| s.header("webhook-id").unwrap().to_owned());
        let mut ids: Vec<_> = ids.filter(|id| id.starts_with(account)).collect();
        ids.dedup();
        ids
    };
    assert_eq!(order("a"), ["a0", "a1", "a2", "a3", "a4"]);
    assert_eq!(order("b"), ["b0", "b1", "b2", "b3", "b4"]);
}

#[tokio::test]
async fn a_full_inbox_says_503_and_takes_again_when_there_is_room() {
    let origin = Origin::start(TokenIssuer::new().jwks(), |_| Script::status(500)).await;
    let small = (
        "disk_free_bytes_min = 0\n",
        "disk_free_bytes_min = 0\nentries_max = 3\n",
    );
    let slow = "[dispatch]\nbackoff_base_ms = 600000\nbackoff_cap_ms = 600000\n";
    let edge = Edge::start(setup(&origin, slow, &[small])).await;
    for number in 0..3 {
        assert_eq!(
            post(&edge, &Event::named(&format!("evt_{number}"))).await.0,
            200
        );
    }
    let late = Event::named("evt_late");
    let mut client = edge.connect().await;
    let answer = late.post(&mut client).await.unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    assert!(answer.text().contains("overloaded"), "{}", answer.text());
    // It was not remembered as accepted: the provider's next attempt is no replay.
    assert_eq!(post(&edge, &late).await.0, 503);
    let refusals = edge.admin_json("/refusals").await.to_string();
    assert!(refusals.contains("the inbox is full"), "{refusals}");
}

#[tokio::test]
async fn a_replay_is_refused_after_a_restart_in_either_mode() {
    for mode in ["", "mode = \"pass\"\n"] {
        let origin = Origin::start(TokenIssuer::new().jwks(), applied).await;
        let setup = Setup {
            origins: vec![origin.address],
            extra: QUICK,
            replace: vec![("mode = \"pass\"\n", mode)],
        };
        let mut edge = Edge::start(setup).await;
        let event = Event::of(EXAMPLE);
        assert_eq!(post(&edge, &event).await.0, 200);
        delivered(&origin, 1).await;
        edge.signal(9);
        edge.exit_code().await;
        let edge = edge.restarted().await;
        let bent = event.clone().with("x-request-id", "another");
        assert_eq!(post(&edge, &bent).await.0, 401, "{mode}");
        assert_eq!(post(&edge, &Event::named("fresh")).await.0, 200);
    }
}

#[tokio::test]
async fn readiness_names_an_inbox_that_cannot_be_opened() {
    let (_origin, edge) = pair(QUICK, applied).await;
    let second = edge.successor_config();
    let text = std::fs::read_to_string(&second).unwrap();
    // Its own ports, the same folder.
    let text = text.replacen(&edge.https.to_string(), "127.0.0.1:0", 1);
    let text = text.replacen(&edge.http.to_string(), "127.0.0.1:0", 1);
    let text = text.replacen(&edge.admin.to_string(), "127.0.0.1:0", 1);
    std::fs::write(&second, text).unwrap();
    let (code, said) = crate::harness::edge::refused_start(&second, &[]).await;
    assert_eq!(code, Some(70), "{said}");
    assert!(said.contains("is in use by process"), "{said}");
    assert!(said.contains("inbox.path"), "{said}");
}
