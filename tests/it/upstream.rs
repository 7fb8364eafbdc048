//! Between the edge and the service behind it: what is tried again and what never is, what the client
//! is told of each kind of trouble, and what crosses the edge unchanged.

mod bodies;
mod failures;
mod headers;
mod protection;

use crate::harness::client::Response;
use crate::harness::edge::{Edge, Setup};
use crate::harness::keys::TokenIssuer;
use crate::harness::origin::{Origin, Script, Seen};

/// Health checks that come so seldom that they decide nothing.
const NO_HEALTH: (&str, &str) = ("interval_ms = 200", "interval_ms = 600000");
/// A breaker that never opens.
const NO_BREAKER: &str = "[upstreams.api.breaker]\nfailures = 100000\n";
/// Attempts follow each other at once.
const QUICK_RETRIES: &str =
    "[upstreams.api.retry]\nattempts_max = 3\nbackoff_base_ms = 1\nbackoff_cap_ms = 1\n";

async fn origin(script: impl Fn(&Seen) -> Script + Send + Sync + 'static) -> Origin {
    Origin::start(TokenIssuer::new().jwks(), script).await
}

/// An edge whose health checks keep out of the way.
async fn edge(origins: &[&Origin], extra: &str) -> Edge {
    Edge::start(Setup {
        origins: origins.iter().map(|o| o.address).collect(),
        extra,
        replace: vec![NO_HEALTH],
    })
    .await
}

/// The refusal's code, after a look at the shape that all refusals have.
fn refusal(answer: &Response) -> String {
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{} {}",
        answer.status,
        answer.text()
    );
    let body = answer.json();
    assert_eq!(body["status"], answer.status);
    assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"));
    let kind = body["type"].as_str().unwrap();
    kind.strip_prefix("urn:maitred:refusal:")
        .unwrap()
        .to_owned()
}
