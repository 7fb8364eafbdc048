//! Attempts that fail: which are repeated, and what the client sees of those that are not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{NO_BREAKER, NO_HEALTH, QUICK_RETRIES, edge, origin, refusal};
use crate::harness::edge::{Edge, Setup};
use crate::harness::either::{BOTH, Client, Speaks};
use crate::harness::keys::TokenIssuer;
use crate::harness::origin::{Origin, Script};
use crate::harness::until;

/// Enough tries that a pool of two has picked each of them.
const TRIES: usize = 64;

fn reset() -> Script {
    Script::RawThenReset(Vec::new())
}

/// An address that nobody listens on.
async fn dead() -> Origin {
    origin(|_| Script::status(200)).await
}

#[tokio::test]
async fn nobody_there_is_502_and_says_so() {
    let gone = dead().await;
    let edge = edge(&[&gone], "").await;
    drop(gone);
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let answer = client.get("/open/x", &[]).await;
        assert_eq!((answer.status, &*refusal(&answer)), (502, "bad-gateway"));
        if speaks == Speaks::Http1 {
            assert_eq!(answer.header("connection"), Some("close"));
        }
        let mut client = Client::open(&edge, speaks).await;
        let answer = client.request("POST", "/open/x", &[], b"x").await.unwrap();
        assert_eq!((answer.status, &*refusal(&answer)), (502, "bad-gateway"));
        assert!(!answer.text().contains("127.0.0.1"), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_get_that_was_reset_is_answered_by_the_other_endpoint() {
    let bad = origin(|_| reset()).await;
    let good = origin(|_| Script::json("\"good\"")).await;
    let edge = edge(&[&bad, &good], QUICK_RETRIES).await;
    let mut client = edge.connect().await;
    for _ in 0..TRIES {
        let answer = client.request("GET", "/open/x", &[], b"").await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "\"good\""));
        if !bad.seen().is_empty() {
            break;
        }
    }
    assert_eq!(bad.seen().len(), 1);
    until("the access line", || async {
        edge.log().contains("\"upstream.attempts\":2").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_post_that_may_have_arrived_is_never_sent_twice() {
    let bad = origin(|_| reset()).await;
    let good = origin(|_| Script::json("{}")).await;
    let edge = edge(&[&bad, &good], QUICK_RETRIES).await;
    let mut refused = None;
    for n in 0..TRIES {
        let mut client = edge.connect().await;
        let body = format!("order {n}");
        let answer = client
            .request("POST", "/open/x", &[], body.as_bytes())
            .await
            .unwrap();
        if answer.status != 200 {
            refused = Some((answer, body));
            break;
        }
    }
    let (answer, body) = refused.expect("one of the two endpoints resets");
    assert_eq!((answer.status, &*refusal(&answer)), (502, "bad-gateway"));
    let count = |o: &Origin| {
        o.seen()
            .iter()
            .filter(|s| s.body == body.as_bytes())
            .count()
    };
    assert_eq!((count(&bad), count(&good)), (1, 0));
}

#[tokio::test]
async fn a_post_that_never_left_is_sent_elsewhere() {
    let gone = dead().await;
    let good = origin(|_| Script::json("{}")).await;
    let retries = format!("{QUICK_RETRIES}budget_percent = 100\n");
    let edge = edge(&[&gone, &good], &retries).await;
    drop(gone);
    let mut client = edge.connect().await;
    let mut sent = 0;
    while sent < TRIES
        && edge
            .metric("maitred_upstream_retries_total{pool=\"api\"}")
            .await
            == 0.0
    {
        let body = format!("order {sent}");
        let answer = client
            .request("POST", "/open/x", &[], body.as_bytes())
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
        sent += 1;
    }
    assert!(sent < TRIES, "the dead endpoint was never picked");
    let bodies: Vec<Vec<u8>> = good.seen().into_iter().map(|s| s.body).collect();
    let wanted: Vec<Vec<u8>> = (0..sent)
        .map(|n| format!("order {n}").into_bytes())
        .collect();
    assert_eq!(bodies, wanted);
}

/// Responses that end before their framing says so.
const CUT: [(&str, &str); 4] = [
    (
        "length",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npartial",
    ),
    (
        "chunked",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\npartial\r\n",
    ),
    (
        "inside a chunk",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n40\r\npartial",
    ),
    (
        "no body at all",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n",
    ),
];

#[tokio::test]
async fn half_a_response_never_looks_whole() {
    let origin = origin(|seen| {
        let index: usize = seen.target[6..7].parse().unwrap();
        let bytes = CUT[index].1.as_bytes().to_vec();
        if seen.target.ends_with("reset") {
            Script::RawThenReset(bytes)
        } else {
            Script::Raw(bytes)
        }
    })
    .await;
    let edge = edge(&[&origin], NO_BREAKER).await;
    for (index, (name, _)) in CUT.iter().enumerate() {
        for end in ["reset", "close"] {
            for speaks in BOTH {
                let mut client = Client::open(&edge, speaks).await;
                let target = format!("/open/{index}/{end}");
                let outcome = client.request("GET", &target, &[], b"").await;
                // Cut before the first byte of the body it may still become an honest 502.
                let honest = outcome.as_ref().map_or(true, |answer| answer.status == 502);
                assert!(honest, "{name}, {end}, {speaks:?}: {outcome:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_whole() {
    let origin = origin(|_| Script::Raw(b"HTTP/1.1 200 OK\r\n\r\nwhole".to_vec())).await;
    let edge = edge(&[&origin], "").await;
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let answer = client.get("/open/x", &[]).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "whole"));
    }
}

#[tokio::test]
async fn nonsense_from_upstream_is_502() {
    let origin = origin(|_| Script::Raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec())).await;
    let edge = edge(&[&origin], NO_BREAKER).await;
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let answer = client.request("POST", "/open/x", &[], b"x").await.unwrap();
        assert_eq!((answer.status, &*refusal(&answer)), (502, "bad-gateway"));
        assert!(!answer.text().contains("SSH"));
    }
}

#[tokio::test]
async fn a_slow_upstream_is_504_within_the_time_it_had() {
    const FIRST_BYTE: Duration = Duration::from_millis(700);
    let origin = Origin::start(TokenIssuer::new().jwks(), |_| Script::Hang).await;
    let edge = Edge::start(Setup {
        origins: vec![origin.address],
        extra: NO_BREAKER,
        replace: vec![
            NO_HEALTH,
            (
                "first_byte_timeout_ms = 3000",
                "first_byte_timeout_ms = 700",
            ),
        ],
    })
    .await;
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let before = origin.seen().len();
        let started = Instant::now();
        let answer = client.get("/open/slow", &[]).await;
        let took = started.elapsed();
        assert_eq!(
            (answer.status, &*refusal(&answer)),
            (504, "gateway-timeout")
        );
        assert!(took >= FIRST_BYTE, "{took:?}");
        // Asking a slow service again makes nobody faster.
        assert_eq!(origin.seen().len(), before + 1, "{speaks:?}");
        assert!(took < 2 * FIRST_BYTE, "{took:?}");
    }
    let mut client = Client::open(&edge, Speaks::Http1).await;
    let answer = client
        .request("POST", "/open/slow", &[], b"x")
        .await
        .unwrap();
    assert_eq!(
        (answer.status, &*refusal(&answer)),
        (504, "gateway-timeout")
    );
    until("the edge lets go of the upstream", || async {
        (origin.busy() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_body_that_stops_coming_is_broken_off() {
    let origin = Origin::start(TokenIssuer::new().jwks(), |_| {
        let (events, stream) = tokio::sync::mpsc::unbounded_channel();
        events.send(b"first".to_vec()).unwrap();
        // The stream goes quiet and stays open.
        std::mem::forget(events);
        Script::Stream(stream)
    })
    .await;
    let edge = Edge::start(Setup {
        origins: vec![origin.address],
        extra: "",
        replace: vec![(
            "first_byte_timeout_ms = 3000",
            "first_byte_timeout_ms = 500",
        )],
    })
    .await;
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let outcome = client.request("GET", "/open/x", &[], b"").await;
        assert!(outcome.is_err(), "{speaks:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn retries_stay_within_their_budget() {
    const REQUESTS: usize = 30;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let origin = origin(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        reset()
    })
    .await;
    let extra = format!("{NO_BREAKER}{QUICK_RETRIES}budget_percent = 10\n");
    let edge = edge(&[&origin], &extra).await;
    let mut client = edge.connect_h2().await;
    for _ in 0..REQUESTS {
        let answer = client.request("GET", "/open/x", &[], b"").await.unwrap();
        assert_eq!(answer.status, 502);
        client = client.clone();
    }
    let attempts = count.load(Ordering::Relaxed);
    // Three are always free in ten seconds; a busy machine may see a second window begin.
    let most = REQUESTS + 2 * 3;
    assert!((REQUESTS + 1..=most).contains(&attempts), "{attempts}");
}
