//! HTTP/2 requests that say two things, or that would say another thing once they are HTTP/1.

use super::served;
use crate::harness::edge::Edge;
use crate::harness::frames::{self, Connection, DATA, END_STREAM, Fate, frame};
use crate::harness::within;

type Fields = Vec<(&'static str, &'static str)>;

/// A whole request with these fields besides the pseudo-header, and perhaps a body.
struct Case {
    name: &'static str,
    fields: Fields,
    body: Option<&'static str>,
}

fn named(name: &'static str, fields: &[(&'static str, &'static str)]) -> Case {
    Case {
        name,
        fields: fields.to_vec(),
        body: None,
    }
}

fn get(name: &'static str, more: &[(&'static str, &'static str)]) -> Case {
    let mut fields = vec![
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/open/x"),
    ];
    fields.extend_from_slice(more);
    Case {
        name,
        fields,
        body: None,
    }
}

fn post(name: &'static str, more: &[(&'static str, &'static str)], body: &'static str) -> Case {
    let mut case = get(name, more);
    case.fields[0].1 = "POST";
    case.body = Some(body);
    case
}

fn path(name: &'static str, path: &'static str) -> Case {
    let mut case = get(name, &[]);
    case.fields[3].1 = path;
    case
}

async fn fate(edge: &Edge, case: &Case) -> Fate {
    let mut client = Connection::open(edge.https, "localhost", &edge.ca).await;
    let flags = if case.body.is_some() { 0 } else { END_STREAM };
    let _ = client.headers(1, flags, &case.fields).await;
    if let Some(body) = case.body {
        let _ = client
            .send(&frame(DATA, END_STREAM, 1, body.as_bytes()))
            .await;
    }
    within(case.name, client.fate(1)).await
}

fn fields() -> Vec<Case> {
    vec![
        get("host differs from :authority", &[("host", "other.test")]),
        get("two hosts", &[("host", "localhost"), ("host", "localhost")]),
        get("connection", &[("connection", "close")]),
        get(
            "connection nominating",
            &[("connection", "x-maitred-identity")],
        ),
        get("keep-alive", &[("keep-alive", "timeout=5")]),
        get("proxy-connection", &[("proxy-connection", "keep-alive")]),
        get("transfer-encoding", &[("transfer-encoding", "chunked")]),
        post(
            "transfer-encoding with a body",
            &[("transfer-encoding", "chunked")],
            "0\r\n\r\nGET /",
        ),
        get("upgrade", &[("upgrade", "websocket")]),
        get("te other than trailers", &[("te", "gzip")]),
        get("an upper-case name", &[("X-Upper", "x")]),
        get("a blank in a name", &[("x a", "x")]),
        get("a colon in a name", &[("x:a", "x")]),
        get("a line end in a name", &[("x\r\na: b", "x")]),
        get(
            "a line end in a value",
            &[("x-a", "b\r\nx-maitred-identity: spoofed")],
        ),
        get("LF in a value", &[("x-a", "b\nc: d")]),
        get("NUL in a value", &[("x-a", "b\0c")]),
        get(
            "a pseudo-field after others",
            &[("x-a", "b"), (":path", "/closed/x")],
        ),
        get("a path twice", &[(":path", "/closed/x")]),
        get("an unknown pseudo-field", &[(":x", "y")]),
        get("a status", &[(":status", "200")]),
        get("a protocol", &[(":protocol", "websocket")]),
    ]
}

fn lengths() -> Vec<Case> {
    vec![
        post(
            "a length below the body's",
            &[("content-length", "3")],
            "abcd",
        ),
        post(
            "a length above the body's",
            &[("content-length", "5")],
            "abcd",
        ),
        post(
            "two lengths",
            &[("content-length", "4"), ("content-length", "5")],
            "abcd",
        ),
        post(
            "two equal lengths",
            &[("content-length", "4"), ("content-length", "4")],
            "abcd",
        ),
        post("a list of lengths", &[("content-length", "4, 4")], "abcd"),
        post("a length with a plus", &[("content-length", "+4")], "abcd"),
    ]
}

fn targets() -> Vec<Case> {
    vec![
        path("an absolute path", "https://other.test/open/x"),
        path("no path", ""),
        path("a path without slash", "open/x"),
        path("a blank in the path", "/open/x HTTP/1.1"),
        path(
            "a line end in the path",
            "/open/x HTTP/1.1\r\nHost: other.test\r\n\r\n",
        ),
        path("NUL in the path", "/open/x\0"),
        path("an escaped slash", "/open/..%2fclosed/x"),
        path("a step above the root", "/../x"),
    ]
}

fn pseudo_fields() -> Vec<Case> {
    vec![
        named(
            "no method",
            &[
                (":scheme", "https"),
                (":authority", "localhost"),
                (":path", "/open/x"),
            ],
        ),
        named(
            "no scheme",
            &[
                (":method", "GET"),
                (":authority", "localhost"),
                (":path", "/open/x"),
            ],
        ),
        named(
            "no authority",
            &[
                (":method", "GET"),
                (":scheme", "https"),
                (":path", "/open/x"),
            ],
        ),
        named(
            "a user",
            &[
                (":method", "GET"),
                (":scheme", "https"),
                (":authority", "user@localhost"),
                (":path", "/open/x"),
            ],
        ),
        named(
            "another host",
            &[
                (":method", "GET"),
                (":scheme", "https"),
                (":authority", "other.test"),
                (":path", "/open/x"),
            ],
        ),
        named(
            "CONNECT",
            // A name in a request, never bound.
            &[(":method", "CONNECT"), (":authority", "localhost:443")],
        ),
        named(
            "TRACE",
            &[
                (":method", "TRACE"),
                (":scheme", "https"),
                (":authority", "localhost"),
                (":path", "/open/x"),
            ],
        ),
    ]
}

#[tokio::test]
async fn what_is_malformed_in_http2_reaches_nobody() {
    let (origin, edge) = served().await;
    let mut wrong = Vec::new();
    let malformed = [fields(), lengths(), targets(), pseudo_fields()];
    for case in malformed.into_iter().flatten() {
        let before = origin.seen().len();
        let fate = fate(&edge, &case).await;
        let passed = &origin.seen()[before..];
        if fate == Fate::Answered(200) || !passed.is_empty() {
            let told: Vec<_> = passed.iter().map(|s| format!("{s:?}")).collect();
            wrong.push(format!("{}: {fate:?}, the origin saw {told:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    // The recorder would have noticed.
    assert_eq!(
        fate(&edge, &get("a good one", &[])).await,
        Fate::Answered(200)
    );
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn what_has_one_meaning_is_passed_on_as_http1() {
    let (origin, edge) = served().await;
    let good = [
        get("the same host twice told", &[("host", "localhost")]),
        named(
            "only Host",
            &[
                (":method", "GET"),
                (":scheme", "https"),
                (":path", "/open/x"),
                ("host", "localhost"),
            ],
        ),
        get("te", &[("te", "trailers")]),
        get("cookies in pieces", &[("cookie", "a=1"), ("cookie", "b=2")]),
        post("an exact length", &[("content-length", "4")], "abcd"),
        post("no length", &[], "abcd"),
        path("a fragment is cut off", "/open/x#y"),
        path("a spelling", "/closed/%2e%2e/%6fpen//x"),
    ];
    for case in good {
        assert_eq!(
            fate(&edge, &case).await,
            Fate::Answered(200),
            "{}",
            case.name
        );
        let seen = origin.seen().pop().unwrap();
        assert_eq!(seen.target, "/open/x", "{}", case.name);
        assert!(super::framed_once(&seen), "{}: {seen:?}", case.name);
        assert_eq!(
            seen.body,
            case.body.unwrap_or("").as_bytes(),
            "{}",
            case.name
        );
        assert!(
            seen.headers
                .iter()
                .all(|(n, _)| !n.starts_with(':') && n != "te")
        );
    }
}

#[tokio::test]
async fn a_bad_stream_leaves_its_neighbours_alone() {
    let (_origin, edge) = served().await;
    let mut client = Connection::open(edge.https, "localhost", &edge.ca).await;
    let good = get("", &[]).fields;
    let bad = get("", &[("connection", "close")]).fields;
    client.headers(1, END_STREAM, &good).await.unwrap();
    client.headers(3, END_STREAM, &bad).await.unwrap();
    client.headers(5, END_STREAM, &good).await.unwrap();
    let mut fates = std::collections::BTreeMap::new();
    while fates.len() < 3 {
        let frame = within("a frame", client.next()).await.unwrap();
        match frame.kind {
            frames::HEADERS => drop(fates.insert(frame.stream, true)),
            frames::RST_STREAM => drop(fates.insert(frame.stream, false)),
            _ => {}
        }
    }
    assert!(fates[&1] && fates[&5], "{fates:?}");
}
