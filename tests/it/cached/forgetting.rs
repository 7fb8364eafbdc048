//! When stored responses go: mutations, webhooks, and fetches that an invalidation overtakes.

use super::{World, cache, numbered};
use crate::harness::either::{Client, Speaks};
use crate::harness::keys::{WEBHOOK_SECRET, now_ms, sign};
use crate::harness::origin::{Gate, Script, Seen};
use crate::harness::until;

const TARGET: &str = "/report/x?orgId=org_a";

/// Mutations go to `/closed/{status}/{group}/{org}`.
fn script(seen: &Seen, n: usize) -> Script {
    let parts: Vec<&str> = seen.target.split('/').collect();
    match parts[1] {
        "closed" => Script::Answer {
            status: parts[2].parse().unwrap(),
            headers: vec![(
                "cache-group-invalidation",
                format!("\"{}\";org=\"{}\"", parts[3], parts[4]),
            )],
            body: Vec::new(),
        },
        _ => numbered(n),
    }
}

#[tokio::test]
async fn a_mutation_empties_the_groups_that_it_names() {
    let world = World::new("ttl_s = 60", script).await;
    let mut a = world.member().await;
    let mut b = world.caller(Speaks::Http2, "usr_b", "org_b").await;
    let theirs = "/report/x?orgId=org_b";
    assert_eq!(a.status(TARGET).await, "MISS");
    assert_eq!(b.status(theirs).await, "MISS");

    let changed = a.send("POST", "/closed/200/report/org_a", &[]).await;
    assert_eq!(changed.status, 200);
    assert_eq!(changed.header("cache-group-invalidation"), None);
    assert_eq!(a.status(TARGET).await, "MISS");
    assert_eq!(
        b.status(theirs).await,
        "HIT",
        "the other organisation keeps its own"
    );
    let log = world.edge.log();
    let line = r#"Invalidating org=org_a prefixes=[\"report\"] removed=1"#;
    assert!(log.contains(line), "{log}");

    for (method, target, after) in [
        ("POST", "/closed/409/report/org_a", "HIT"),
        ("POST", "/closed/500/report/org_a", "HIT"),
        ("GET", "/closed/200/report/org_a", "HIT"),
        ("POST", "/closed/200/other/org_a", "HIT"),
        ("DELETE", "/closed/204/report/org_a", "MISS"),
        ("PUT", "/closed/201/report/org_a", "MISS"),
    ] {
        a.send(method, target, &[]).await;
        let mut a = world.member().await;
        assert_eq!(a.status(TARGET).await, after, "{method} {target}");
    }
}

#[tokio::test]
async fn a_mutation_over_http2_does_the_same() {
    let world = World::new("ttl_s = 60", script).await;
    let mut a = world.caller(Speaks::Http2, "usr_a", "org_a").await;
    assert_eq!(a.status(TARGET).await, "MISS");
    assert_eq!(a.status(TARGET).await, "HIT");
    a.send("POST", "/closed/200/report/org_a", &[]).await;
    assert_eq!(a.status(TARGET).await, "MISS");
}

#[tokio::test]
async fn what_was_fetched_before_an_invalidation_is_not_stored_after_it() {
    let gate = Gate::new();
    let held = gate.clone();
    let world = World::new("ttl_s = 60", move |seen, n| {
        let answer = script(seen, n);
        if n == 1 {
            return Script::Held(held.clone(), Box::new(answer));
        }
        answer
    })
    .await;
    let early = world.caller(Speaks::Http2, "usr_a", "org_a").await;
    let Client::Http2(connection) = &early.client else {
        unreachable!("asked for HTTP/2")
    };
    let headers = [("authorization", &*early.bearer)];
    let (answer, _) = connection
        .start("GET", TARGET, &headers, true)
        .await
        .unwrap();
    let answer = tokio::spawn(answer);
    until("the fetch is under way", || async {
        (world.fetches() == 1).then_some(())
    })
    .await;

    let mut other = world.member().await;
    let changed = other.send("POST", "/closed/200/report/org_a", &[]).await;
    assert_eq!(changed.status, 200);
    gate.open();
    let answer = answer.await.unwrap().unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-cache"]),
        (200, &"MISS".parse().unwrap())
    );

    let after = other.get(TARGET).await;
    assert_eq!(
        (&*cache(&after), after.text().as_str()),
        ("MISS", "{\"n\":3}")
    );
    assert_eq!(other.status(TARGET).await, "HIT");
}

#[tokio::test]
async fn a_webhooks_answer_empties_groups_too() {
    let world = World::new("ttl_s = 60", |seen, n| {
        if seen.target.starts_with("/internal/webhooks/") {
            return Script::Answer {
                status: 200,
                headers: vec![(
                    "cache-group-invalidation",
                    "\"report\";org=\"org_a\"".into(),
                )],
                body: b"{\"status\":\"applied\"}".to_vec(),
            };
        }
        numbered(n)
    })
    .await;
    let mut caller = world.member().await;
    assert_eq!(caller.status(TARGET).await, "MISS");
    assert_eq!(caller.status(TARGET).await, "HIT");
    let body = br#"{"event":"invoice.paid","id":"evt_test_123","amount":5000}"#;
    let at = now_ms();
    let (signature, timestamp) = (sign(WEBHOOK_SECRET, at, body), at.to_string());
    let headers = [
        ("content-type", "application/json"),
        ("x-signature", &*signature),
        ("x-timestamp", &*timestamp),
    ];
    let mut provider = Client::open(&world.edge, Speaks::Http1).await;
    let taken = provider
        .request("POST", "/webhooks/billing", &headers, body)
        .await
        .unwrap();
    assert_eq!(taken.status, 200, "{}", taken.text());
    assert_eq!(taken.header("cache-group-invalidation"), None);
    assert_eq!(caller.status(TARGET).await, "MISS");
    // A replay is refused and forgets nothing.
    let replay = provider
        .request("POST", "/webhooks/billing", &headers, body)
        .await
        .unwrap();
    assert_eq!(replay.status, 401);
    assert_eq!(caller.status(TARGET).await, "HIT");
}
