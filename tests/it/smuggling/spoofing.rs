//! Fields with which a client would speak in somebody else's name: addresses, identities, and the
//! ways to have a field removed between two checks.

use super::Expect::Refused;
use super::{Case, case, run, served};
use crate::harness::edge::{Edge, bearer};
use crate::harness::keys::TokenIssuer;
use crate::harness::origin::{Origin, Script};

fn with(name: &'static str, lines: &str, status: u16) -> Case {
    let bytes = format!("GET /open/{{m}} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n");
    case(name, bytes, Refused(status))
}

#[tokio::test]
async fn a_client_removes_no_field_and_opens_no_tunnel() {
    run(vec![
        with(
            "nominating our identity",
            "Connection: x-maitred-identity",
            400,
        ),
        with(
            "nominating the client's address",
            "Connection: keep-alive, X-Forwarded-For",
            400,
        ),
        with("nominating the host", "Connection: host", 400),
        with(
            "nominating the credential",
            "Connection: close, authorization",
            400,
        ),
        with("nominating a length", "Connection: content-length", 400),
        with(
            "nominating a signature",
            "Connection: webhook-signature",
            400,
        ),
        with(
            "nominating an idempotency key",
            "Connection: idempotency-key",
            400,
        ),
        with(
            "nominating on a second line",
            "Connection: close\r\nConnection: cookie",
            400,
        ),
        with("nominating what is no name", "Connection: a b", 400),
        with(
            "a websocket",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x",
            400,
        ),
        with(
            "a tunnel",
            "Connection: Upgrade\r\nUpgrade: connect-udp",
            400,
        ),
        with(
            "h2c and a websocket",
            "Connection: Upgrade\r\nUpgrade: h2c, websocket",
            400,
        ),
        with("an expectation", "Expect: x", 400),
    ])
    .await;
}

#[tokio::test]
async fn h2c_is_ignored_and_stays_at_the_edge() {
    let (origin, edge) = served().await;
    let mut client = edge.connect().await;
    let headers = [
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"),
    ];
    let answer = client
        .request("GET", "/open/x", &headers, b"")
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    let seen = origin.seen().remove(0);
    for name in ["upgrade", "http2-settings"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert!(!seen.header("connection").unwrap_or("").contains("pgrade"));
}

#[tokio::test]
async fn hop_by_hop_fields_stay_at_the_edge() {
    let (origin, edge) = served().await;
    let headers = [
        ("Connection", "close, keep-alive"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic x"),
        ("TE", "trailers"),
        ("Trailer", "X-Maitred-Identity"),
        ("X-Kept", "yes"),
    ];
    let mut client = edge.connect().await;
    let answer = client
        .request("GET", "/open/x", &headers, b"")
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    let seen = origin.seen().remove(0);
    assert_eq!(seen.header("x-kept"), Some("yes"));
    let left: Vec<_> = [
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "trailer",
    ]
    .into_iter()
    .filter(|name| seen.header(name).is_some())
    .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Everything by which an origin may know who is calling, or which path or method to serve.
const SPOOFED: [(&str, &str); 22] = [
    ("X-Maitred-Identity", "spoofed"),
    ("X-Maitred-Provider", "spoofed"),
    ("X-Maitred-Received-At", "spoofed"),
    ("X-Maitred-Attempt", "spoofed"),
    ("X-Maitred-Anything", "spoofed"),
    ("X_Maitred_Identity", "spoofed"),
    ("X-Maitred_Identity", "spoofed"),
    ("X-Forwarded-For", "198.51.100.7, spoofed"),
    ("X-Forwarded-Host", "spoofed"),
    ("X-Forwarded-Proto", "spoofed"),
    ("X-Forwarded-Port", "spoofed"),
    ("X-Forwarded-Server", "spoofed"),
    ("X-Forwarded-Prefix", "spoofed"),
    ("X_Forwarded_For", "spoofed"),
    ("Forwarded", "for=198.51.100.7;host=spoofed"),
    ("X-Real-IP", "spoofed"),
    ("X-Original-URL", "/spoofed"),
    ("X-Rewrite-URL", "/spoofed"),
    ("X-HTTP-Method-Override", "spoofed"),
    ("X-HTTP-Method", "spoofed"),
    ("X-Method-Override", "spoofed"),
    ("True-Client-IP", "spoofed"),
];

fn spoofs() -> Vec<(&'static str, &'static str)> {
    SPOOFED.to_vec()
}

#[tokio::test]
async fn nobody_speaks_for_the_edge() {
    let issuer = TokenIssuer::new();
    let origin = Origin::start(issuer.jwks(), |_| Script::json("{}")).await;
    let edge = Edge::before(&origin).await;
    let token = bearer(&issuer);
    let mut headers = spoofs();
    headers.push(("Authorization", &token));
    let h2 = edge.connect_h2().await;
    let mut h1 = edge.connect().await;
    for path in ["/open/x", "/closed/x"] {
        assert_eq!(
            h1.request("GET", path, &headers, b"").await.unwrap().status,
            200
        );
        assert_eq!(
            h2.request("GET", path, &headers, b"").await.unwrap().status,
            200
        );
    }
    for seen in origin.seen() {
        let left: Vec<_> = seen
            .headers
            .iter()
            .filter(|(_, v)| v.contains("spoofed"))
            .collect();
        assert!(left.is_empty(), "{}: {left:?}", seen.target);
        for (name, value) in [
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "localhost"),
        ] {
            assert_eq!(seen.header(name), Some(value), "{name}");
        }
        assert_eq!(
            seen.header("x-maitred-identity").is_some(),
            seen.target == "/closed/x"
        );
    }
}

#[tokio::test]
async fn an_address_that_a_client_claims_buys_no_second_quota() {
    let limited = "[classes.anonymous]\nrequests = 3\nwindow_s = 900\n\
                   [[routes]]\npath = \"/limited\"\nauth = \"public\"\nlimits = [\"anonymous\"]";
    let origin = Origin::start(TokenIssuer::new().jwks(), |_| Script::json("{}")).await;
    let edge = Edge::with(&origin, limited).await;
    let mut statuses = Vec::new();
    for at in 1..=6 {
        let mut client = edge.connect().await;
        let address = format!("198.51.100.{at}");
        let headers = [
            ("X-Forwarded-For", address.as_str()),
            ("X-Real-IP", &address),
            ("Forwarded", &format!("for={address}")),
            ("True-Client-IP", &address),
        ];
        statuses.push(
            client
                .request("GET", "/limited", &headers, b"")
                .await
                .unwrap()
                .status,
        );
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429, 429]);
    assert_eq!(origin.seen().len(), 3);
}
