//! What keeps a failing or busy service from being asked: breaker, health, bulkhead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{NO_HEALTH, edge, origin, refusal};
use crate::harness::edge::{Edge, Setup};
use crate::harness::either::{BOTH, Client, Speaks};
use crate::harness::origin::{Gate, Origin, Script};
use crate::harness::until;

#[tokio::test]
async fn the_breaker_opens_refuses_probes_and_closes() {
    let well = Arc::new(AtomicBool::new(false));
    let now = well.clone();
    let origin = origin(move |_| {
        Script::status(if now.load(Ordering::Relaxed) {
            200
        } else {
            500
        })
    })
    .await;
    let edge = edge(
        &[&origin],
        "[upstreams.api.breaker]\nfailures = 2\nopen_s = 1\n[upstreams.api.retry]\nattempts_max = 1\n",
    )
    .await;
    let mut client = Client::open(&edge, Speaks::Http1).await;
    for _ in 0..2 {
        // The service's own answer, not one of ours.
        let answer = client.get("/open/x", &[]).await;
        assert_eq!((answer.status, answer.text().as_str()), (500, ""));
    }
    let refused = client.get("/open/x", &[]).await;
    assert_eq!((refused.status, &*refusal(&refused)), (503, "unavailable"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(origin.seen().len(), 2, "nothing reached the origin");
    let mut client = Client::open(&edge, Speaks::Http2).await;
    let ready = client.get("/readiness", &[]).await;
    assert_eq!(ready.status, 503);
    assert_eq!(
        ready.json()["not_ready"][0],
        "upstream api: no usable endpoint"
    );

    // A probe that fails opens it again at once: one request, not a burst.
    let probed = until("a probe", || async {
        let mut client = Client::open(&edge, Speaks::Http1).await;
        let answer = client.get("/open/x", &[]).await;
        (answer.status == 500).then_some(origin.seen().len())
    })
    .await;
    assert_eq!(probed, 3);
    assert_eq!(client.get("/open/x", &[]).await.status, 503);
    assert_eq!(origin.seen().len(), 3);

    well.store(true, Ordering::Relaxed);
    until("the breaker closes", || async {
        let mut client = Client::open(&edge, Speaks::Http2).await;
        (client.get("/open/x", &[]).await.status == 200).then_some(())
    })
    .await;
    let before = origin.seen().len();
    for _ in 0..5 {
        assert_eq!(client.get("/open/x", &[]).await.status, 200);
    }
    assert_eq!(origin.seen().len(), before + 5);
}

#[tokio::test]
async fn an_unhealthy_service_is_left_alone_and_comes_back() {
    let origin = origin(|_| Script::status(200)).await;
    let edge = Edge::before(&origin).await;
    let mut client = Client::open(&edge, Speaks::Http1).await;
    let ready = client.get("/readiness", &[]).await;
    assert_eq!(
        (ready.status, ready.json()["ready"].as_bool()),
        (200, Some(true))
    );

    origin.set_healthy(false);
    let body = until("not ready", || async {
        let mut client = Client::open(&edge, Speaks::Http1).await;
        let ready = client.get("/readiness", &[]).await;
        (ready.status == 503).then(|| ready.json())
    })
    .await;
    assert_eq!(body["ready"], false);
    assert_eq!(body["not_ready"][0], "upstream api: no usable endpoint");
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let refused = client.get("/open/x", &[]).await;
        assert_eq!((refused.status, &*refusal(&refused)), (503, "unavailable"));
        assert!(refused.header("retry-after").is_some());
    }
    assert!(origin.seen().is_empty());
    let live = client.get("/healthz", &[]).await;
    assert_eq!(live.status, 200, "alive, whatever is behind");
    assert_eq!(
        client.get("/health", &[]).await.json()["status"],
        "degraded"
    );

    origin.set_healthy(true);
    until("ready again", || async {
        let mut client = Client::open(&edge, Speaks::Http2).await;
        (client.get("/ready", &[]).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(client.get("/open/x", &[]).await.status, 200);
    assert_eq!(client.get("/health", &[]).await.json()["status"], "ok");
}

#[tokio::test]
async fn traffic_goes_to_the_endpoint_that_is_healthy() {
    let sick = origin(|_| Script::status(200)).await;
    let well = origin(|_| Script::status(200)).await;
    let edge = Edge::start(Setup {
        origins: vec![sick.address, well.address],
        extra: "",
        replace: Vec::new(),
    })
    .await;
    sick.set_healthy(false);
    let series = format!(
        "maitred_upstream_endpoint_up{{endpoint=\"{}\",pool=\"api\"}}",
        sick.address
    );
    until("it is taken out", || async {
        let there = edge.admin("/metrics").await?.text().contains(&series);
        (there && edge.metric(&series).await == 0.0).then_some(())
    })
    .await;
    let before = sick.seen().len();
    let mut client = edge.connect().await;
    for _ in 0..20 {
        let answer = client.request("GET", "/open/x", &[], b"").await.unwrap();
        assert_eq!(answer.status, 200);
    }
    assert_eq!((sick.seen().len(), well.seen().len()), (before, 20));
}

#[tokio::test]
async fn one_request_too_many_is_refused_and_places_are_given_back() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(serde_json::json!({"keys": []}), move |seen| {
        if seen.target == "/open/held" {
            Script::Held(held.clone(), Box::new(Script::status(200)))
        } else {
            Script::status(200)
        }
    })
    .await;
    let edge = Edge::start(Setup {
        origins: vec![origin.address],
        extra: "",
        replace: vec![
            NO_HEALTH,
            (
                "connect_timeout_ms = 1000",
                "connect_timeout_ms = 1000\nin_flight_max = 2",
            ),
        ],
    })
    .await;
    let h2 = edge.connect_h2().await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let (answer, _) = h2.start("GET", "/open/held", &[], true).await.unwrap();
        waiting.push(tokio::spawn(answer));
    }
    until("two in flight", || async {
        (origin.seen().len() == 2).then_some(())
    })
    .await;
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let refused = client.get("/open/x", &[]).await;
        assert_eq!((refused.status, &*refusal(&refused)), (503, "overloaded"));
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    assert_eq!(origin.seen().len(), 2);
    // One that gives up frees its place as well.
    waiting.pop().unwrap().abort();
    let mut client = Client::open(&edge, Speaks::Http1).await;
    until("the place of the one that went", || async {
        let mut client = Client::open(&edge, Speaks::Http1).await;
        (client.get("/open/x", &[]).await.status == 200).then_some(())
    })
    .await;
    gate.open();
    for answer in waiting {
        assert_eq!(answer.await.unwrap().unwrap().status(), 200);
    }
    for _ in 0..10 {
        assert_eq!(client.get("/open/x", &[]).await.status, 200);
    }
    until("nothing in flight", || async {
        let series = "maitred_upstream_requests_in_flight{pool=\"api\"}";
        (edge.metric(series).await == 0.0).then_some(())
    })
    .await;
}
