//! Nobody takes more than a share of the admin listener: bodies, slow clients, watchers, exports.

use bytes::Bytes;
use maitred::webhook::inbox::{Event, Standing};
use serde_json::json;

use super::{Window, event};
use crate::harness::client::Connection;
use crate::harness::{until, within};

#[tokio::test]
async fn a_body_too_large_or_too_slow_is_refused() {
    let window = Window::open().await;
    window.append(event("billing", "evt_1")).await;
    let large = vec![b' '; 512 * 1024 + 1];
    let json = ("Content-Type", "application/json");
    let response = window.ask("POST", "/inbox/discard", &[json], &large).await;
    assert_eq!(response.status, 413);
    let head =
        "POST /inbox/discard HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    // Not said beforehand how large.
    let mut connection = window.connect().await;
    connection
        .send(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes())
        .await
        .unwrap();
    for _ in 0..9 {
        let piece = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        // The answer may come, and the connection end, before all of it is sent.
        let _ = connection.send(piece.as_bytes()).await;
    }
    let response = within("413", connection.response(false)).await.unwrap();
    assert_eq!(response.status, 413);
    let mut connection = window.connect().await;
    connection
        .send(format!("{head}Content-Length: 20\r\n\r\n{{").as_bytes())
        .await
        .unwrap();
    let response = within("408", connection.response(false)).await.unwrap();
    assert_eq!(response.status, 408);
    assert_eq!(window.entries(Standing::Pending).await, 1);
}

#[tokio::test]
async fn a_header_that_does_not_end_is_cut() {
    let window = Window::open().await;
    let mut connection = window.connect().await;
    connection
        .send(b"GET /inbox HTTP/1.1\r\nHost:")
        .await
        .unwrap();
    let rest = within("the end of the connection", connection.rest()).await;
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
}

async fn watch(window: &Window) -> (Connection, u16) {
    let mut connection = window.connect().await;
    let request = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    connection.send(request).await.unwrap();
    let head = within("the head of the stream", connection.head())
        .await
        .unwrap();
    (connection, head.status)
}

#[tokio::test]
async fn watchers_see_changes_and_are_limited_and_give_their_places_back() {
    let window = Window::open().await;
    let mut watchers = Vec::new();
    for _ in 0..16 {
        let (connection, status) = watch(&window).await;
        assert_eq!(status, 200);
        watchers.push(connection);
    }
    assert_eq!(watch(&window).await.1, 503);
    // The rest goes on.
    assert_eq!(window.get("/inbox").await.status, 200);
    window.append(event("billing", "evt_live")).await;
    for watcher in &mut watchers {
        let seen = watcher.chunks_until(|text| text.contains("evt_live"));
        let text = within("the change", seen).await.unwrap();
        assert!(text.contains("event: change\ndata: {"), "{text}");
    }
    watchers.pop();
    until("a place is free", || async {
        (watch(&window).await.1 == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn exports_that_nobody_reads_hold_two_places_and_not_the_listener() {
    let window = Window::open().await;
    for n in 0..12 {
        let large = Event {
            body: Bytes::from(vec![b'x'; 1 << 20]),
            ..event("billing", &format!("evt_{n}"))
        };
        window.append(large).await;
    }
    let mut readers = Vec::new();
    for _ in 0..2 {
        let mut connection = window.connect().await;
        let request = b"GET /inbox/export HTTP/1.1\r\nHost: localhost\r\n\r\n";
        connection.send(request).await.unwrap();
        let head = within("the head", connection.head()).await.unwrap();
        assert_eq!(head.status, 200);
        readers.push(connection);
    }
    let third = window.get("/inbox/export").await;
    assert_eq!(
        (third.status, third.header("retry-after")),
        (503, Some("5"))
    );
    assert_eq!(window.json("/inbox").await["pending"]["entries"], json!(12));
    drop(readers);
    until("a place is free", || async {
        (window.get("/inbox/export?endpoint=none").await.status == 200).then_some(())
    })
    .await;
}
