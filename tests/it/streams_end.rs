//! How a stream ends: whoever ends it, the other side is told or let go at once, and the slot is
//! given back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::harness::client::{Connection, tls, tls_config};
use crate::harness::edge::Edge;
use crate::harness::keys::claims;
use crate::harness::origin::Script;
use crate::harness::stream::{BOTH, Events, Feeds, Protocol, Stage, TARGET};
use crate::harness::until;

/// What the contract allows between a client's leaving and the upstream's release.
const RELEASE: Duration = Duration::from_secs(1);

/// Waits for the origin to be left alone, and says how long that took.
async fn released(stage: &Stage) -> Duration {
    let start = Instant::now();
    until("the origin's connection is released", || async {
        (stage.origin.busy() == 0).then_some(())
    })
    .await;
    start.elapsed()
}

/// One slot, and a heartbeat (every 30 s) that is too far away to notice anything.
async fn one_slot() -> Stage {
    Stage::with("concurrent_per_user = 1").await
}

async fn reset_on_close(edge: &Edge) -> Connection {
    let io = tls(edge.https, "localhost", tls_config(&edge.ca, &["http/1.1"]));
    let io = io.await.unwrap();
    SockRef::from(io.get_ref().0)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    Connection::over(io)
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_although_nothing_is_written() {
    let stage = one_slot().await;
    let token = stage.bearer("usr_a");
    let headers = [("authorization", &*token)];
    let mut h2 = None;
    for way in ["fin", "reset", "rst_stream", "h2 connection"] {
        let events = match way {
            "fin" => Events::open(&stage.edge, Protocol::H1, &headers).await,
            "reset" => Events::over_h1(reset_on_close(&stage.edge).await, TARGET, &headers).await,
            _ => Events::open(&stage.edge, Protocol::H2, &headers).await,
        };
        assert_eq!(events.head.status, 200, "before {way}: the slot is free");
        assert_eq!(stage.origin.busy(), 1);
        match way {
            "rst_stream" => h2 = Some(events.reset()),
            _ => drop(events),
        }
        let took = released(&stage).await;
        assert!(took < RELEASE, "{way}: {took:?}");
        stage.until_idle().await;
    }
    assert_eq!(stage.closed("client-gone").await, 4.0);
    // RST_STREAM cost the stream alone, not its connection.
    let answer = h2.unwrap().request("GET", "/open/x", &[], b"").await;
    assert_eq!(answer.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_origin_answers_is_noticed_as_well() {
    let feeds = Feeds::default();
    let stage = Stage::before(
        feeds,
        "concurrent_per_user = 1",
        "",
        vec![(
            "first_byte_timeout_ms = 3000",
            "first_byte_timeout_ms = 60000",
        )],
        |_| Script::Hang,
    )
    .await;
    let token = stage.bearer("usr_a");
    let request =
        format!("GET {TARGET} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\r\n");
    let mut client = stage.edge.connect().await;
    client.send(request.as_bytes()).await.unwrap();
    until("the origin is asked", || async {
        (stage.origin.busy() == 1).then_some(())
    })
    .await;
    drop(client);
    let took = released(&stage).await;
    assert!(took < RELEASE, "h1: {took:?}");

    let h2 = stage.edge.connect_h2().await;
    let headers = [("authorization", &*token)];
    let waiting = h2.start("GET", TARGET, &headers, true).await.unwrap();
    until("the origin is asked again", || async {
        (stage.origin.busy() == 1).then_some(())
    })
    .await;
    drop(waiting);
    let took = released(&stage).await;
    assert!(took < RELEASE, "h2: {took:?}");
}

#[tokio::test]
async fn an_origin_that_ends_or_breaks_the_stream_frees_the_slot() {
    let feeds = Feeds::default();
    let number = AtomicUsize::new(0);
    let feed = feeds.clone();
    let stage = Stage::before(
        feeds,
        "concurrent_per_user = 1",
        "",
        Vec::new(),
        move |_| {
            if number.fetch_add(1, Ordering::Relaxed) < 2 {
                return feed.script();
            }
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                    transfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
            Script::RawThenReset(head.as_bytes().to_vec())
        },
    )
    .await;
    for protocol in BOTH {
        let (mut events, index) = stage.open(protocol, "usr_a").await;
        stage.feeds.send(index, "data: last\n\n");
        stage.feeds.end(index);
        assert!(events.finish().await, "{protocol:?}: a clean end");
        assert_eq!(events.seen, "data: last\n\n");
        stage.until_idle().await;
    }
    for protocol in BOTH {
        let (mut events, _) = stage.open(protocol, "usr_a").await;
        events.finish().await;
        stage.until_idle().await;
    }
    assert_eq!(stage.closed("upstream-ended").await, 4.0);
}

#[tokio::test]
async fn no_stream_outlives_its_token() {
    let stage = Stage::with("").await;
    let brief = stage.issuer.encode(&claims("usr_a", &["org_a"], "ENT", 2));
    let token = format!("Bearer {brief}");
    let start = Instant::now();
    for protocol in BOTH {
        let headers = [("authorization", &*token)];
        let mut events = Events::open(&stage.edge, protocol, &headers).await;
        assert_eq!(
            events.head.status, 200,
            "{protocol:?}: within the leeway of 30 s"
        );
        if protocol == Protocol::H1 {
            stage.feeds.send(0, "data: while it lasts\n\n");
            events.expect("data: while it lasts\n\n").await;
        }
        assert!(events.finish().await);
        assert_eq!(events.goodbye().unwrap().0, "credential-expired");
        assert!(
            start.elapsed() < Duration::from_secs(15),
            "not after the leeway"
        );
    }
    assert!(released(&stage).await < RELEASE);
    stage.until_closed("credential-expired", 2.0).await;
}

#[tokio::test]
async fn a_stream_ends_with_its_life_time_and_says_when_to_come_back() {
    let stage = Stage::with("heartbeat_s = 1\nlifetime_s = 2").await;
    for protocol in BOTH {
        let start = Instant::now();
        let (mut events, index) = stage.open(protocol, "usr_a").await;
        stage.feeds.send(index, "data: 1\n\n");
        assert!(events.finish().await);
        assert!(
            start.elapsed() > Duration::from_millis(1500),
            "{:?}",
            start.elapsed()
        );
        let (reason, retry_ms) = events.goodbye().unwrap();
        assert_eq!(reason, "lifetime");
        assert!((1000..=2000).contains(&retry_ms), "{retry_ms}");
        assert!(events.seen.starts_with("data: 1\n\n"));
    }
    assert!(released(&stage).await < RELEASE);
    assert_eq!(stage.closed("lifetime").await, 2.0);
}

#[tokio::test]
async fn a_stream_whose_time_is_over_within_an_event_ends_without_a_word() {
    let stage = Stage::with("heartbeat_s = 1\nlifetime_s = 2").await;
    for protocol in BOTH {
        let (mut events, index) = stage.open(protocol, "usr_a").await;
        stage.feeds.send(index, "data: whole\n\ndata: ha");
        assert!(events.finish().await);
        // A word would have become part of the data; what has no end is dropped by every client.
        assert_eq!(events.seen, "data: whole\n\ndata: ha", "{protocol:?}");
    }
    stage.until_closed("lifetime", 2.0).await;
}

/// A client whose kernel takes little on its behalf.
async fn small_window(address: SocketAddr, edge: &Edge) -> Connection {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.set_nonblocking(true).unwrap();
    let tcp = tokio::net::TcpSocket::from_std_stream(socket.into());
    let tcp = tcp.connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let config = tls_config(&edge.ca, &["http/1.1"]);
    let io = tokio_rustls::TlsConnector::from(config).connect(name, tcp);
    Connection::over(io.await.unwrap())
}

fn resident_kib(edge: &Edge) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", edge.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let number = line.unwrap().split_whitespace().next().unwrap();
    number.parse().unwrap()
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_costs_no_memory() {
    let stage = Stage::with("write_timeout_ms = 700\nconcurrent_per_user = 1").await;
    let token = stage.bearer("usr_a");
    let headers = [("authorization", &*token)];
    let event = format!("data: {}\n\n", "x".repeat(256 * 1024));
    let before = resident_kib(&stage.edge);
    for (protocol, times) in [(Protocol::H1, 1.0), (Protocol::H2, 2.0)] {
        let index = stage.feeds.count();
        let idle = match protocol {
            Protocol::H1 => {
                let connection = small_window(stage.edge.https, &stage.edge).await;
                Events::over_h1(connection, TARGET, &headers).await
            }
            Protocol::H2 => Events::open(&stage.edge, protocol, &headers).await,
        };
        assert_eq!(idle.head.status, 200);
        // 48 MiB: far more than all kernels' buffers on the way.
        for _ in 0..192 {
            stage.feeds.send(index, &event);
        }
        stage.until_closed("slow-client", times).await;
        released(&stage).await;
        stage.until_idle().await;
        drop(idle);
    }
    let grown = resident_kib(&stage.edge).saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB");
    let (mut events, index) = stage.open(Protocol::H1, "usr_a").await;
    stage.feeds.send(index, "data: back\n\n");
    events.expect("data: back\n\n").await;
}

#[tokio::test]
async fn a_burst_larger_than_a_window_arrives_whole_and_in_order() {
    let stage = Stage::with("write_timeout_ms = 5000").await;
    for protocol in BOTH {
        let (mut events, index) = stage.open(protocol, "usr_a").await;
        for number in 0..64 {
            let filler = "y".repeat(64 * 1024);
            stage
                .feeds
                .send(index, format!("id: {number}\ndata: {filler}\n\n"));
        }
        stage.feeds.end(index);
        assert!(events.finish().await);
        let ids: Vec<_> = events
            .seen
            .lines()
            .filter_map(|l| l.strip_prefix("id: "))
            .map(|id| id.parse::<usize>().unwrap())
            .collect();
        assert_eq!(ids, (0..64).collect::<Vec<_>>(), "{protocol:?}");
    }
}
