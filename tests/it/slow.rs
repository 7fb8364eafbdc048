//! Clients that send too slowly, read too slowly, come in crowds or flood: each is cut within its
//! deadline, what it held is given back, and good clients are served meanwhile.

mod crowds;

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::client::Connection;
use crate::harness::edge::{Edge, Setup};
use crate::harness::frames::{self, END_STREAM, HEADERS, PREFACE, SETTINGS, frame};
use crate::harness::keys::TokenIssuer;
use crate::harness::origin::{Origin, Script};
use crate::harness::{until, within};

/// The deadlines of `served`, and what a busy machine may add.
const HEADER: Duration = Duration::from_millis(1500);
const KEEPALIVE: Duration = Duration::from_millis(1000);
const MARGIN: Duration = Duration::from_millis(2500);
const GET: &str = "GET /open/x HTTP/1.1\r\nHost: localhost\r\n";
/// Well-formed for as long as it is dripped, over and over.
const HALF: &[u8] = b"GET /open/x HTTP/1.1\r\nX-A: b";

/// A body that fills every buffer on the way to a client that does not read.
const LARGE: usize = 24 * 1024 * 1024;

async fn served() -> (Origin, Edge) {
    let script = |seen: &crate::harness::origin::Seen| {
        if seen.target.starts_with("/open/large") {
            return Script::Answer {
                status: 200,
                headers: Vec::new(),
                body: vec![b'x'; LARGE],
            };
        }
        Script::json("{}")
    };
    let origin = Origin::start(TokenIssuer::new().jwks(), script).await;
    let edge = Edge::start(Setup {
        origins: vec![origin.address],
        extra: "",
        replace: vec![
            (
                "header_timeout_ms = 1500",
                "header_timeout_ms = 1500\nkeepalive_timeout_ms = 1000",
            ),
            (
                "redirect_to_port = 443",
                "redirect_to_port = 443\nheader_timeout_ms = 1500\nkeepalive_timeout_ms = 1000",
            ),
        ],
    })
    .await;
    (origin, edge)
}

/// Runs `attack`, which ends when the edge cuts it, and looks at the clock.
async fn cut(what: &str, after: Duration, attack: impl Future<Output = ()>) {
    let started = Instant::now();
    within(what, attack).await;
    let took = started.elapsed();
    let early = after.saturating_sub(Duration::from_millis(150));
    assert!(took >= early, "{what}: cut after {took:?} already");
    assert!(took < after + MARGIN, "{what}: cut after {took:?} only");
}

/// Sends one byte after the other until the edge has had enough.
async fn drip(client: &mut Connection, bytes: &[u8]) {
    let mut pace = tokio::time::interval(Duration::from_millis(40));
    for byte in bytes.iter().cycle() {
        pace.tick().await;
        if client.send(&[*byte]).await.is_err() {
            return;
        }
    }
}

async fn silent(edge: &Edge) {
    let mut client = edge.connect().await;
    assert!(client.rest().await.is_empty());
}

async fn silent_without_tls(edge: &Edge) {
    let mut tcp = TcpStream::connect(edge.https).await.unwrap();
    let mut rest = Vec::new();
    let _ = tcp.read_to_end(&mut rest).await;
}

async fn half_a_handshake(edge: &Edge) {
    let mut tcp = TcpStream::connect(edge.https).await.unwrap();
    // The record header of a ClientHello, and its first bytes.
    let start = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 7, 7, 7];
    tcp.write_all(&start).await.unwrap();
    let mut rest = Vec::new();
    let _ = tcp.read_to_end(&mut rest).await;
}

async fn dripped_header(edge: &Edge) {
    drip(&mut edge.connect().await, HALF).await;
}

async fn no_preface(edge: &Edge) {
    let mut client = frames::Connection::silent(edge.https, "localhost", &edge.ca).await;
    client.ended().await;
}

async fn half_a_preface(edge: &Edge) {
    let mut client = frames::Connection::silent(edge.https, "localhost", &edge.ca).await;
    client.send(&PREFACE[..20]).await.unwrap();
    client.ended().await;
}

async fn silent_in_clear(edge: &Edge) {
    Connection::plain(edge.http).await.unwrap().rest().await;
}

async fn dripped_in_clear(edge: &Edge) {
    let mut client = Connection::plain(edge.http).await.unwrap();
    drip(&mut client, HALF).await;
}

/// Is answered once, says nothing more.
async fn idle(mut client: Connection) {
    client.send(format!("{GET}\r\n").as_bytes()).await.unwrap();
    client.response(false).await.unwrap();
    client.rest().await;
}

async fn idle_h2(edge: &Edge) {
    let mut client = frames::Connection::open(edge.https, "localhost", &edge.ca).await;
    client.ended().await;
}

/// A header block that never ends.
async fn half_a_header_h2(edge: &Edge) {
    let mut client = frames::Connection::open(edge.https, "localhost", &edge.ca).await;
    let block = frames::block(&[(":method", "GET")]);
    client
        .send(&frame(HEADERS, END_STREAM, 1, &block))
        .await
        .unwrap();
    client.ended().await;
}

/// Asks again and again until told to stop.
async fn good_client(edge: &Edge, mut stop: tokio::sync::oneshot::Receiver<()>) -> usize {
    let mut client = edge.connect().await;
    let h2 = edge.connect_h2().await;
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    let mut served = 0;
    while stop.try_recv().is_err() {
        let over_h1 = within("h1", client.request("GET", "/open/good", &[], b"")).await;
        let over_h2 = within("h2", h2.request("GET", "/open/good", &[], b"")).await;
        assert_eq!(
            (over_h1.unwrap().status, over_h2.unwrap().status),
            (200, 200)
        );
        served += 2;
        pace.tick().await;
    }
    served
}

#[tokio::test]
async fn who_does_not_get_on_with_it_is_cut_and_good_clients_are_served_meanwhile() {
    let (_origin, edge) = served().await;
    let again = async {
        let mut client = edge.connect().await;
        client.request("GET", "/open/x", &[], b"").await.unwrap();
        let header = drip(&mut client, HALF);
        cut("a second header, dripped", HEADER, header).await;
    };
    let in_clear = async {
        let client = Connection::plain(edge.http).await.unwrap();
        cut("idle in clear", KEEPALIVE, idle(client)).await;
    };
    let idle_h1 = async {
        let client = edge.connect().await;
        cut("idle", KEEPALIVE, idle(client)).await;
    };
    let (done, stop) = tokio::sync::oneshot::channel();
    let attacks = async {
        join_all([
            cut("silent", HEADER, silent(&edge)).boxed_local(),
            cut("silent without TLS", HEADER, silent_without_tls(&edge)).boxed_local(),
            cut("half a handshake", HEADER, half_a_handshake(&edge)).boxed_local(),
            cut("a dripped header", HEADER, dripped_header(&edge)).boxed_local(),
            cut("no preface", HEADER, no_preface(&edge)).boxed_local(),
            cut("half a preface", HEADER, half_a_preface(&edge)).boxed_local(),
            cut("silent in clear", HEADER, silent_in_clear(&edge)).boxed_local(),
            cut("dripped in clear", HEADER, dripped_in_clear(&edge)).boxed_local(),
            cut("idle h2", KEEPALIVE, idle_h2(&edge)).boxed_local(),
            cut("half a header, h2", KEEPALIVE, half_a_header_h2(&edge)).boxed_local(),
            idle_h1.boxed_local(),
            in_clear.boxed_local(),
            again.boxed_local(),
        ])
        .await;
        done.send(()).unwrap();
    };
    let ((), served) = tokio::join!(attacks, good_client(&edge, stop));
    assert!(served > 10, "only {served} requests");
    let refused = |reason: &str| {
        format!(r#"maitred_connections_refused_total{{listener="https",reason="{reason}"}}"#)
    };
    assert!(edge.metric(&refused("header_timeout")).await >= 3.0);
    assert!(edge.metric(&refused("handshake_timeout")).await >= 2.0);
    until("only the admin connection is open", || async {
        (open_connections(&edge).await == 0.0).then_some(())
    })
    .await;
}

async fn open_connections(edge: &Edge) -> f64 {
    let https = edge
        .metric(r#"maitred_connections_open{listener="https"}"#)
        .await;
    https
        + edge
            .metric(r#"maitred_connections_open{listener="http"}"#)
            .await
}

/// Waits until the pool has nothing in flight and the origin nothing half-arrived.
async fn released(edge: &Edge, origin: &Origin) {
    until("the upstream is free again", || async {
        let in_flight =
            edge.admin_json("/health/detailed").await["upstreams"]["api"]["in_flight"].as_u64();
        (in_flight == Some(0) && origin.arriving() == 0 && origin.busy() == 0).then_some(())
    })
    .await;
}

const UPLOAD: &str = "POST /open/x HTTP/1.1\r\nHost: localhost\r\n";

async fn stalled_upload(mut client: Connection) {
    client
        .send(format!("{UPLOAD}Content-Length: 100\r\n\r\nabc").as_bytes())
        .await
        .unwrap();
    assert_eq!(client.response(false).await.unwrap().status, 408);
}

async fn dripped_upload(mut client: Connection) {
    client
        .send(format!("{UPLOAD}Transfer-Encoding: chunked\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut pace = tokio::time::interval(Duration::from_millis(40));
    let answer = loop {
        tokio::select! {
            answer = client.response(false) => break answer.unwrap(),
            _ = pace.tick() => {}
        }
        let _ = client.send(b"1\r\nx\r\n").await;
    };
    assert_eq!(answer.status, 408);
}

/// 408, or a reset where the answer comes too late for it.
async fn slow_upload_h2(edge: &Edge, drips: bool) {
    let client = edge.connect_h2().await;
    let (answer, mut body) = client.start("POST", "/open/x", &[], false).await.unwrap();
    body.send_data(Bytes::from_static(b"abc"), false).unwrap();
    tokio::pin!(answer);
    let mut pace = tokio::time::interval(Duration::from_millis(40));
    let answer = loop {
        tokio::select! {
            answer = &mut answer => break answer,
            _ = pace.tick(), if drips => {}
        }
        let _ = body.send_data(Bytes::from_static(b"x"), false);
    };
    match answer {
        Ok(answer) => assert_eq!(answer.status(), 408),
        Err(error) => assert!(error.is_reset(), "{error}"),
    }
}

#[tokio::test]
async fn a_slow_upload_is_cut_and_gives_the_upstream_back() {
    let (origin, edge) = served().await;
    let body = Duration::from_millis(1500);
    // On HTTP/2 Pingora has no timeout for a body that stands still; what ends it is the wait for the
    // answer, which begins with the request and is longer.
    let h2_stall = body + Duration::from_secs(3);
    tokio::join!(
        cut("stalled h1", body, stalled_upload(edge.connect().await)),
        cut("dripped h1", body, dripped_upload(edge.connect().await)),
        cut("dripped h2", body, slow_upload_h2(&edge, true)),
        cut("stalled h2", h2_stall, slow_upload_h2(&edge, false)),
    );
    released(&edge, &origin).await;
    assert!(
        origin.seen().is_empty(),
        "half a request was taken for a whole one"
    );
    let answer = edge
        .connect()
        .await
        .request("POST", "/open/x", &[], b"abc")
        .await;
    assert_eq!(answer.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_gives_the_upstream_back() {
    let (origin, edge) = served().await;
    let mut h1 = edge.connect().await;
    h1.send(GET.replace("/open/x", "/open/large/h1").as_bytes())
        .await
        .unwrap();
    h1.send(b"\r\n").await.unwrap();
    // A window of nothing: the frames of the response never fit.
    let mut h2 = frames::Connection::silent(edge.https, "localhost", &edge.ca).await;
    h2.send(PREFACE).await.unwrap();
    h2.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]))
        .await
        .unwrap();
    for (stream, path) in [(1, "/open/large/h2"), (3, "/nothing"), (5, "/open/x")] {
        let fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", path),
        ];
        h2.headers(stream, END_STREAM, &fields).await.unwrap();
    }
    until("both large answers began", || async {
        (origin.busy() >= 2).then_some(())
    })
    .await;
    let started = Instant::now();
    released(&edge, &origin).await;
    assert!(
        started.elapsed() < KEEPALIVE + MARGIN,
        "{:?}",
        started.elapsed()
    );
    until("no request is under way", || async {
        let detail = edge.admin_json("/health/detailed").await;
        (detail["requests_in_flight"] == 0).then_some(())
    })
    .await;
}
