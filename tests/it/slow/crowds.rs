//! Too many connections, and too much on one.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{open_connections, released, served};
use crate::harness::client::Connection;
use crate::harness::edge::{Edge, Setup};
use crate::harness::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, block,
    frame,
};
use crate::harness::keys::TokenIssuer;
use crate::harness::origin::{Origin, Script};
use crate::harness::{until, within};

async fn capped(cap: &str) -> (Origin, Edge) {
    let origin = Origin::start(TokenIssuer::new().jwks(), |_| Script::json("{}")).await;
    let edge = Edge::start(Setup {
        origins: vec![origin.address],
        extra: "",
        replace: vec![("connections_per_ip_max = 4096", cap)],
    })
    .await;
    (origin, edge)
}

/// A connection that is served, or nothing.
async fn served_one(edge: &Edge) -> Option<Connection> {
    let connect = Connection::secure(edge.https, "localhost", &edge.ca);
    let mut client = within("a connection or its end", connect).await.ok()?;
    let answer = client.request("GET", "/open/x", &[], b"").await.ok()?;
    (answer.status == 200).then_some(client)
}

async fn a_cap_of_three(cap: &str, reason: &str) {
    let (_origin, edge) = capped(cap).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(served_one(&edge).await.expect("below the cap"));
    }
    for _ in 0..5 {
        assert!(served_one(&edge).await.is_none(), "above the cap");
    }
    // Those that are in go on.
    for client in &mut open {
        let answer = client.request("GET", "/open/x", &[], b"").await;
        assert_eq!(answer.unwrap().status, 200);
    }
    let series =
        format!(r#"maitred_connections_refused_total{{listener="https",reason="{reason}"}}"#);
    assert!(edge.metric(&series).await >= 5.0);
    // The plain listener has a cap of its own.
    let health = Connection::plain(edge.http)
        .await
        .unwrap()
        .request("GET", "/healthz", &[], b"")
        .await;
    assert_eq!(health.unwrap().status, 200);
    open.pop();
    let again = until("a place is free again", || async {
        served_one(&edge).await
    })
    .await;
    open.push(again);
    drop(open);
    until("all places are free", || async {
        (open_connections(&edge).await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn connections_of_one_address_are_capped_and_places_come_back() {
    a_cap_of_three("connections_per_ip_max = 3", "per_ip_max").await;
}

#[tokio::test]
async fn all_connections_are_capped_and_places_come_back() {
    a_cap_of_three(
        "connections_per_ip_max = 3\nconnections_max = 3",
        "connections_max",
    )
    .await;
}

/// A place is taken from the first byte, so that handshakes that stand still are capped, too.
#[tokio::test]
async fn half_open_connections_count() {
    let (_origin, edge) = capped("connections_per_ip_max = 3").await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(Connection::plain(edge.https).await.unwrap());
    }
    until("they are counted", || async {
        (open_connections(&edge).await == 3.0).then_some(())
    })
    .await;
    assert!(served_one(&edge).await.is_none());
    // Their deadline frees the places although they stay.
    until("a place is free", || async { served_one(&edge).await }).await;
    drop(silent);
}

fn request(stream: u32, flags: u8) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/open/flood"),
    ];
    frame(HEADERS, flags, stream, &block(&fields))
}

/// Sends a flood and waits for the connection to be ended, or for the answer to a ping behind it all.
async fn flood(edge: &Edge, bytes: &[u8]) {
    let mut client = frames::Connection::open(edge.https, "localhost", &edge.ca).await;
    let _ = client.send(bytes).await;
    let _ = client.send(&frame(PING, 0, 0, b"the last")).await;
    let over = async {
        while let Some(frame) = client.next().await {
            if frame.kind == PING && frame.payload == b"the last" {
                return;
            }
        }
    };
    within("the flood is over", over).await;
}

fn floods() -> Vec<(&'static str, Vec<u8>)> {
    let odd = |count: u32| (0..count).map(|at| 2 * at + 1);
    let resets = odd(2000).flat_map(|stream| {
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        [request(stream, END_HEADERS), reset].concat()
    });
    let whole = odd(2000).flat_map(|stream| request(stream, END_HEADERS | END_STREAM));
    let continued = (0..5000).flat_map(|_| frame(CONTINUATION, 0, 1, &block(&[("x-a", "b")])));
    let settings = (0..5000).flat_map(|_| frame(SETTINGS, 0, 0, &[]));
    let pings = (0..5000).flat_map(|_| frame(PING, 0, 0, b"12345678"));
    let empty = (0..5000).flat_map(|_| frame(DATA, 0, 1, b""));
    vec![
        ("rapid resets", resets.collect()),
        ("more streams than allowed", whole.collect()),
        (
            "a header that goes on and on",
            request(1, 0).into_iter().chain(continued).collect(),
        ),
        ("settings", settings.collect()),
        ("pings", pings.collect()),
        (
            "empty data",
            request(1, END_HEADERS).into_iter().chain(empty).collect(),
        ),
    ]
}

#[tokio::test]
async fn floods_on_http2_end_their_connection_and_nothing_else() {
    let (origin, mut edge) = served().await;
    for (name, bytes) in floods() {
        let mut crowd = JoinSet::new();
        let edge_ref = &edge;
        let floods = async {
            tokio::join!(
                flood(edge_ref, &bytes),
                flood(edge_ref, &bytes),
                flood(edge_ref, &bytes)
            );
        };
        let mut good = edge.connect().await;
        crowd.spawn(async move {
            let mut served = 0;
            for _ in 0..20 {
                let answer = good.request("GET", "/open/good", &[], b"").await.unwrap();
                served += usize::from(answer.status == 200);
            }
            served
        });
        floods.await;
        assert_eq!(within(name, crowd.join_all()).await, [20], "{name}");
        assert!(edge.is_running(), "{name}");
    }
    released(&edge, &origin).await;
    until("no request is under way", || async {
        let detail = edge.admin_json("/health/detailed").await;
        (detail["requests_in_flight"] == 0).then_some(())
    })
    .await;
    until("no connection is left", || async {
        (open_connections(&edge).await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_thousand_connections_that_say_nothing_leave_room_for_one_that_does() {
    let (_origin, edge) = served().await;
    let mut silent = JoinSet::new();
    for _ in 0..1000 {
        let address = edge.https;
        silent.spawn(async move { Connection::plain(address).await });
    }
    let silent = within("they connect", silent.join_all()).await;
    let started = std::time::Instant::now();
    assert!(served_one(&edge).await.is_some());
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    drop(silent);
    until("they are gone", || async {
        (open_connections(&edge).await == 0.0).then_some(())
    })
    .await;
}
