//! Proof that what is refused stays at the edge: not one byte of it reaches the API, and neither body
//! nor signature nor credential ends up in the log, the metrics or the list of recent refusals.

use bytes::Bytes;

use super::{APPLIED, status, unauthentic};
use crate::harness::client::Connection;
use crate::harness::edge::{Edge, Setup};
use crate::harness::hook::{Event, PATH};
use crate::harness::keys::{TokenIssuer, WEBHOOK_SECRET, now_ms};
use crate::harness::origin::{Origin, Script};
use crate::harness::{until, within};

const IN_BODY: &str = "canary-in-the-body";
const IN_HEADER: &str = "canary-in-a-header";

fn body() -> String {
    format!(r#"{{"event":"invoice.paid","id":"{IN_BODY}","card":"{IN_BODY}"}}"#)
}

/// Raw requests whose framing is broken somewhere, canaries all over them.
fn broken(good: &Event) -> Vec<Vec<u8>> {
    let secret = format!("Authorization: Bearer {IN_HEADER}\r\nCookie: {IN_HEADER}\r\n");
    let with = |framing: &str, body: &[u8]| {
        let mut bytes = good.head(&format!("{secret}{framing}"));
        bytes.extend_from_slice(body);
        bytes
    };
    let chunked = "Transfer-Encoding: chunked\r\n";
    vec![
        with("Content-Length: 9999999\r\n", b""),
        with("Content-Length: 5\r\nContent-Length: 6\r\n", &good.body),
        with("Content-Length: 0x5\r\n", &good.body),
        with("Transfer-Encoding: gzip, chunked\r\n", &good.body),
        with(chunked, format!("{IN_BODY}\r\n{IN_BODY}\r\n").as_bytes()),
        with(
            chunked,
            format!("5;{IN_BODY}\nhello\r\n0\r\n\r\n").as_bytes(),
        ),
        with(chunked, format!("-5\r\n{IN_BODY}\r\n").as_bytes()),
        with(chunked, format!("2\r\n{IN_BODY}\r\n0\r\n\r\n").as_bytes()),
        with(&format!("X-Odd: a\r\n {IN_HEADER}\r\n"), &good.body),
        with(&format!("X-Odd: a\0{IN_HEADER}\r\n"), &good.body),
        with(&format!("X-Odd {IN_HEADER}: a\r\n"), &good.body),
        with(&format!("{IN_HEADER} no colon\r\n"), &good.body),
        with("Host: other.test\r\n", &good.body),
        with("Expect: canary-in-a-header\r\nContent-Length: 1\r\n", b"x"),
        format!("POST {PATH}?{IN_HEADER} HTTP/3.0\r\nX-Signature: {IN_HEADER}\r\n\r\n")
            .into_bytes(),
        format!("{IN_HEADER}\r\n\r\n").into_bytes(),
    ]
}

/// Half a body, then the client is gone or has fallen silent.
async fn broken_off(edge: &Edge, good: &Event) {
    for reset in [false, true] {
        let mut client = edge.connect().await;
        client
            .send(&good.head("Content-Length: 1000\r\n"))
            .await
            .unwrap();
        client.send(&good.body).await.unwrap();
        if !reset {
            let _ = within("408", client.response(false)).await;
        }
        drop(client);
        let client = edge.connect_h2().await;
        let headers = good.headers();
        let (answer, mut body) = client.start("POST", PATH, &headers, false).await.unwrap();
        body.send_data(Bytes::from(good.body.clone()), false)
            .unwrap();
        if reset {
            body.send_reset(h2::Reason::CANCEL);
        } else {
            let _ = within("408", answer).await;
        }
    }
}

async fn refuse_everything(edge: &Edge) -> Vec<String> {
    let mut secrets = vec![
        IN_BODY.to_owned(),
        IN_HEADER.to_owned(),
        WEBHOOK_SECRET.to_owned(),
    ];
    let good = Event::of(body());
    let mut events: Vec<Event> = unauthentic().into_iter().map(|(_, event)| event).collect();
    let mut forged = good.clone();
    forged.signature = "0".repeat(64);
    for (name, value) in [
        ("authorization", format!("Bearer {IN_HEADER}")),
        // Not a valid id, which alone would be kept.
        ("x-request-id", format!("{IN_HEADER} {IN_HEADER}")),
        ("content-encoding", IN_HEADER.to_owned()),
        ("x-signature", IN_HEADER.to_owned()),
    ] {
        events.push(forged.clone().with(name, &value));
    }
    let stale = |by: i64| Event::signed(body(), WEBHOOK_SECRET, &(now_ms() + by).to_string());
    events.extend([stale(-400_000), stale(400_000)]);
    let mut large = Event::of(IN_BODY.repeat(60_000));
    large.extra.push(("x-odd".into(), IN_HEADER.into()));
    events.push(large);
    let h2 = edge.connect_h2().await;
    for event in &events {
        assert_ne!(status(edge, event).await, 200);
        assert_ne!(within("h2", event.post_h2(&h2)).await.unwrap().status, 200);
        // A signature of zeros is no secret.
        secrets.extend(
            Some(event.signature.clone()).filter(|s| s.len() == 64 && !s.starts_with("00")),
        );
    }
    for bytes in broken(&good) {
        for mut client in [
            edge.connect().await,
            Connection::plain(edge.http).await.unwrap(),
        ] {
            let _ = client.send(&bytes).await;
            let answer = within("an answer or the end", client.response(false)).await;
            let status = answer.map_or(0, |a| a.status);
            assert_ne!(status, 200, "{}", String::from_utf8_lossy(&bytes));
        }
    }
    broken_off(edge, &good).await;
    let mut client = edge.connect().await;
    let target = format!("{PATH}?token={IN_HEADER}");
    let got = client.request("GET", &target, &good.headers(), b"").await;
    assert_eq!(got.unwrap().status, 405);
    secrets.push(good.signature);
    secrets
}

#[tokio::test]
async fn not_one_byte_of_what_is_refused_reaches_the_api_or_the_log() {
    let origin = Origin::start(TokenIssuer::new().jwks(), |_| Script::json(APPLIED)).await;
    let edge = Edge::start(Setup {
        origins: vec![origin.address],
        extra: "[classes.webhooks_failed]\nrequests = 10000",
        // As talkative as it gets.
        replace: vec![("info,maitred=debug", "debug,maitred=trace")],
    })
    .await;
    let secrets = refuse_everything(&edge).await;
    assert_eq!(origin.byte_count(), 0, "{:?}", origin.seen());

    // The recorder does see what is accepted, and only that.
    assert_eq!(status(&edge, &Event::named("evt_after")).await, 200);
    assert!(origin.received(b"evt_after") && !origin.received(IN_BODY.as_bytes()));
    until("the access line", || async {
        edge.log().contains("accepted").then_some(())
    })
    .await;

    let told = [
        ("log", edge.log()),
        ("metrics", edge.admin("/metrics").await.unwrap().text()),
        ("refusals", edge.admin("/refusals").await.unwrap().text()),
        (
            "detail",
            edge.admin("/health/detailed").await.unwrap().text(),
        ),
    ];
    let mut leaks = Vec::new();
    for (place, text) in &told {
        for line in text
            .lines()
            .filter(|l| secrets.iter().any(|s| l.contains(s.as_str())))
        {
            leaks.push(format!("{place}: {line}"));
        }
    }
    assert!(
        leaks.is_empty(),
        "{} leaks, e.g.\n{}",
        leaks.len(),
        leaks[..leaks.len().min(8)].join("\n")
    );
}
