//! Bodies of every size, encoding, framing and speed.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{pair, status};
use crate::harness::client::Connection;
use crate::harness::edge::Edge;
use crate::harness::hook::{EXAMPLE, Event, PATH};
use crate::harness::within;

const MIB: usize = 1024 * 1024;
/// The lane's deadline in the template, and what a busy machine may add.
const BODY_TIMEOUT: Duration = Duration::from_millis(1500);
const MARGIN: Duration = Duration::from_millis(2500);

#[tokio::test]
async fn any_body_up_to_one_mebibyte_arrives_as_it_was_sent() {
    let (origin, edge) = pair("").await;
    let mut not_text: Vec<u8> = (0..=255).collect();
    not_text.extend_from_slice(b"\r\n\0\xef\xbb\xbf\xff\xfe\r\n");
    let mut bodies = vec![Vec::new(), vec![b'{'], not_text];
    for length in [65_535, 65_536, 65_537, MIB - 1, MIB] {
        bodies.push((0..length).map(|at| (at % 251) as u8).collect());
    }
    let mut client = edge.connect().await;
    let h2 = edge.connect_h2().await;
    for mut body in bodies {
        let event = Event::of(&body);
        let answer = within("h1", event.post(&mut client)).await.unwrap();
        assert_eq!(answer.status, 200, "{} over h1", body.len());
        let seen = origin.seen().pop().unwrap();
        assert!(seen.body == body, "{} bytes arrived changed", body.len());
        assert_eq!(
            seen.header("content-length"),
            Some(body.len().to_string().as_str())
        );

        let last = body.len().saturating_sub(1);
        if body.is_empty() {
            continue;
        }
        body[last] ^= 0x40;
        let event = Event::of(&body);
        let answer = within("h2", event.post_h2(&h2)).await.unwrap();
        assert_eq!(answer.status, 200, "{} over h2", body.len());
        assert!(origin.seen().pop().unwrap().body == body);
    }
}

#[tokio::test]
async fn chunks_are_put_together_and_sent_on_with_one_length() {
    let (origin, edge) = pair("").await;
    let mut client = edge.connect().await;
    for (at, size) in [1, 7, 4096].into_iter().enumerate() {
        let event = Event::named(&format!("evt_chunks_{at}"));
        client
            .send(&event.head("Transfer-Encoding: chunked\r\n"))
            .await
            .unwrap();
        client.send(&event.chunked(size)).await.unwrap();
        assert_eq!(
            within("an answer", client.response(false))
                .await
                .unwrap()
                .status,
            200
        );
        let seen = origin.seen().pop().unwrap();
        assert_eq!(seen.body, event.body);
        assert_eq!(seen.header("transfer-encoding"), None);
    }
}

async fn post_chunked(edge: &Edge, event: &Event, piece: usize) -> u16 {
    let mut client = edge.connect().await;
    client
        .send(&event.head("Transfer-Encoding: chunked\r\n"))
        .await
        .unwrap();
    // The edge answers in the middle of it.
    let _ = client.send(&event.chunked(piece)).await;
    within("413", client.response(false)).await.unwrap().status
}

async fn post_h2(edge: &Edge, event: &Event, declared: bool) -> u16 {
    let client = edge.connect_h2().await;
    let length = event.body.len().to_string();
    let mut event = event.clone();
    if declared {
        event = event.with("content-length", &length);
    }
    within("413", event.post_h2(&client)).await.unwrap().status
}

#[tokio::test]
async fn one_byte_too_many_is_413_and_the_client_sees_it_ten_times_in_a_row() {
    let (origin, edge) = pair("").await;
    let one_more = Event::sized(MIB + 1);
    let far_more = Event::sized(3 * MIB);
    for round in 0..5 {
        for event in [&one_more, &far_more] {
            assert_eq!(status(&edge, event).await, 413, "declared, h1, {round}");
            assert_eq!(
                post_chunked(&edge, event, 16 * 1024).await,
                413,
                "chunked, h1, {round}"
            );
            assert_eq!(
                post_h2(&edge, event, true).await,
                413,
                "declared, h2, {round}"
            );
            assert_eq!(
                post_h2(&edge, event, false).await,
                413,
                "undeclared, h2, {round}"
            );
        }
    }
    assert_eq!(origin.byte_count(), 0);
}

#[tokio::test]
async fn a_declared_length_is_refused_before_a_byte_of_it() {
    let (origin, edge) = pair("").await;
    let mut client = edge.connect().await;
    for length in ["1048577", "99999999999", "18446744073709551615"] {
        let head = Event::of(EXAMPLE).head(&format!("Content-Length: {length}\r\n"));
        client.send(&head).await.unwrap();
        let answer = within("413", client.response(false)).await.unwrap();
        assert_eq!(answer.status, 413, "{length}");
        client = edge.connect().await;
    }
    assert_eq!(origin.byte_count(), 0);
}

#[tokio::test]
async fn expect_continue_is_answered_where_the_body_is_wanted_and_only_there() {
    let (origin, edge) = pair("").await;
    let event = Event::of(EXAMPLE);
    let mut client = edge.connect().await;
    let framing = format!(
        "Expect: 100-continue\r\nContent-Length: {}\r\n",
        EXAMPLE.len()
    );
    client.send(&event.head(&framing)).await.unwrap();
    let interim = within("100", client.head()).await.unwrap();
    assert_eq!(interim.status, 100);
    assert_eq!(origin.byte_count(), 0);
    client.send(EXAMPLE).await.unwrap();
    assert_eq!(within("200", client.head()).await.unwrap().status, 200);

    for framing in [
        "Expect: 100-continue\r\nContent-Length: 1048577\r\n",
        "Expect: 200-ok\r\nContent-Length: 58\r\n",
    ] {
        let mut client = edge.connect().await;
        client.send(&event.head(framing)).await.unwrap();
        let first = within("the refusal", client.head()).await.unwrap();
        assert!(
            matches!(first.status, 413 | 400),
            "{} after {framing}",
            first.status
        );
    }
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn an_encoded_body_is_415_though_its_signature_is_good() {
    let (origin, edge) = pair("").await;
    for encoding in ["gzip", "br", "deflate, gzip", "identity, gzip", "x"] {
        let event = Event::of(EXAMPLE).with("content-encoding", encoding);
        assert_eq!(status(&edge, &event).await, 415, "{encoding}");
    }
    assert_eq!(origin.byte_count(), 0);
    let plain = Event::of(EXAMPLE).with("content-encoding", "identity");
    assert_eq!(status(&edge, &plain).await, 200);
}

fn in_time(started: Instant, what: &str) {
    let took = started.elapsed();
    assert!(
        took >= BODY_TIMEOUT - Duration::from_millis(100),
        "{what} cut after {took:?}"
    );
    assert!(
        took < BODY_TIMEOUT + MARGIN,
        "{what} cut only after {took:?}"
    );
}

async fn stalled(mut client: Connection, event: &Event) {
    let started = Instant::now();
    client
        .send(&event.head("Content-Length: 58\r\n"))
        .await
        .unwrap();
    client.send(&event.body[..20]).await.unwrap();
    assert_eq!(
        within("408", client.response(false)).await.unwrap().status,
        408
    );
    in_time(started, "stalled h1");
}

/// One byte at a time, faster than any timeout between reads.
async fn dripping(mut client: Connection, event: &Event) {
    let started = Instant::now();
    client
        .send(&event.head("Transfer-Encoding: chunked\r\n"))
        .await
        .unwrap();
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let answer = loop {
        tokio::select! {
            answer = client.response(false) => break answer.unwrap(),
            _ = pace.tick() => {}
        }
        let _ = client.send(b"1\r\nx\r\n").await;
    };
    assert_eq!(answer.status, 408);
    in_time(started, "dripping h1");
}

async fn slow_h2(edge: &Edge, event: &Event, drips: bool) {
    let client = edge.connect_h2().await;
    let started = Instant::now();
    let (answer, mut body) = client
        .start("POST", PATH, &event.headers(), false)
        .await
        .unwrap();
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    tokio::pin!(answer);
    let answer = loop {
        tokio::select! {
            answer = &mut answer => break answer.unwrap(),
            _ = pace.tick(), if drips => {}
        }
        let _ = body.send_data(Bytes::from_static(b"x"), false);
    };
    assert_eq!(answer.status(), 408);
    in_time(started, "h2");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408_within_the_deadline() {
    let (origin, edge) = pair("").await;
    let event = Event::of(EXAMPLE);
    tokio::join!(
        stalled(edge.connect().await, &event),
        dripping(edge.connect().await, &event),
        slow_h2(&edge, &event, false),
        slow_h2(&edge, &event, true),
    );
    assert_eq!(origin.byte_count(), 0);
    // None of it was taken for the event.
    assert_eq!(status(&edge, &event).await, 200);
}

#[tokio::test]
async fn half_a_body_is_not_an_event() {
    let (origin, edge) = pair("").await;
    let event = Event::of(EXAMPLE);
    for framing in ["Content-Length: 58\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = edge.connect().await;
        client.send(&event.head(framing)).await.unwrap();
        let part: &[u8] = if framing.starts_with('C') {
            &EXAMPLE[..57]
        } else {
            b"39\r\n"
        };
        client.send(part).await.unwrap();
        drop(client);
    }
    let client = edge.connect_h2().await;
    let (_, mut body) = client
        .start("POST", PATH, &event.headers(), false)
        .await
        .unwrap();
    body.send_data(Bytes::from_static(&EXAMPLE[..57]), false)
        .unwrap();
    body.send_reset(h2::Reason::CANCEL);
    // Whatever became of those, the event itself still counts as new.
    assert_eq!(status(&edge, &event).await, 200);
    assert_eq!(origin.seen().len(), 1);
}
