//! The plain lane: a request through every check to the origin and back.

use crate::harness::edge::{Edge, bearer};
use crate::harness::keys::{ASSERTION_SECRET, TokenIssuer};
use crate::harness::origin::{Origin, Script};

#[tokio::test]
async fn a_request_reaches_the_origin_with_the_edges_word_for_the_caller() {
    let issuer = TokenIssuer::new();
    let origin = Origin::start(issuer.jwks(), |_| Script::json("{\"ok\":true}")).await;
    let edge = Edge::before(&origin).await;
    let mut client = edge.connect().await;
    let headers = [
        ("Authorization", &*bearer(&issuer)),
        ("X-Maitred-Identity", "forged"),
        ("Server", "x"),
    ];
    let answer = client
        .request("GET", "/closed/a/../b?x=1", &headers, b"")
        .await
        .unwrap();
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "{\"ok\":true}")
    );
    assert_eq!(
        answer.header("strict-transport-security"),
        Some("max-age=31536000; includeSubDomains")
    );

    let seen = origin.seen().remove(0);
    assert_eq!(seen.target, "/closed/b?x=1");
    assert_eq!(seen.header("authorization"), None);
    let identity = seen.header("x-maitred-identity").unwrap();
    let key = jsonwebtoken::DecodingKey::from_secret(ASSERTION_SECRET.as_bytes());
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    rules.set_audience(&["chefcloud-api"]);
    rules.set_issuer(&["maitred"]);
    let claims = jsonwebtoken::decode::<serde_json::Value>(identity, &key, &rules)
        .unwrap()
        .claims;
    assert_eq!(claims["sub"], "usr_a");
    assert_eq!(claims["rid"].as_str(), answer.header("x-request-id"));
    assert_eq!(
        seen.headers
            .iter()
            .filter(|(n, _)| n == "x-maitred-identity")
            .count(),
        1
    );
}

#[tokio::test]
async fn the_same_over_http2() {
    let issuer = TokenIssuer::new();
    let origin = Origin::start(issuer.jwks(), |_| Script::json("{}")).await;
    let edge = Edge::before(&origin).await;
    let client = edge.connect_h2().await;
    let token = bearer(&issuer);
    let answer = client
        .request("POST", "/closed/x", &[("authorization", &token)], b"body")
        .await;
    assert_eq!(answer.unwrap().status, 200);
    assert_eq!(origin.seen()[0].body, b"body");
    let refused = client.request("GET", "/closed/x", &[], b"").await.unwrap();
    assert_eq!(refused.status, 401);
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn the_plain_listener_redirects_and_answers_health_in_place() {
    let issuer = TokenIssuer::new();
    let origin = Origin::start(issuer.jwks(), |_| Script::status(200)).await;
    let edge = Edge::before(&origin).await;
    let mut client = crate::harness::client::Connection::plain(edge.http)
        .await
        .unwrap();
    let moved = client
        .request("GET", "/open/a?b=c", &[], b"")
        .await
        .unwrap();
    assert_eq!(
        (moved.status, moved.header("location")),
        (308, Some("https://localhost/open/a?b=c"))
    );
    let live = client.request("GET", "/healthz", &[], b"").await.unwrap();
    assert_eq!(live.status, 200);
    assert!(origin.seen().is_empty());
}
