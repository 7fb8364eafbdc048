//! Bodies both ways: large ones, refused ones, and responses that have none.

use super::{edge, origin, refusal};
use crate::harness::client::Connection;
use crate::harness::edge::Edge;
use crate::harness::either::{BOTH, Client, Speaks};
use crate::harness::origin::Script;
use crate::harness::within;

const LARGE: usize = 5 * 1024 * 1024;
/// A route that takes 8 MiB.
const UPLOADS: &str = r#"
[[routes]]
path = "/big/{*rest}"
methods = []
auth = "public"
limits = []
upstream = "api"
body_bytes_max = 8388608
body_timeout_ms = 60000
"#;

/// Bytes in which nothing repeats soon, so that a lost or doubled part shows.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

#[tokio::test]
async fn five_mebibytes_go_up_unchanged() {
    let origin = origin(|_| Script::json("{}")).await;
    let edge = edge(&[&origin], UPLOADS).await;
    let body = pattern(LARGE);
    for (n, speaks) in BOTH.into_iter().enumerate() {
        let mut client = Client::open(&edge, speaks).await;
        let answer = client.request("POST", "/big/up", &[], &body).await.unwrap();
        assert_eq!(answer.status, 200, "{speaks:?} {}", answer.text());
        assert!(
            origin.seen()[n].body == body,
            "{speaks:?}: the bytes differ"
        );
    }
}

#[tokio::test]
async fn a_chunked_upload_goes_up_unchanged() {
    let origin = origin(|_| Script::json("{}")).await;
    let edge = edge(&[&origin], UPLOADS).await;
    let body = pattern(300_000);
    let mut client = edge.connect().await;
    client
        .send(&chunked("PUT", "/big/up", &body))
        .await
        .unwrap();
    assert_eq!(client.response(false).await.unwrap().status, 200);
    assert!(origin.seen()[0].body == body);
}

fn chunked(method: &str, target: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let mut bytes = head.into_bytes();
    for part in body.chunks(7_001) {
        bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

#[tokio::test]
async fn five_mebibytes_come_down_unchanged() {
    let body = pattern(LARGE);
    let sent = body.clone();
    let origin = origin(move |_| Script::Answer {
        status: 200,
        headers: vec![],
        body: sent.clone(),
    })
    .await;
    let edge = edge(&[&origin], "").await;
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let answer = client.get("/open/down", &[]).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{speaks:?}: the bytes differ");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_on_either_protocol() {
    const OVER: usize = 1024 * 1024 + 1;
    let origin = origin(|_| Script::json("{}")).await;
    let edge = edge(&[&origin], "").await;
    let body = pattern(OVER);

    let mut declared = edge.connect().await;
    let answer = declared
        .request("POST", "/open/x", &[], &body)
        .await
        .unwrap();
    assert_eq!(
        (answer.status, &*refusal(&answer)),
        (413, "payload-too-large")
    );
    assert_eq!(
        origin.byte_count(),
        0,
        "a declared length is refused at once"
    );

    let mut streamed = edge.connect().await;
    let _ = streamed.send(&chunked("POST", "/open/x", &body)).await;
    let answer = within("413", streamed.response(false)).await.unwrap();
    assert_eq!(
        (answer.status, &*refusal(&answer)),
        (413, "payload-too-large")
    );

    let mut h2 = Client::open(&edge, Speaks::Http2).await;
    let answer = h2.request("POST", "/open/x", &[], &body).await.unwrap();
    assert_eq!(
        (answer.status, &*refusal(&answer)),
        (413, "payload-too-large")
    );
    let length = OVER.to_string();
    let declared = [("content-length", &*length)];
    let answer = h2
        .request("POST", "/open/x", &declared, &body)
        .await
        .unwrap();
    assert_eq!(answer.status, 413);
    // The connection carries on, and no request became whole at the origin.
    assert_eq!(h2.get("/open/after", &[]).await.status, 200);
    let targets: Vec<String> = origin.seen().into_iter().map(|s| s.target).collect();
    assert_eq!(targets, ["/open/after"]);
}

#[tokio::test]
async fn exactly_the_limit_passes() {
    let origin = origin(|_| Script::json("{}")).await;
    let edge = edge(&[&origin], "").await;
    let body = pattern(1024 * 1024);
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let answer = client.request("PUT", "/open/x", &[], &body).await.unwrap();
        assert_eq!(answer.status, 200, "{speaks:?}");
    }
    assert!(origin.seen().iter().all(|seen| seen.body == body));
}

#[tokio::test]
async fn a_body_that_drips_is_408_and_the_service_is_not_blamed() {
    let origin = origin(|_| Script::json("{}")).await;
    let edge = Edge::before(&origin).await;
    let mut client = edge.connect().await;
    let head = "POST /open/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nten bytes.";
    client.send(head.as_bytes()).await.unwrap();
    let answer = within("408", client.response(false)).await.unwrap();
    assert_eq!(
        (answer.status, &*refusal(&answer)),
        (408, "request-timeout")
    );

    let h2 = edge.connect_h2().await;
    let (answer, mut body) = h2.start("POST", "/open/x", &[], false).await.unwrap();
    body.send_data(bytes::Bytes::from_static(b"ten bytes."), false)
        .unwrap();
    let answer = within("408", answer).await.unwrap();
    assert_eq!(answer.status(), 408);
    assert!(origin.seen().is_empty());
    let series = "maitred_upstream_requests_total{outcome=\"failure\",pool=\"api\"}";
    assert_eq!(edge.metric(series).await, 0.0);
}

#[tokio::test]
async fn responses_without_a_body_leave_the_connection_usable() {
    let origin = origin(|seen| match (seen.method.as_str(), seen.target.as_str()) {
        ("HEAD", _) => Script::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n".to_vec()),
        (_, "/open/none") => Script::Raw(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        (_, "/open/same") => {
            Script::Raw(b"HTTP/1.1 304 Not Modified\r\netag: \"v1\"\r\n\r\n".to_vec())
        }
        _ => Script::json("{}"),
    })
    .await;
    let edge = edge(&[&origin], "").await;
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let head = client.request("HEAD", "/open/x", &[], b"").await.unwrap();
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, Some("1234"))
        );
        assert!(head.body.is_empty());
        let none = client.get("/open/none", &[]).await;
        assert_eq!((none.status, none.body.len()), (204, 0));
        let same = client
            .get("/open/same", &[("if-none-match", "\"v1\"")])
            .await;
        assert_eq!((same.status, same.header("etag")), (304, Some("\"v1\"")));
        let after = client.get("/open/x", &[]).await;
        assert_eq!(
            (after.status, after.text().as_str()),
            (200, "{}"),
            "{speaks:?}"
        );
    }
}

#[tokio::test]
async fn go_on_comes_from_the_service_and_not_before() {
    let origin = origin(|_| Script::json("{}")).await;
    let edge = edge(&[&origin], "").await;
    let mut client = edge.connect().await;
    expect(&mut client, 5).await;
    let interim = within("100", client.head()).await.unwrap();
    assert_eq!(interim.status, 100);
    assert!(origin.seen().is_empty(), "the body was not sent yet");
    client.send(b"hello").await.unwrap();
    assert_eq!(client.response(false).await.unwrap().status, 200);
    assert_eq!(origin.seen()[0].body, b"hello");

    let mut refused = edge.connect().await;
    expect(&mut refused, 50_000_000).await;
    let first = within("413", refused.head()).await.unwrap();
    assert_eq!(first.status, 413, "no 100 for a body that nobody wants");
}

async fn expect(client: &mut Connection, length: usize) {
    let head = format!(
        "POST /open/x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    );
    client.send(head.as_bytes()).await.unwrap();
}
