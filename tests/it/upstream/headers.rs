//! Header fields: what the service learns of a client, what a client learns of the service, and how
//! the service is reached.

use super::{edge, origin};
use crate::harness::edge::{Edge, Setup};
use crate::harness::either::{BOTH, Client, Speaks};
use crate::harness::origin::{Script, Seen};

fn all<'a>(seen: &'a Seen, name: &str) -> Vec<&'a str> {
    let named = seen.headers.iter().filter(|(n, _)| n == name);
    named.map(|(_, v)| v.as_str()).collect()
}

#[tokio::test]
async fn where_a_request_came_from_is_the_edges_word_alone() {
    let origin = origin(|_| Script::json("{}")).await;
    let edge = edge(&[&origin], "").await;
    let claims = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-port", "1"),
        ("x-forwarded-prefix", "/evil"),
        ("x-real-ip", "203.0.113.9"),
        ("forwarded", "for=203.0.113.9;host=evil.test"),
        ("x-original-url", "/closed/evil"),
        ("x-rewrite-url", "/closed/evil"),
        ("x-http-method-override", "DELETE"),
        ("x-maitred-identity", "evil"),
        ("x-maitred-provider", "evil"),
        ("x-maitred-attempt", "7"),
        ("x-maitred-received-at", "evil"),
    ];
    for (n, speaks) in BOTH.into_iter().enumerate() {
        let mut client = Client::open(&edge, speaks).await;
        assert_eq!(client.get("/open/x?a=b", &claims).await.status, 200);
        let seen = &origin.seen()[n];
        assert_eq!(
            (seen.method.as_str(), seen.target.as_str()),
            ("GET", "/open/x?a=b")
        );
        assert_eq!(all(seen, "x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(all(seen, "x-forwarded-proto"), ["https"]);
        assert_eq!(all(seen, "x-forwarded-host"), ["localhost"]);
        assert_eq!(all(seen, "host"), ["localhost"]);
        assert_eq!(all(seen, "x-request-id").len(), 1);
        for (name, _) in claims.iter().skip(3) {
            assert_eq!(all(seen, name), Vec::<&str>::new(), "{name}");
        }
        let evil = seen
            .headers
            .iter()
            .find(|(_, v)| v.contains("evil") || v.contains("203.0"));
        assert_eq!(evil, None);
    }
}

#[tokio::test]
async fn a_trusted_hop_is_believed_about_the_client() {
    let origin = origin(|_| Script::json("{}")).await;
    let trusted = "[guard]\ntrusted_hops = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n";
    let edge = edge(&[&origin], trusted).await;
    for (n, (headers, wanted)) in [
        (vec![("x-forwarded-for", "203.0.113.9")], "203.0.113.9"),
        // Only what a trusted hop wrote counts: the left end is the client's own claim.
        (
            vec![("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.1.1.1")],
            "203.0.113.9",
        ),
        (
            vec![("forwarded", "for=\"[2001:db8::7]:4711\"")],
            "2001:db8::7",
        ),
        (vec![("x-forwarded-for", "rubbish")], "127.0.0.1"),
        (vec![], "127.0.0.1"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = Client::open(&edge, Speaks::Http1).await;
        assert_eq!(client.get("/open/x", &headers).await.status, 200);
        assert_eq!(all(&origin.seen()[n], "x-forwarded-for"), [wanted]);
    }
}

#[tokio::test]
async fn the_name_that_the_client_used_reaches_the_service() {
    let origin = origin(|_| Script::json("{}")).await;
    let edge = edge(&[&origin], "").await;
    let mut client = edge.connect().await;
    let headers = [("Host", "api.localhost")];
    let answer = client
        .request("GET", "/open/x", &headers, b"")
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(all(&origin.seen()[0], "host"), ["api.localhost"]);
    assert_eq!(
        all(&origin.seen()[0], "x-forwarded-host"),
        ["api.localhost"]
    );
}

#[tokio::test]
async fn what_a_service_says_of_itself_stays_inside() {
    let origin = origin(|_| Script::Answer {
        status: 200,
        headers: vec![
            ("server", "Apache/2.4.1".into()),
            ("x-powered-by", "PHP/5.3".into()),
            ("cache-groups", "\"a\"".into()),
            ("cache-group-invalidation", "\"a\"".into()),
            ("x-maitred-identity", "leak".into()),
            ("connection", "x-hop".into()),
            ("x-hop", "leak".into()),
            ("keep-alive", "timeout=5".into()),
            ("x-kept", "yes".into()),
            ("x-frame-options", "ALLOWALL".into()),
            ("strict-transport-security", "max-age=0".into()),
            ("x-request-id", "the-services-own".into()),
            ("set-cookie", "a=1".into()),
            ("set-cookie", "b=2".into()),
        ],
        body: b"{}".to_vec(),
    })
    .await;
    let edge = edge(&[&origin], "").await;
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let answer = client.request("POST", "/open/x", &[], b"").await.unwrap();
        for name in [
            "server",
            "x-powered-by",
            "cache-groups",
            "cache-group-invalidation",
            "x-maitred-identity",
            "x-hop",
            "keep-alive",
        ] {
            assert_eq!(answer.header(name), None, "{speaks:?}");
        }
        assert_eq!(answer.header("x-kept"), Some("yes"));
        let connection = answer.header("connection").unwrap_or_default();
        assert!(!connection.contains("x-hop"), "{connection}");
        let values = |name: &str| {
            let named = answer.headers.iter().filter(|(n, _)| n == name);
            named.map(|(_, v)| v.clone()).collect::<Vec<_>>()
        };
        assert_eq!(values("x-frame-options"), ["DENY"]);
        assert_eq!(
            values("strict-transport-security"),
            ["max-age=31536000; includeSubDomains"]
        );
        assert_eq!(values("set-cookie"), ["a=1", "b=2"]);
        assert_ne!(values("x-request-id"), ["the-services-own"]);
        assert_eq!(values("x-request-id").len(), 1);
    }
}

#[tokio::test]
async fn what_ends_at_a_hop_does_not_reach_the_service() {
    let origin = origin(|_| Script::json("{}")).await;
    let edge = edge(&[&origin], "").await;
    let mut client = edge.connect().await;
    let headers = [
        ("Connection", "keep-alive, private-hop"),
        ("Private-Hop", "leak"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authorization", "Basic leak"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "trailers"),
        ("X-Kept", "yes"),
    ];
    let answer = client
        .request("GET", "/open/x", &headers, b"")
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    let seen = &origin.seen()[0];
    for name in [
        "private-hop",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
    ] {
        assert_eq!(all(seen, name), Vec::<&str>::new(), "{name}");
    }
    assert_eq!(all(seen, "x-kept"), ["yes"]);
}

#[tokio::test]
async fn a_service_on_a_unix_socket_is_reached() {
    let origin = origin(|_| Script::json("\"over unix\"")).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let behind = origin.address;
    let relay = tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let endpoint = format!("endpoints = [\"unix:{}\"]", path.display());
    let edge = Edge::start(Setup {
        origins: vec![],
        extra: "",
        replace: vec![("endpoints = [{endpoints}]", &endpoint)],
    })
    .await;
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let answer = client
            .request("POST", "/open/x", &[], b"body")
            .await
            .unwrap();
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "\"over unix\"")
        );
        assert_eq!(client.get("/readiness", &[]).await.status, 200);
    }
    assert_eq!(origin.seen()[0].body, b"body");
    relay.abort();
}
