//! What the provider is told of the API's trouble: never a 4xx that is not the provider's fault, and
//! the same signed bytes are welcome again once the trouble is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;

use super::{APPLIED, scripted, status};
use crate::harness::client::Response;
use crate::harness::edge::{Edge, Setup};
use crate::harness::hook::{EXAMPLE, Event};
use crate::harness::keys::TokenIssuer;
use crate::harness::origin::{Origin, Script, Seen};
use crate::harness::{until, within};

/// An API whose next answer is set from outside.
async fn moody() -> (Arc<AtomicU16>, Origin, Edge) {
    let mood = Arc::new(AtomicU16::new(200));
    let inner = mood.clone();
    let script = move |_: &Seen| match inner.load(Ordering::Relaxed) {
        200 => Script::json(APPLIED),
        0 => Script::Hang,
        1 => Script::RawThenReset(b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{".to_vec()),
        2 => Script::Raw(b"not HTTP at all\r\n\r\n".to_vec()),
        status => Script::Answer {
            status,
            headers: vec![
                ("content-type", "application/problem+json".into()),
                ("server", "secret-api/1.0".into()),
                ("x-internal", "secret".into()),
            ],
            body: br#"{"title":"no such invoice"}"#.to_vec(),
        },
    };
    let origin = Origin::start(TokenIssuer::new().jwks(), script).await;
    let edge = Edge::start(Setup {
        origins: vec![origin.address],
        extra: "",
        replace: vec![(
            "first_byte_timeout_ms = 3000",
            "first_byte_timeout_ms = 500\n[upstreams.api.breaker]\nfailures = 1000",
        )],
    })
    .await;
    (mood, origin, edge)
}

async fn post(edge: &Edge, event: &Event) -> Response {
    let mut client = edge.connect().await;
    within("an answer", event.post(&mut client)).await.unwrap()
}

#[tokio::test]
async fn trouble_at_the_api_is_a_5xx_with_retry_after_and_the_retry_is_no_replay() {
    let (mood, origin, edge) = moody().await;
    let statuses = [
        (500, 503),
        (501, 503),
        (502, 503),
        (503, 503),
        (504, 503),
        (400, 503),
        (401, 503),
        (403, 503),
        (404, 503),
        (405, 503),
        (408, 503),
        (409, 503),
        (429, 503),
        (301, 503),
        (304, 503),
        (0, 504),
        (1, 502),
        (2, 502),
    ];
    let mut wrong = Vec::new();
    for (from_api, to_provider) in statuses {
        let event = Event::named(&format!("evt_{from_api}"));
        mood.store(from_api, Ordering::Relaxed);
        let answer = post(&edge, &event).await;
        let waits = answer
            .header("retry-after")
            .and_then(|v| v.parse::<u32>().ok());
        if answer.status != to_provider || waits.is_none() {
            wrong.push((from_api, answer.status, waits));
        }
        assert!(
            !answer.text().contains("invoice"),
            "{from_api}: the API's words leaked"
        );
        mood.store(200, Ordering::Relaxed);
        if post(&edge, &event).await.status != 200 || post(&edge, &event).await.status != 401 {
            wrong.push((from_api, 0, None));
        }
    }
    assert!(
        wrong.is_empty(),
        "(from the API, to the provider, Retry-After): {wrong:?}"
    );
    assert_eq!(origin.seen().len(), 2 * statuses.len());
}

#[tokio::test]
async fn a_body_that_can_never_be_applied_is_422_without_the_apis_headers() {
    let (mood, origin, edge) = moody().await;
    mood.store(422, Ordering::Relaxed);
    let event = Event::of(EXAMPLE);
    let answer = post(&edge, &event).await;
    assert_eq!(answer.status, 422);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(answer.text(), r#"{"title":"no such invoice"}"#);
    assert_eq!(
        (answer.header("server"), answer.header("x-internal")),
        (None, None)
    );
    // It was not accepted, so it is no replay either: the API decides again.
    mood.store(200, Ordering::Relaxed);
    assert_eq!(post(&edge, &event).await.status, 200);
    assert_eq!(post(&edge, &event).await.status, 401);
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn an_api_that_is_away_costs_no_event() {
    let (origin, edge) = scripted("", |_| Script::json(APPLIED)).await;
    let address = origin.address;
    let event = Event::of(EXAMPLE);
    drop(origin);
    // First the connection fails; a little later the endpoint is known to be unhealthy.
    for _ in 0..2 {
        let answer = post(&edge, &event).await;
        assert!(matches!(answer.status, 502 | 503), "{}", answer.status);
        assert!(answer.header("retry-after").is_some());
        until("the endpoint is unhealthy", || async {
            (edge
                .connect()
                .await
                .request("GET", "/ready", &[], b"")
                .await
                .unwrap()
                .status
                == 503)
                .then_some(())
        })
        .await;
    }
    let listener = until("the port", || async {
        TcpListener::bind(address).await.ok()
    })
    .await;
    let origin = Origin::on(listener, TokenIssuer::new().jwks(), |_| {
        Script::json(APPLIED)
    });
    until("the endpoint is healthy", || async {
        (edge
            .connect()
            .await
            .request("GET", "/ready", &[], b"")
            .await
            .unwrap()
            .status
            == 200)
            .then_some(())
    })
    .await;
    assert_eq!(status(&edge, &event).await, 200);
    assert_eq!(status(&edge, &event).await, 401);
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn a_sender_that_hangs_up_is_delivered_all_the_same() {
    let slow = |_: &Seen| Script::Late(Duration::from_millis(300));
    let (origin, edge) = scripted("", slow).await;
    let (first, second) = (Event::named("evt_h1"), Event::named("evt_h2"));
    let mut client = edge.connect().await;
    let mut bytes = first.head(&format!("Content-Length: {}\r\n", first.body.len()));
    bytes.extend_from_slice(&first.body);
    client.send(&bytes).await.unwrap();
    until("the delivery of the first", || async {
        (origin.seen().len() == 1).then_some(())
    })
    .await;
    drop(client);

    let client = edge.connect_h2().await;
    let upload = {
        let second = second.clone();
        tokio::spawn(async move { second.post_h2(&client).await })
    };
    until("the delivery of the second", || async {
        (origin.seen().len() == 2).then_some(())
    })
    .await;
    upload.abort();
    drop(upload.await);

    // Both were accepted, whether or not somebody listened.
    for event in [&first, &second] {
        until("the reservation is settled", || async {
            (status(&edge, event).await == 401).then_some(())
        })
        .await;
    }
    assert_eq!(origin.seen().len(), 2);
}
