//! The shape of every answer that is the edge's own, and the names that requests carry.

use super::{assert_hardened, assert_refused};
use crate::harness::client::Connection;
use crate::harness::edge::{Edge, Setup, bearer};
use crate::harness::either::{BOTH, Client, Speaks};
use crate::harness::keys::TokenIssuer;
use crate::harness::origin::{Origin, Script};
use crate::harness::within;

const ROUTES: &str = r#"
[cache.policies.kept]
ttl_s = 60
[streams.live]
[[routes]]
path = "/typed"
[[routes]]
path = "/kept"
org_query = "orgId"
cache = "kept"
[[routes]]
path = "/kept/{*rest}"
auth = "public"
limits = ["auth"]
[[routes]]
path = "/stream/x"
org_query = "orgId"
limits = []
stream = "live"
[upstreams.gone]
endpoints = ["unix:/nowhere/api.sock"]
[upstreams.gone.health]
interval_ms = 600000
[[routes]]
path = "/gone"
auth = "public"
limits = []
upstream = "gone"
"#;

async fn world() -> (Origin, Edge, TokenIssuer) {
    let issuer = TokenIssuer::new();
    let origin = Origin::start(issuer.jwks(), |seen| match seen.target.as_str() {
        "/open/hang" => Script::Hang,
        "/open/404" => Script::status(404),
        _ => Script::Answer {
            status: 200,
            headers: vec![("etag", "\"v1\"".into())],
            body: b"{}".to_vec(),
        },
    })
    .await;
    let edge = Edge::start(Setup {
        origins: vec![origin.address],
        extra: ROUTES,
        replace: vec![(
            "first_byte_timeout_ms = 3000",
            "first_byte_timeout_ms = 500",
        )],
    })
    .await;
    (origin, edge, issuer)
}

/// Method, target, header fields, and the refusal that they meet.
type Case<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, u16, &'a str);

/// Refused for what the request looks like, or for what is behind the route.
fn by_shape<'a>(long: &'a str, wide: &'a str) -> Vec<Case<'a>> {
    vec![
        ("GET", "/open/a%2fb", vec![], 400, "bad-request"),
        ("GET", "/open/../..", vec![], 400, "bad-request"),
        ("GET", "/nowhere", vec![], 404, "not-found"),
        ("POST", "/webhooks/nobody", vec![], 404, "not-found"),
        ("POST", "/open/large", vec![], 413, "payload-too-large"),
        ("GET", long, vec![], 414, "uri-too-long"),
        (
            "GET",
            "/x",
            vec![("x-wide", wide)],
            431,
            "headers-too-large",
        ),
        ("GET", "/gone", vec![], 502, "bad-gateway"),
        ("GET", "/open/hang", vec![], 504, "gateway-timeout"),
    ]
}

/// Refused for who is asking for what.
fn by_right<'a>(token: &'a str) -> Vec<Case<'a>> {
    let proven = || vec![("authorization", token)];
    vec![
        ("GET", "/kept", proven(), 400, "bad-request"),
        ("GET", "/closed/x", vec![], 401, "unauthenticated"),
        ("POST", "/webhooks/billing", vec![], 401, "unauthenticated"),
        (
            "GET",
            "/stream/x?orgId=org_a",
            vec![],
            401,
            "unauthenticated",
        ),
        ("GET", "/stream/x?orgId=org_z", proven(), 403, "forbidden"),
        ("GET", "/kept?orgId=org_z", proven(), 403, "forbidden"),
        ("DELETE", "/typed", proven(), 405, "method-not-allowed"),
    ]
}

#[tokio::test]
async fn every_refusal_has_one_shape_and_every_answer_its_armour() {
    let (_origin, edge, issuer) = world().await;
    let token = bearer(&issuer);
    let long = format!("/open/{}", "a".repeat(8_200));
    let wide = "b".repeat(33_000);
    let large = vec![b'x'; 1024 * 1024 + 1];
    let cases = [by_shape(&long, &wide), by_right(&token)].concat();
    for speaks in BOTH {
        for (method, target, headers, status, code) in &cases {
            let what = format!("{speaks:?} {method} {target:.40}");
            let body: &[u8] = match *target {
                "/open/large" => &large,
                _ if *method == "POST" => b"{}",
                _ => b"",
            };
            let mut client = Client::open(&edge, speaks).await;
            let answer = client.request(method, target, headers, body).await;
            let answer = answer.unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(answer.status, *status, "{what}: {}", answer.text());
            assert_eq!(assert_refused(&answer, &what), *code, "{what}");
            assert_hardened(&answer, &what);
            if *status == 405 {
                assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
            }
        }
    }
}

#[tokio::test]
async fn answers_of_the_service_and_of_the_cache_are_armoured_too() {
    let (_origin, edge, issuer) = world().await;
    let token = bearer(&issuer);
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let auth = ("authorization", &*token);
        for (method, target, headers, status) in [
            ("GET", "/open/x", vec![], 200),
            ("GET", "/open/404", vec![], 404),
            ("HEAD", "/open/x", vec![], 200),
            ("GET", "/kept?orgId=org_a", vec![auth], 200),
            ("GET", "/kept?orgId=org_a", vec![auth], 200),
            (
                "GET",
                "/kept?orgId=org_a",
                vec![auth, ("if-none-match", "\"v1\"")],
                304,
            ),
            ("GET", "/healthz", vec![], 200),
            ("GET", "/version", vec![], 200),
            (
                "OPTIONS",
                "/typed",
                vec![
                    ("origin", "https://a.test"),
                    ("access-control-request-method", "GET"),
                ],
                204,
            ),
        ] {
            let what = format!("{speaks:?} {method} {target}");
            let answer = client.request(method, target, &headers, b"").await.unwrap();
            assert_eq!(answer.status, status, "{what}");
            assert_hardened(&answer, &what);
        }
    }
}

#[tokio::test]
async fn a_stream_is_armoured_as_well() {
    let issuer = TokenIssuer::new();
    let origin = Origin::start(issuer.jwks(), |_| {
        let (events, stream) = tokio::sync::mpsc::unbounded_channel();
        events.send(b"data: 1\n\n".to_vec()).unwrap();
        Script::Stream(stream)
    })
    .await;
    let edge = Edge::with(&origin, ROUTES).await;
    let token = bearer(&issuer);
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let answer = client
            .get("/stream/x?orgId=org_a", &[("authorization", &token)])
            .await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("text/event-stream"))
        );
        assert!(answer.text().contains("data: 1"));
        assert_hardened(&answer, "stream");
    }
}

#[tokio::test]
async fn the_plain_listener_promises_no_tls_and_hides_the_rest() {
    let (_origin, edge, _) = world().await;
    let mut client = Connection::plain(edge.http).await.unwrap();
    let moved = client.request("GET", "/open/x", &[], b"").await.unwrap();
    assert_eq!(
        (moved.status, moved.header("strict-transport-security")),
        (308, None)
    );
    assert_eq!(moved.header("x-content-type-options"), Some("nosniff"));
    for inside in ["/metrics", "/health/detailed", "/refusals", "/config"] {
        let mut client = Client::open(&edge, Speaks::Http2).await;
        assert_eq!(client.get(inside, &[]).await.status, 404, "{inside}");
    }
}

#[tokio::test]
async fn what_the_parser_cannot_read_is_refused_in_the_same_shape_or_cut() {
    let (origin, edge, _) = world().await;
    for raw in [
        "GET /open/x HTTP/1.1\r\n\r\n",
        "GET /open/x HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        "POST /open/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /open/x HTTP/1.1\r\nHost: localhost\r\nBad Name: x\r\n\r\n",
        "GET /open/x HTTP/1.1\nHost: localhost\n\n",
        "GET /open/x HTTP/1.1\r\nHost: localhost\nX-A: b\r\n\r\n",
        "NONSENSE\r\n\r\n",
    ] {
        let mut client = edge.connect().await;
        client.send(raw.as_bytes()).await.unwrap();
        // The connection ends either way: nobody knows where a next request would begin.
        let said = String::from_utf8_lossy(&within("the end", client.rest()).await).into_owned();
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 400"),
            "{raw:?}: {said}"
        );
    }
    assert_eq!(origin.byte_count(), 0);
    let mut client = Client::open(&edge, Speaks::Http1).await;
    let other = client.get("/open/x", &[("host", "other.test")]).await;
    assert_eq!(
        (other.status, &*assert_refused(&other, "421")),
        (421, "misdirected")
    );
    for method in ["TRACE", "CONNECT"] {
        let mut client = Client::open(&edge, Speaks::Http1).await;
        let answer = client.request(method, "/open/x", &[], b"").await.unwrap();
        assert!(
            [400, 405].contains(&answer.status),
            "{method} {}",
            answer.status
        );
    }
}

#[tokio::test]
async fn a_request_keeps_a_sound_name_and_loses_any_other() {
    let (origin, edge, _) = world().await;
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let longest = "a".repeat(128);
        for sound in ["trace-1", "0af7651916cd43dd:8448eb", &longest] {
            let before = origin.seen().len();
            let answer = client.get("/open/x", &[("x-request-id", sound)]).await;
            assert_eq!(answer.header("x-request-id"), Some(sound));
            assert_eq!(origin.seen()[before].header("x-request-id"), Some(sound));
            let refused = client.get("/closed/x", &[("x-request-id", sound)]).await;
            assert_eq!(refused.json()["request_id"], sound);
        }
        let too_long = "a".repeat(129);
        for unsound in ["", "a b", "a\"b", "<script>", "${jndi:x}", &too_long] {
            let before = origin.seen().len();
            let answer = client.get("/open/x", &[("x-request-id", unsound)]).await;
            let given = answer.header("x-request-id").unwrap().to_owned();
            assert_ne!(given, unsound);
            assert!(given.len() >= 16, "{given}");
            let seen = &origin.seen()[before];
            assert_eq!(seen.header("x-request-id"), Some(&*given));
            let lines = seen.headers.iter().filter(|(n, _)| n == "x-request-id");
            assert_eq!(lines.count(), 1);
        }
        let one = client.get("/open/x", &[]).await;
        let two = client.get("/open/x", &[]).await;
        assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
    }
}
