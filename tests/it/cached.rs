//! Routes with a cache: what is stored and for whom, when it is forgotten, and that no client can
//! change what another one gets.

mod forgetting;
mod poisoning;
mod requests;
mod stale;
mod storing;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::client::Response;
use crate::harness::edge::{Edge, Setup};
use crate::harness::either::{Client, Speaks};
use crate::harness::keys::TokenIssuer;
use crate::harness::origin::{Origin, Script, Seen};

/// One policy on a route for members of an organisation, on one for a user alone and on a public one.
const ROUTES: &str = r#"
[cache.policies.report]
query = ["orgId", "range"]
{policy}
[cache.policies.own]
scope = "user"
ttl_s = 60
[cache.policies.shown]
scope = "public"
{policy}
[[routes]]
path = "/report/{*rest}"
org_query = "orgId"
limits = []
cache = "report"
[[routes]]
path = "/own/{*rest}"
limits = []
cache = "own"
[[routes]]
path = "/shown/{*rest}"
auth = "public"
limits = []
cache = "shown"
"#;

/// A breaker that never opens.
const NO_BREAKER: &str = "[upstreams.api.breaker]\nfailures = 100000\n";

/// The edge with its origin and whoever signs tokens.
struct World {
    edge: Edge,
    origin: Origin,
    issuer: TokenIssuer,
}

/// The caller's part of a request.
struct Caller {
    client: Client,
    bearer: String,
}

impl World {
    /// `script` answers by the request and its number, which begins with 1.
    async fn new(
        policy: &str,
        script: impl Fn(&Seen, usize) -> Script + Send + Sync + 'static,
    ) -> Self {
        Self::with(policy, "", script).await
    }

    async fn with(
        policy: &str,
        extra: &str,
        script: impl Fn(&Seen, usize) -> Script + Send + Sync + 'static,
    ) -> Self {
        let issuer = TokenIssuer::new();
        let count = Arc::new(AtomicUsize::new(0));
        let handler = move |seen: &Seen| script(seen, count.fetch_add(1, Ordering::Relaxed) + 1);
        let origin = Origin::start(issuer.jwks(), handler).await;
        let edge = Edge::start(Setup {
            origins: vec![origin.address],
            extra: &format!("{}{extra}", ROUTES.replace("{policy}", policy)),
            replace: vec![("interval_ms = 200", "interval_ms = 600000")],
        })
        .await;
        Self {
            edge,
            origin,
            issuer,
        }
    }

    async fn caller(&self, speaks: Speaks, user: &str, org: &str) -> Caller {
        let token = self.issuer.token(user, &[org], "ENT");
        Caller {
            client: Client::open(&self.edge, speaks).await,
            bearer: format!("Bearer {token}"),
        }
    }

    /// A member of `org_a` over HTTP/1.1.
    async fn member(&self) -> Caller {
        self.caller(Speaks::Http1, "usr_a", "org_a").await
    }

    fn fetches(&self) -> usize {
        self.origin.seen().len()
    }
}

impl Caller {
    async fn get(&mut self, target: &str) -> Response {
        self.send("GET", target, &[]).await
    }

    async fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
        let mut all = vec![("authorization", &*self.bearer)];
        all.extend_from_slice(headers);
        let body: &[u8] = if method == "POST" { b"{}" } else { b"" };
        let answer = self.client.request(method, target, &all, body).await;
        answer.unwrap_or_else(|e| panic!("{method} {target}: {e}"))
    }

    /// What the cache says it did.
    async fn status(&mut self, target: &str) -> String {
        cache(&self.get(target).await)
    }
}

fn cache(answer: &Response) -> String {
    answer.header("x-cache").unwrap_or("nothing").to_owned()
}

/// A body that says how often the origin was asked.
fn numbered(n: usize) -> Script {
    Script::json(&format!("{{\"n\":{n}}}"))
}

/// The same with more header fields.
fn with(n: usize, headers: &[(&'static str, &str)]) -> Script {
    let headers = headers.iter().map(|(n, v)| (*n, (*v).to_owned()));
    Script::Answer {
        status: 200,
        headers: headers.collect(),
        body: format!("{{\"n\":{n}}}").into_bytes(),
    }
}
