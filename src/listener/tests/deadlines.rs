//! Clients that are slow on purpose, and those that only look like it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::{
    PATIENCE, Running, SHORT_MS, Scratch, ended, handshake, policy, request, response, start,
    within,
};
use crate::listener::event::Refusal;

/// Long enough that a budget of `SHORT_MS` has run out.
const PAUSE: Duration = Duration::from_millis(SHORT_MS * 2);

fn impatient() -> Running {
    let mut policy = policy();
    policy.header_timeout_ms = SHORT_MS;
    start(policy, None)
}

/// Sends one byte after the other until the other side has had enough.
async fn drip<S: AsyncWrite + Unpin>(stream: &mut S, text: &[u8]) -> io::Error {
    let start = Instant::now();
    for byte in text.iter().cycle() {
        assert!(start.elapsed() < PATIENCE, "never cut");
        if let Err(error) = stream.write_all(&[*byte]).await {
            return error;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("cycles for ever")
}

#[tokio::test]
async fn a_silent_client_is_cut_and_counted() {
    let edge = impatient();
    let start = Instant::now();
    assert!(ended(&mut edge.connect().await).await.is_empty());
    assert!(start.elapsed() >= Duration::from_millis(SHORT_MS - 10));
    edge.refused(Refusal::HeaderTimeout).await;
    edge.is_empty_again().await;
}

#[tokio::test]
async fn a_dripping_client_is_cut_whatever_it_drips() {
    let edge = impatient();
    let mut stream = edge.connect().await;
    drip(&mut stream, b"GET / HTTP/1.1\r\nx-a: b").await;
    edge.refused(Refusal::HeaderTimeout).await;

    // The second header on a connection has the same deadline as the first.
    let mut stream = edge.connect().await;
    request(&mut stream).await;
    drip(&mut stream, b"GET / HTTP/1.1\r\nx-a: b").await;
    drop(stream);
    edge.is_empty_again().await;
    assert_eq!(edge.refusals(), 2);
}

#[tokio::test]
async fn a_header_without_end_is_cut_by_its_size() {
    let edge = start(policy(), None);
    let mut stream = edge.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let line = [b"x-filler: ", &[b'x'; 4000][..], b"\r\n"].concat();
    for _ in 0..100 {
        if stream.write_all(&line).await.is_err() {
            break;
        }
    }
    edge.refused(Refusal::HeaderBytes).await;
    ended(&mut stream).await;
    edge.is_empty_again().await;
}

#[tokio::test]
async fn a_good_client_may_think_between_requests_and_within_a_body() {
    let edge = impatient();
    let mut stream = edge.connect().await;
    request(&mut stream).await;
    tokio::time::sleep(PAUSE).await;
    request(&mut stream).await;

    let head = b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\n";
    stream.write_all(head).await.unwrap();
    tokio::time::sleep(PAUSE).await;
    stream.write_all(b"body").await.unwrap();
    assert!(response(&mut stream).await.contains("received=4"));
    assert_eq!(edge.refusals(), 0);
}

#[tokio::test]
async fn an_idle_connection_ends_with_its_budget_and_nobody_is_blamed() {
    let mut policy = policy();
    policy.keepalive_timeout_ms = SHORT_MS;
    let edge = start(policy, None);
    let mut stream = edge.connect().await;
    request(&mut stream).await;
    assert!(ended(&mut stream).await.is_empty());
    assert_eq!(edge.refusals(), 0);
    edge.is_empty_again().await;
}

#[tokio::test]
async fn http2_without_its_preface_is_cut() {
    let scratch = Scratch::new();
    let mut policy = policy();
    policy.header_timeout_ms = SHORT_MS;
    let edge = start(policy, Some(&scratch.certificate("a", &[])));
    let client = Arc::new(scratch.client(&["a"], &["h2"]));
    for part in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
        let tcp = edge.connect().await;
        let mut stream = handshake(&client, tcp, "localhost").await.unwrap();
        stream.write_all(part).await.unwrap();
        // The server's SETTINGS may come before the end.
        ended(&mut stream).await;
    }
    edge.refused(Refusal::HeaderTimeout).await;
    assert_eq!(edge.refusals(), 2);
    edge.is_empty_again().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_cut() {
    let scratch = Scratch::new();
    let mut policy = policy();
    policy.handshake_timeout_ms = SHORT_MS;
    policy.proxy_protocol_from = vec!["127.0.0.1/32".parse().unwrap()];
    let edge = start(policy, Some(&scratch.certificate("a", &[])));
    // Nothing; a PROXY header that stops; a good one and then no TLS: one deadline for all.
    for part in [
        &b""[..],
        b"PROXY TCP4 203.0.",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 443\r\n\x16\x03\x01",
    ] {
        let mut stream = edge.connect().await;
        stream.write_all(part).await.unwrap();
        assert!(ended(&mut stream).await.is_empty());
    }
    edge.refused(Refusal::HandshakeTimeout).await;
    assert_eq!(edge.refusals(), 3);
    edge.is_empty_again().await;
}

#[tokio::test]
async fn a_client_in_the_middle_of_an_upload_sees_the_answer() {
    let edge = start(policy(), None);
    let mut stream = edge.connect().await;
    // Ambiguous, so answered with 400 and closed at once; but this client sends first and reads
    // afterwards, and a reset would end it before it sees why.
    let head = b"POST / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n";
    stream.write_all(head).await.unwrap();
    within(stream.peek(&mut [0])).await.unwrap();
    for _ in 0..20 {
        stream.write_all(&[b'x'; 10_000]).await.unwrap();
    }
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    drop(stream);
    edge.is_empty_again().await;
}
