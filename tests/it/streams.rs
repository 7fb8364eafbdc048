//! The stream lane up to the moment when a stream ends: who is let in, what the origin is told, and
//! how events and heartbeats reach the client.

use std::time::Duration;

use crate::harness::keys::{ASSERTION_SECRET, claims};
use crate::harness::origin::{Script, Seen};
use crate::harness::stream::{BOTH, Events, Feeds, HEARTBEAT, Protocol, Stage, TARGET};
use crate::harness::{until, within};

#[tokio::test]
async fn an_event_arrives_before_the_next_one_is_written() {
    let stage = Stage::with("").await;
    for protocol in BOTH {
        let index = stage.feeds.count();
        let token = stage.bearer("usr_a");
        let headers = [("authorization", &*token), ("accept-encoding", "gzip, br")];
        let mut events = Events::open(&stage.edge, protocol, &headers).await;
        assert_eq!(events.head.status, 200);
        assert_eq!(
            events.head.header("content-type"),
            Some("text/event-stream")
        );
        assert_eq!(events.head.header("cache-control"), Some("no-store"));
        assert_eq!(events.head.header("content-encoding"), None);
        let mut written = String::new();
        for number in 0..5 {
            let event = format!("id: {number}\r\nevent: kpi\r\ndata: {{\"n\":{number}}}\r\n\r\n");
            stage.feeds.send(index, &event);
            events.expect(&event).await;
            written.push_str(&event);
        }
        assert_eq!(
            events.seen, written,
            "{protocol:?}: nothing added or changed"
        );
    }
}

#[tokio::test]
async fn an_event_of_many_writes_and_a_large_one_arrive_whole() {
    let stage = Stage::with("").await;
    for protocol in BOTH {
        let (mut events, index) = stage.open(protocol, "usr_a").await;
        for byte in "data: letters\n\n".bytes() {
            stage.feeds.send(index, [byte]);
        }
        events.expect("data: letters\n\n").await;
        let large = format!("data: {}\n\n", "x".repeat(300_000));
        stage.feeds.send(index, &large);
        events.expect(&large).await;
    }
}

#[tokio::test]
async fn silence_brings_heartbeats_and_never_into_an_event() {
    let stage = Stage::with("heartbeat_s = 1").await;
    let run = |mut events: Events, index: usize| {
        let feeds = &stage.feeds;
        async move {
            feeds.send(index, "data: ha");
            events.expect("data: ha").await;
            // Long enough for two heartbeats, were it not for the open event.
            tokio::time::sleep(Duration::from_millis(2500)).await;
            feeds.send(index, "lf\n\n");
            events.expect("data: half\n\n").await;
            let whole = format!("data: half\n\n{HEARTBEAT}{HEARTBEAT}");
            events
                .until("two heartbeats", |seen| seen.len() >= whole.len())
                .await;
            assert_eq!(events.seen, whole);
        }
    };
    let (h1, one) = stage.open(Protocol::H1, "usr_a").await;
    let (h2, two) = stage.open(Protocol::H2, "usr_a").await;
    tokio::join!(run(h1, one), run(h2, two));
    let series = "maitred_stream_heartbeats_total{route=\"/stream/kpis\"}";
    assert!(stage.edge.metric(series).await >= 4.0);
}

#[tokio::test]
async fn a_stream_that_talks_gets_no_heartbeat() {
    let stage = Stage::with("heartbeat_s = 2").await;
    let (mut events, index) = stage.open(Protocol::H1, "usr_a").await;
    let mut beat = tokio::time::interval(Duration::from_millis(250));
    for number in 0..14 {
        beat.tick().await;
        let event = format!("data: {number}\n\n");
        stage.feeds.send(index, &event);
        events.expect(&event).await;
    }
    assert!(!events.seen.contains("heartbeat"), "{}", events.seen);
    events.expect(HEARTBEAT).await;
}

#[tokio::test]
async fn the_origin_hears_who_asks_and_where_to_resume_and_no_credential() {
    let stage = Stage::with("concurrent_per_user = 9").await;
    let token = stage.bearer("usr_a");
    let long = "9".repeat(300);
    for (protocol, last_id) in [
        (Protocol::H1, "evt_41"),
        (Protocol::H2, "evt_42"),
        (Protocol::H1, &*long),
    ] {
        let headers = [
            ("authorization", &*token),
            ("last-event-id", last_id),
            ("x-maitred-identity", "forged"),
            ("cookie", "session=secret"),
            ("x-request-id", "req-of-the-client"),
        ];
        let events = Events::open(&stage.edge, protocol, &headers).await;
        assert_eq!(events.head.status, 200);
    }
    let seen = stage.origin.seen();
    assert_eq!(seen[0].header("last-event-id"), Some("evt_41"));
    assert_eq!(seen[1].header("last-event-id"), Some("evt_42"));
    assert_eq!(
        seen[2].header("last-event-id"),
        None,
        "too long to be one of ours"
    );
    for request in &seen {
        assert_eq!(request.target, TARGET);
        assert_eq!(request.header("accept"), Some("text/event-stream"));
        assert_eq!(request.header("x-request-id"), Some("req-of-the-client"));
        assert_eq!(request.header("authorization"), None);
        assert_eq!(request.header("cookie"), None);
        let who = identity(request);
        assert_eq!(who["sub"], "usr_a");
        assert_eq!(who["orgs"]["org_a"], "manager");
        assert_eq!(who["rid"], "req-of-the-client");
    }
    assert!(!stage.origin.received(token.as_bytes()));
}

fn identity(request: &Seen) -> serde_json::Value {
    let given: Vec<_> = request
        .headers
        .iter()
        .filter(|(n, _)| n == "x-maitred-identity")
        .collect();
    assert_eq!(given.len(), 1);
    let key = jsonwebtoken::DecodingKey::from_secret(ASSERTION_SECRET.as_bytes());
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    rules.set_audience(&["chefcloud-api"]);
    rules.set_issuer(&["maitred"]);
    jsonwebtoken::decode::<serde_json::Value>(&given[0].1, &key, &rules)
        .unwrap()
        .claims
}

#[tokio::test]
async fn strangers_and_members_of_other_organisations_reach_nothing() {
    let stage = Stage::with("").await;
    let good = stage.bearer("usr_a");
    let foreign = format!("Bearer {}", stage.issuer.token("usr_b", &["org_b"], "ENT"));
    let expired = stage
        .issuer
        .encode(&claims("usr_a", &["org_a"], "ENT", -120));
    let expired = format!("Bearer {expired}");
    let cases = [
        (TARGET, "", 401),
        (TARGET, "Bearer nonsense", 401),
        (TARGET, &*expired, 401),
        (TARGET, &*foreign, 403),
        ("/stream/kpis?orgId=org_b", &*good, 403),
        ("/stream/kpis", &*good, 400),
        ("/stream/kpis?orgId=", &*good, 400),
        ("/stream/kpis?orgId=org_a&orgId=org_a", &*good, 400),
        ("/stream/kpis?orgId=org_a&orgId=org_b", &*good, 400),
    ];
    for (target, token, status) in cases {
        for protocol in BOTH {
            let headers: Vec<_> = Some(("authorization", token))
                .filter(|(_, t)| !t.is_empty())
                .into_iter()
                .collect();
            let answer = Events::open_at(&stage.edge, protocol, target, &headers)
                .await
                .head;
            assert_eq!(answer.status, status, "{protocol:?} {target} {token:.12}");
            assert_eq!(
                answer.header("content-type"),
                Some("application/problem+json")
            );
        }
    }
    assert_eq!(stage.origin.byte_count(), 0);
}

#[tokio::test]
async fn the_third_stream_of_a_user_is_refused_and_everybody_else_is_not() {
    let stage = Stage::with("").await;
    let (mut first, one) = stage.open(Protocol::H1, "usr_a").await;
    let (mut second, two) = stage.open(Protocol::H2, "usr_a").await;
    let token = stage.bearer("usr_a");
    for protocol in BOTH {
        let third = Events::open(&stage.edge, protocol, &[("authorization", &token)])
            .await
            .head;
        assert_eq!(third.status, 429);
        let wait: u32 = third.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait));
    }
    let (mut other, three) = stage.open(Protocol::H1, "usr_b").await;
    for (events, index) in [(&mut first, one), (&mut second, two), (&mut other, three)] {
        stage.feeds.send(index, "data: still here\n\n");
        events.expect("data: still here\n\n").await;
    }
    assert_eq!(stage.feeds.count(), 3);
    let series = "maitred_streams_open{route=\"/stream/kpis\"}";
    assert_eq!(stage.edge.metric(series).await, 3.0);
}

#[tokio::test]
async fn connecting_over_and_over_is_limited_per_user() {
    let stage = Stage::with("connects_per_min = 3").await;
    for _ in 0..3 {
        let (events, _) = stage.open(Protocol::H1, "usr_a").await;
        drop(events);
        stage.until_idle().await;
    }
    let token = stage.bearer("usr_a");
    let refused = Events::open(&stage.edge, Protocol::H2, &[("authorization", &token)])
        .await
        .head;
    assert_eq!(refused.status, 429);
    let wait: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    assert_eq!(refused.header("x-ratelimit-limit"), Some("3"));
    stage.open(Protocol::H1, "usr_b").await;
}

#[tokio::test]
async fn what_the_origin_refuses_is_told_as_it_is() {
    let feeds = Feeds::default();
    let stage = Stage::before(feeds, "concurrent_per_user = 1", "", Vec::new(), |seen| {
        let status = seen.target.rsplit_once('=').unwrap().1.parse().unwrap();
        let headers = vec![
            ("content-type", "application/problem+json".to_owned()),
            ("retry-after", "7".to_owned()),
            ("x-powered-by", "secret".to_owned()),
        ];
        Script::Answer {
            status,
            headers,
            body: b"{\"why\":\"so\"}".to_vec(),
        }
    })
    .await;
    let token = stage.bearer("usr_a");
    let headers = [("authorization", &*token)];
    for (status, expected) in [(403, 403), (404, 404), (429, 429), (500, 503), (503, 503)] {
        let mut connection = stage.edge.connect().await;
        let target = format!("{TARGET}&status={status}");
        let answer = connection
            .request("GET", &target, &headers, b"")
            .await
            .unwrap();
        assert_eq!(answer.status, expected);
        assert!(answer.header("retry-after").is_some() || status != 429 && status < 500);
        assert_eq!(answer.header("x-powered-by"), None);
        if status < 500 {
            assert_eq!(answer.text(), "{\"why\":\"so\"}");
            assert_eq!(answer.header("retry-after"), Some("7"));
        } else {
            assert!(!answer.text().contains("why"), "{}", answer.text());
        }
        // The connection is as good as new, and the slot is free.
        let again = connection
            .request("GET", "/open/x", &[], b"")
            .await
            .unwrap();
        assert_eq!(again.status, 200);
    }
}

#[tokio::test]
async fn an_origin_that_cannot_be_reached_is_a_bad_gateway_and_frees_the_slot() {
    let feeds = Feeds::default();
    let stage = Stage::before(feeds, "concurrent_per_user = 1", "", Vec::new(), |_| {
        Script::RawThenReset(Vec::new())
    })
    .await;
    let token = stage.bearer("usr_a");
    for protocol in BOTH {
        let answer = Events::open(&stage.edge, protocol, &[("authorization", &token)])
            .await
            .head;
        assert_eq!(answer.status, 502);
    }
}

#[tokio::test]
async fn head_asks_for_no_stream() {
    let stage = Stage::with("concurrent_per_user = 1").await;
    let token = stage.bearer("usr_a");
    let headers = [("authorization", &*token)];
    let mut connection = stage.edge.connect().await;
    for _ in 0..2 {
        let head = connection.request("HEAD", TARGET, &headers, b"");
        let head = within("HEAD is answered", head).await.unwrap();
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
    }
    let h2 = stage.edge.connect_h2().await;
    let head = h2.request("HEAD", TARGET, &headers, b"");
    assert_eq!(within("HEAD over h2", head).await.unwrap().status, 200);
    assert_eq!(stage.origin.busy(), 0);
    stage.open(Protocol::H1, "usr_a").await;
}

#[tokio::test]
async fn an_http_1_0_client_gets_the_stream_without_chunks() {
    let stage = Stage::with("").await;
    let token = stage.bearer("usr_a");
    let mut connection = stage.edge.connect().await;
    let request =
        format!("GET {TARGET} HTTP/1.0\r\nHost: localhost\r\nAuthorization: {token}\r\n\r\n");
    connection.send(request.as_bytes()).await.unwrap();
    let head = within("the header", connection.head()).await.unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(head.header("transfer-encoding"), None, "{head:?}");
    until("the origin has the request", || async {
        (stage.feeds.count() == 1).then_some(())
    })
    .await;
    stage.feeds.send(0, "data: 1\n\n");
    stage.feeds.send(0, "data: 2\n\n");
    stage.feeds.end(0);
    let body = within("the end", connection.rest()).await;
    assert_eq!(String::from_utf8(body).unwrap(), "data: 1\n\ndata: 2\n\n");
}
