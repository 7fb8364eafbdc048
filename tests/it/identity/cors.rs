//! Cross-origin reads: exact origins, preflights answered at the edge, and permissions on every kind
//! of answer.

use crate::harness::client::Response;
use crate::harness::edge::{Edge, bearer};
use crate::harness::either::{BOTH, Client, Speaks};
use crate::harness::keys::TokenIssuer;
use crate::harness::origin::{Origin, Script};

const APP: &str = "https://app.test";
const CORS: &str = r#"
[cors]
origins = ["https://app.test", "https://admin.test:8443"]
max_age_s = 300
[[routes]]
path = "/limited"
auth = "public"
limits = ["auth"]
[[routes]]
path = "/typed"
[[routes]]
path = "/typed"
methods = ["PUT", "DELETE"]
"#;

fn permission(answer: &Response) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

async fn world() -> (Origin, Edge, TokenIssuer) {
    let issuer = TokenIssuer::new();
    let origin = Origin::start(issuer.jwks(), |seen| Script::Answer {
        status: if seen.target == "/open/500" { 500 } else { 200 },
        headers: vec![
            // What a careless service says must not count.
            ("access-control-allow-origin", "*".into()),
            ("access-control-allow-credentials", "true".into()),
            ("vary", "Accept".into()),
        ],
        body: b"{}".to_vec(),
    })
    .await;
    let edge = Edge::with(&origin, CORS).await;
    (origin, edge, issuer)
}

#[tokio::test]
async fn a_preflight_is_answered_without_token_and_without_the_service() {
    let (origin, edge, _) = world().await;
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let ask = |origin| [("origin", origin), ("access-control-request-method", "PUT")];
        let allowed = client
            .request("OPTIONS", "/typed", &ask(APP), b"")
            .await
            .unwrap();
        assert_eq!((allowed.status, permission(&allowed)), (204, Some(APP)));
        assert_eq!(
            allowed.header("access-control-allow-credentials"),
            Some("true")
        );
        assert_eq!(allowed.header("access-control-max-age"), Some("300"));
        assert_eq!(allowed.header("vary"), Some("Origin"));
        let methods = allowed.header("access-control-allow-methods").unwrap();
        for method in ["GET", "PUT", "DELETE"] {
            assert!(methods.contains(method), "{methods}");
        }
        let fields = allowed.header("access-control-allow-headers").unwrap();
        for field in ["authorization", "content-type", "last-event-id"] {
            assert!(fields.contains(field), "{fields}");
        }
        for stranger in [
            "https://app.test.evil",
            "http://app.test",
            "https://app.test:444",
            "null",
            "https://APP.test",
        ] {
            let refused = client
                .request("OPTIONS", "/typed", &ask(stranger), b"")
                .await
                .unwrap();
            assert_eq!(
                (refused.status, permission(&refused)),
                (204, None),
                "{stranger}"
            );
            assert_eq!(refused.header("access-control-allow-methods"), None);
            assert_eq!(refused.header("vary"), Some("Origin"));
        }
        let nowhere = client
            .request("OPTIONS", "/nowhere", &ask(APP), b"")
            .await
            .unwrap();
        assert_eq!((nowhere.status, permission(&nowhere)), (404, Some(APP)));
    }
    assert_eq!(origin.byte_count(), 0);
}

#[tokio::test]
async fn every_kind_of_answer_can_be_read_by_the_app_and_by_nobody_else() {
    let (_origin, edge, issuer) = world().await;
    let token = bearer(&issuer);
    for speaks in BOTH {
        for (method, target, authorised, status) in [
            ("GET", "/open/x", false, 200),
            ("GET", "/open/500", false, 500),
            ("GET", "/closed/x", true, 200),
            ("GET", "/closed/x", false, 401),
            ("GET", "/nowhere", false, 404),
            ("POST", "/typed", true, 405),
            ("GET", "/healthz", false, 200),
        ] {
            for (from, wanted) in [
                (APP, Some(APP)),
                ("https://admin.test:8443", Some("https://admin.test:8443")),
                ("https://evil.test", None),
            ] {
                let mut client = Client::open(&edge, speaks).await;
                let mut headers = vec![("origin", from)];
                if authorised {
                    headers.push(("authorization", &token));
                }
                let answer = client.request(method, target, &headers, b"").await.unwrap();
                assert_eq!(
                    (answer.status, permission(&answer)),
                    (status, wanted),
                    "{target} {from}"
                );
                let count = answer
                    .headers
                    .iter()
                    .filter(|(n, _)| n == "access-control-allow-origin");
                assert_eq!(count.count(), usize::from(wanted.is_some()), "{target}");
                let credentials = answer.header("access-control-allow-credentials");
                assert_eq!(credentials, wanted.map(|_| "true"), "{target} {from}");
                let vary = answer
                    .headers
                    .iter()
                    .any(|(n, v)| n == "vary" && v == "Origin");
                assert!(vary, "{target}");
            }
        }
    }
    let mut client = Client::open(&edge, Speaks::Http2).await;
    let mut last = client.get("/limited", &[("origin", APP)]).await;
    for _ in 0..5 {
        last = client.get("/limited", &[("origin", APP)]).await;
    }
    assert_eq!((last.status, permission(&last)), (429, Some(APP)));
    let exposed = last.header("access-control-expose-headers").unwrap();
    for name in ["retry-after", "ratelimit", "x-request-id", "x-cache"] {
        assert!(exposed.contains(name), "{exposed}");
    }
}

#[tokio::test]
async fn without_configured_origins_nobody_gets_permission() {
    let issuer = TokenIssuer::new();
    let origin = Origin::start(issuer.jwks(), |_| Script::Answer {
        status: 200,
        headers: vec![("access-control-allow-origin", "*".into())],
        body: Vec::new(),
    })
    .await;
    let edge = Edge::before(&origin).await;
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let answer = client.get("/open/x", &[("origin", APP)]).await;
        assert_eq!(
            (answer.status, permission(&answer), answer.header("vary")),
            (200, None, None)
        );
    }
}
