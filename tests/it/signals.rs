//! The way out: what SIGTERM costs those who are being served, and how long it takes.

use std::time::{Duration, Instant};

use crate::harness::client::Connection;
use crate::harness::edge::refused_start;
use crate::harness::load::Load;
use crate::harness::origin::Script;
use crate::harness::stream::{BOTH, Events, Feeds, Protocol, Stage, TARGET};
use crate::harness::{until, within};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const ANNOUNCE: (&str, &str) = ("announce_ms = 300", "announce_ms = 1000");
/// What a busy machine may add to a time that the edge keeps.
const SLACK: Duration = Duration::from_secs(3);

/// A request that is being answered, and the connection it is on.
async fn begin(stage: &Stage, target: &str) -> Connection {
    let asked = stage.origin.seen().len();
    let mut connection = stage.edge.connect().await;
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    connection.send(request.as_bytes()).await.unwrap();
    until("the origin is asked", || async {
        (stage.origin.seen().len() > asked).then_some(())
    })
    .await;
    connection
}

#[tokio::test]
async fn termination_under_load_fails_no_request() {
    let mut stage = Stage::of("", "", vec![ANNOUNCE]).await;
    let load = Load::start(&stage.edge);
    load.proceed(20).await;
    let signalled = Instant::now();
    stage.edge.signal(SIGTERM);
    let mut probe = Connection::plain(stage.edge.http).await.unwrap();
    let first = probe.request("GET", "/readiness", &[], b"").await.unwrap();
    assert!(first.status == 503 || signalled.elapsed() < Duration::from_millis(100));
    until("readiness is off", || async {
        let mut probe = Connection::plain(stage.edge.http).await.ok()?;
        let answer = probe.request("GET", "/readiness", &[], b"").await.ok()?;
        (answer.status == 503).then_some(())
    })
    .await;
    // Balancers take a second to notice; until then everything is served as before.
    load.proceed(5).await;
    assert_eq!(stage.edge.exit_code().await, Some(0));
    assert!(signalled.elapsed() < Duration::from_secs(1) + SLACK + SLACK);
    let tally = load.finish().await;
    assert_eq!(tally.failures(), Vec::<String>::new());
    let refused = tally.unreached();
    let early = refused
        .iter()
        .filter(|at| **at < signalled + Duration::from_secs(1));
    assert_eq!(early.count(), 0, "refused while it was only announced");
    assert!(!refused.is_empty(), "it did stop to accept");
}

#[tokio::test]
async fn readiness_is_off_at_once_while_everything_is_still_served() {
    let replace = vec![("announce_ms = 300", "announce_ms = 4000")];
    let mut stage = Stage::of("", "", replace).await;
    let mut kept = stage.edge.connect().await;
    assert_eq!(
        kept.request("GET", "/open/x", &[], b"")
            .await
            .unwrap()
            .status,
        200
    );
    let h2 = stage.edge.connect_h2().await;
    stage.edge.signal(SIGTERM);
    let start = Instant::now();
    until("readiness is off", || async {
        let answer = stage
            .edge
            .connect()
            .await
            .request("GET", "/readiness", &[], b"")
            .await
            .ok()?;
        (answer.status == 503 && answer.text().contains("draining")).then_some(())
    })
    .await;
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    let last = kept.request("GET", "/open/x", &[], b"").await.unwrap();
    assert_eq!(
        (last.status, last.header("connection")),
        (200, Some("close"))
    );
    assert!(kept.rest().await.is_empty(), "and closed it is");
    let fresh = stage
        .edge
        .connect()
        .await
        .request("GET", "/open/x", &[], b"")
        .await
        .unwrap();
    assert_eq!(
        (fresh.status, fresh.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(
        h2.request("GET", "/open/x", &[], b"").await.unwrap().status,
        200
    );
    let live = stage
        .edge
        .connect()
        .await
        .request("GET", "/livez", &[], b"")
        .await
        .unwrap();
    assert_eq!(live.status, 200, "nobody should kill it now");
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "all of this during the announcement"
    );
    stage.edge.signal(SIGINT);
    stage.edge.exit_code().await;
}

#[tokio::test]
async fn streams_are_told_and_closed_over_the_window() {
    let replace = vec![("streams_window_ms = 500", "streams_window_ms = 2000")];
    let mut stage = Stage::of("concurrent_per_user = 20", "", replace).await;
    let mut open = Vec::new();
    for number in 0..16 {
        open.push(stage.open(BOTH[number % 2], "usr_a").await.0);
    }
    let signalled = Instant::now();
    stage.edge.signal(SIGTERM);
    let mut ends = tokio::task::JoinSet::new();
    for mut events in open {
        ends.spawn(async move {
            let clean = events.finish().await;
            (clean, events.goodbye(), signalled.elapsed())
        });
    }
    let mut after = Vec::new();
    let mut retries = std::collections::BTreeSet::new();
    while let Some(end) = ends.join_next().await {
        let (clean, goodbye, took) = end.unwrap();
        let (reason, retry_ms) = goodbye.unwrap();
        assert!(clean);
        assert_eq!(reason, "drain");
        assert!((1000..=2000).contains(&retry_ms));
        retries.insert(retry_ms);
        after.push(took);
    }
    let ms = Duration::from_millis;
    let (first, last) = (*after.iter().min().unwrap(), *after.iter().max().unwrap());
    assert!(
        first >= ms(300),
        "not before the announcement is over: {first:?}"
    );
    assert!(last - first > ms(700), "all at once: {first:?} to {last:?}");
    assert!(last < ms(2300) + SLACK, "{last:?}");
    assert!(retries.len() > 4, "{retries:?}");
    assert_eq!(stage.edge.exit_code().await, Some(0));
    assert!(
        signalled.elapsed() - last < SLACK,
        "no longer than the last stream"
    );
}

#[tokio::test]
async fn what_is_in_flight_is_finished_and_then_it_ends() {
    let mut stage = Stage::with("").await;
    let mut h1 = begin(&stage, "/open/slow").await;
    let h2 = stage.edge.connect_h2().await;
    let slow = h2.request("GET", "/open/slow", &[], b"");
    let story = async {
        until("both are in flight", || async {
            (stage.origin.busy() == 2).then_some(())
        })
        .await;
        stage.edge.signal(SIGTERM);
    };
    let (slow, ()) = tokio::join!(slow, story);
    assert_eq!(slow.unwrap().text(), "late");
    let answer = within("the slow answer", h1.response(false)).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "late"));
    let start = Instant::now();
    assert_eq!(stage.edge.exit_code().await, Some(0));
    assert!(start.elapsed() < SLACK, "{:?}", start.elapsed());
}

#[tokio::test]
async fn with_nothing_under_way_it_ends_at_once() {
    let mut stage = Stage::with("").await;
    // Connections that only wait keep nobody.
    let mut idle_h1 = stage.edge.connect().await;
    idle_h1.request("GET", "/open/x", &[], b"").await.unwrap();
    let idle_h2 = stage.edge.connect_h2().await;
    idle_h2.request("GET", "/open/x", &[], b"").await.unwrap();
    let start = Instant::now();
    stage.edge.signal(SIGTERM);
    assert_eq!(stage.edge.exit_code().await, Some(0));
    assert!(
        start.elapsed() < Duration::from_millis(300) + SLACK,
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    for second in [SIGTERM, SIGINT] {
        let mut stage = Stage::with("").await;
        let _hanging = begin(&stage, "/open/hang").await;
        let (events, _) = stage.open(Protocol::H2, "usr_a").await;
        stage.edge.signal(SIGTERM);
        until("it is leaving", || async {
            let detail = stage.edge.admin("/health/detailed").await?;
            (detail.json()["phase"] != "serving").then_some(())
        })
        .await;
        let start = Instant::now();
        stage.edge.signal(second);
        assert_eq!(stage.edge.exit_code().await, Some(1));
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        assert!(stage.edge.log().contains("second signal"));
        drop(events);
    }
}

#[tokio::test]
async fn a_request_that_outlives_the_drain_is_cut() {
    let replace = vec![
        ("timeout_ms = 10000", "timeout_ms = 1000"),
        (
            "first_byte_timeout_ms = 3000",
            "first_byte_timeout_ms = 60000",
        ),
    ];
    let mut stage = Stage::of("", "", replace).await;
    let mut hanging = begin(&stage, "/open/hang").await;
    let start = Instant::now();
    stage.edge.signal(SIGTERM);
    assert!(hanging.head().await.is_err(), "no answer can be given");
    assert_eq!(stage.edge.exit_code().await, Some(0));
    let took = start.elapsed();
    assert!(took > Duration::from_millis(1300), "{took:?}");
    assert!(took < Duration::from_millis(2300) + SLACK, "{took:?}");
    assert!(stage.edge.log().contains("out of time"));
}

#[tokio::test]
async fn a_stream_that_opens_while_leaving_is_told_as_well() {
    let feeds = Feeds::default();
    let feed = feeds.clone();
    let replace = vec![("announce_ms = 300", "announce_ms = 1500")];
    let script = move |_: &_| feed.script();
    let mut stage = Stage::before(feeds, "", "", replace, script).await;
    stage.edge.signal(SIGTERM);
    until("it is leaving", || async {
        let detail = stage.edge.admin("/health/detailed").await?;
        (detail.json()["phase"] == "announcing").then_some(())
    })
    .await;
    let (mut events, index) = stage.open(Protocol::H1, "usr_a").await;
    stage.feeds.send(index, "data: 1\n\n");
    assert!(events.finish().await);
    assert!(events.seen.starts_with("data: 1\n\n"));
    assert_eq!(events.goodbye().unwrap().0, "drain");
    assert_eq!(stage.edge.exit_code().await, Some(0));
}

#[tokio::test]
async fn interrupt_stops_at_once_even_with_streams_open() {
    let mut stage = Stage::with("").await;
    let token = stage.bearer("usr_a");
    let headers = [("authorization", &*token)];
    let _events = Events::open_at(&stage.edge, Protocol::H1, TARGET, &headers).await;
    let start = Instant::now();
    stage.edge.signal(SIGINT);
    assert_eq!(stage.edge.exit_code().await, Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_and_nothing_starts() {
    let feeds = Feeds::default();
    let stage = Stage::before(feeds, "", "", Vec::new(), |_| Script::status(204)).await;
    let concrete = stage.edge.successor_config();
    let text = std::fs::read_to_string(&concrete).unwrap();
    let https = format!("\"{}\"", stage.edge.https);
    let http = format!("\"{}\"", stage.edge.http);
    let any = "\"127.0.0.1:0\"";
    for (name, text) in [
        ("admin", text.replace(&https, any).replace(&http, any)),
        (
            "https",
            text.replace(&stage.edge.admin.to_string(), "127.0.0.1:0")
                .replace(&http, any),
        ),
    ] {
        std::fs::write(&concrete, text).unwrap();
        let (code, said) = refused_start(&concrete, &[]).await;
        assert!(code.is_some_and(|code| code != 0), "{code:?} {said}");
        assert!(said.contains(name), "{said}");
        assert!(said.to_lowercase().contains("in use"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    let mut client = stage.edge.connect().await;
    assert_eq!(
        client
            .request("GET", "/open/x", &[], b"")
            .await
            .unwrap()
            .status,
        200
    );
}
