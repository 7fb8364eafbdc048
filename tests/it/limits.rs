//! Request limits as clients meet them: whose count it is, what the headers say, and what does not
//! count.

use std::time::{Duration, Instant};

use crate::harness::client::Response;
use crate::harness::edge::{Edge, Setup};
use crate::harness::either::{BOTH, Client, Speaks};
use crate::harness::keys::{TokenIssuer, claims};
use crate::harness::origin::{Origin, Script};
use crate::harness::until;

/// Small numbers, and a route for each kind of limit.
const LIMITS: &str = r#"
[plans.FREE]
requests = 3
[plans.PRO]
requests = 5
[classes.anonymous]
requests = 2
[classes.auth]
requests = 2
[classes.heavy]
requests = 2
[classes.brief]
requests = 2
window_s = 2
key = "principal"
[cache.policies.kept]
scope = "user"
ttl_s = 60
[[routes]]
path = "/anonymous"
auth = "public"
limits = ["anonymous"]
[[routes]]
path = "/login"
methods = ["POST"]
auth = "public"
limits = ["auth"]
[[routes]]
path = "/heavy"
limits = ["heavy"]
[[routes]]
path = "/brief"
limits = ["brief"]
[[routes]]
path = "/kept"
cache = "kept"
"#;

struct World {
    edge: Edge,
    origin: Origin,
    issuer: TokenIssuer,
}

impl World {
    async fn new(extra: &str) -> Self {
        let issuer = TokenIssuer::new();
        let origin = Origin::start(issuer.jwks(), |seen| match seen.target.as_str() {
            "/closed/500" => Script::status(500),
            _ => Script::json("{}"),
        })
        .await;
        let edge = Edge::start(Setup {
            origins: vec![origin.address],
            extra: &format!("{LIMITS}{extra}"),
            // A burst on a busy machine is no failure of the origin's.
            replace: vec![
                ("connect_timeout_ms = 1000", "connect_timeout_ms = 20000"),
                (
                    "first_byte_timeout_ms = 3000",
                    "first_byte_timeout_ms = 20000",
                ),
            ],
        })
        .await;
        Self {
            edge,
            origin,
            issuer,
        }
    }

    fn bearer(&self, user: &str, plan: &str) -> String {
        format!("Bearer {}", self.issuer.token(user, &["org_a"], plan))
    }

    async fn get(&self, speaks: Speaks, target: &str, bearer: &str) -> Response {
        let mut client = Client::open(&self.edge, speaks).await;
        client.get(target, &[("authorization", bearer)]).await
    }
}

fn number(answer: &Response, name: &str) -> u32 {
    let value = answer.header(name).unwrap_or_else(|| panic!("no {name}"));
    value.parse().unwrap()
}

/// A refusal for want of quota.
fn assert_limited(answer: &Response) {
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(answer.json()["type"], "urn:maitred:refusal:rate-limited");
    assert_eq!(number(answer, "x-ratelimit-remaining"), 0);
    assert!(number(answer, "retry-after") >= 1);
    assert!(number(answer, "x-ratelimit-reset") >= number(answer, "retry-after"));
}

#[tokio::test]
async fn a_plan_allows_so_many_and_says_how_many_are_left() {
    let world = World::new("").await;
    for (plan, user, most) in [("FREE", "usr_free", 3), ("PRO", "usr_pro", 5)] {
        let bearer = world.bearer(user, plan);
        let before = world.origin.seen().len();
        for n in 0..most {
            // One count, whatever the protocol and the connection.
            let answer = world.get(BOTH[n % 2], "/closed/x", &bearer).await;
            assert_eq!(answer.status, 200);
            let left = u32::try_from(most - n - 1).unwrap();
            assert_eq!(
                number(&answer, "x-ratelimit-limit"),
                u32::try_from(most).unwrap()
            );
            assert_eq!(number(&answer, "x-ratelimit-remaining"), left);
            let name = format!("\"plan-{}\"", plan.to_lowercase());
            let policy = format!("{name};q={most};w=60");
            assert_eq!(answer.header("ratelimit-policy"), Some(&*policy));
            let state = answer.header("ratelimit").unwrap();
            assert!(state.starts_with(&format!("{name};r={left};t=")), "{state}");
            assert_eq!(answer.header("retry-after"), None);
        }
        for speaks in BOTH {
            let refused = world.get(speaks, "/closed/x", &bearer).await;
            assert_limited(&refused);
            let wait = number(&refused, "retry-after");
            assert!(wait <= 60 / u32::try_from(most).unwrap(), "{wait}");
        }
        assert_eq!(world.origin.seen().len(), before + most);
    }
}

#[tokio::test]
async fn users_have_counts_of_their_own_and_tokens_have_not() {
    let world = World::new("").await;
    for _ in 0..3 {
        // A fresh token is the same caller.
        let bearer = world.bearer("usr_a", "FREE");
        assert_eq!(
            world.get(Speaks::Http2, "/closed/x", &bearer).await.status,
            200
        );
    }
    assert_limited(
        &world
            .get(Speaks::Http1, "/closed/x", &world.bearer("usr_a", "FREE"))
            .await,
    );
    let other = world
        .get(Speaks::Http1, "/closed/x", &world.bearer("usr_b", "FREE"))
        .await;
    assert_eq!(
        (other.status, number(&other, "x-ratelimit-remaining")),
        (200, 2)
    );
    // A plan that is not configured is no plan at all.
    let unknown = world
        .get(Speaks::Http1, "/closed/x", &world.bearer("usr_c", "GOLD"))
        .await;
    assert_eq!(unknown.status, 403);
}

#[tokio::test]
async fn what_was_not_the_users_doing_does_not_count_against_them() {
    let world = World::new("").await;
    let forger = TokenIssuer::new();
    let mut forged = claims("usr_a", &["org_a"], "FREE", 900);
    forged["jti"] = "tok_forged".into();
    let forged = format!("Bearer {}", forger.encode(&forged));
    let expired = world
        .issuer
        .encode(&claims("usr_a", &["org_a"], "FREE", -600));
    let expired = format!("Bearer {expired}");
    for bearer in [&forged, &expired] {
        for _ in 0..5 {
            let answer = world.get(Speaks::Http2, "/closed/x", bearer).await;
            assert_eq!((answer.status, answer.header("ratelimit")), (401, None));
        }
    }
    let mut client = Client::open(&world.edge, Speaks::Http2).await;
    for _ in 0..5 {
        let preflight = [
            ("origin", "https://a.test"),
            ("access-control-request-method", "GET"),
        ];
        client
            .request("OPTIONS", "/closed/x", &preflight, b"")
            .await
            .unwrap();
        assert_eq!(client.get("/healthz", &[]).await.status, 200);
    }
    let first = world
        .get(Speaks::Http2, "/closed/x", &world.bearer("usr_a", "FREE"))
        .await;
    assert_eq!(
        (first.status, number(&first, "x-ratelimit-remaining")),
        (200, 2)
    );
}

#[tokio::test]
async fn strangers_are_counted_by_address() {
    let world = World::new("").await;
    for speaks in BOTH {
        let mut client = Client::open(&world.edge, speaks).await;
        // Nobody believes what a stranger says of addresses.
        let answer = client
            .get("/anonymous", &[("x-forwarded-for", "203.0.113.1")])
            .await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("ratelimit-policy"),
            Some("\"anonymous\";q=2;w=900")
        );
    }
    let mut client = Client::open(&world.edge, Speaks::Http1).await;
    for claimed in ["203.0.113.2", "203.0.113.3"] {
        let refused = client
            .get("/anonymous", &[("x-forwarded-for", claimed)])
            .await;
        assert_limited(&refused);
        assert!(number(&refused, "retry-after") > 60);
    }
}

#[tokio::test]
async fn behind_a_trusted_hop_each_client_has_its_own_count() {
    let world = World::new("[guard]\ntrusted_hops = [\"127.0.0.0/8\"]\n").await;
    let mut client = Client::open(&world.edge, Speaks::Http2).await;
    for (address, statuses) in [
        ("203.0.113.1", [200, 200, 429]),
        ("203.0.113.2", [200, 200, 429]),
        ("2001:db8:0:1::1", [200, 200, 429]),
    ] {
        for status in statuses {
            let answer = client
                .get("/anonymous", &[("x-forwarded-for", address)])
                .await;
            assert_eq!(answer.status, status, "{address}");
        }
    }
    // One customer has a whole /64.
    for (address, status) in [("2001:db8:0:1:ffff::9", 429), ("2001:db8:0:2::1", 200)] {
        let answer = client
            .get("/anonymous", &[("x-forwarded-for", address)])
            .await;
        assert_eq!(answer.status, status, "{address}");
    }
}

#[tokio::test]
async fn classes_keep_their_own_counts() {
    let world = World::new("").await;
    let mut client = Client::open(&world.edge, Speaks::Http1).await;
    for n in 0..3 {
        let login = client.request("POST", "/login", &[], b"{}").await.unwrap();
        if n < 2 {
            assert_eq!(login.status, 200);
            assert_eq!(login.header("ratelimit-policy"), Some("\"auth\";q=2;w=900"));
        } else {
            assert_limited(&login);
            client = Client::open(&world.edge, Speaks::Http1).await;
        }
    }
    assert_eq!(client.get("/anonymous", &[]).await.status, 200);
    let bearer = world.bearer("usr_a", "PRO");
    for status in [200, 200, 429] {
        let answer = world.get(Speaks::Http2, "/heavy", &bearer).await;
        assert_eq!(answer.status, status);
    }
    let plan = world.get(Speaks::Http2, "/closed/x", &bearer).await;
    assert_eq!(
        (plan.status, number(&plan, "x-ratelimit-remaining")),
        (200, 4)
    );
    let other = world
        .get(Speaks::Http2, "/heavy", &world.bearer("usr_b", "PRO"))
        .await;
    assert_eq!(other.status, 200);
}

#[tokio::test]
async fn every_answer_of_a_limited_route_says_where_the_caller_stands() {
    let world = World::new("").await;
    let bearer = world.bearer("usr_a", "PRO");
    for (target, status, left) in [
        ("/kept", 200, 4),
        ("/kept", 200, 3),
        ("/closed/500", 500, 2),
    ] {
        let answer = world.get(Speaks::Http2, target, &bearer).await;
        assert_eq!(answer.status, status);
        assert_eq!(number(&answer, "x-ratelimit-remaining"), left, "{target}");
    }
    // A stored answer counts as well, and does not bring an old count along.
    assert_eq!(world.origin.seen().len(), 2);
    let open = world.get(Speaks::Http2, "/open/x", &bearer).await;
    assert_eq!((open.status, open.header("ratelimit")), (200, None));
}

#[tokio::test]
async fn quota_comes_back_when_the_answer_said_it_would() {
    let world = World::new("").await;
    let bearer = world.bearer("usr_a", "FREE");
    for _ in 0..2 {
        assert_eq!(
            world.get(Speaks::Http2, "/brief", &bearer).await.status,
            200
        );
    }
    let asked = Instant::now();
    let refused = world.get(Speaks::Http2, "/brief", &bearer).await;
    assert_limited(&refused);
    assert_eq!(number(&refused, "retry-after"), 1);
    until("quota", || async {
        let answer = world.get(Speaks::Http2, "/brief", &bearer).await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
}

#[tokio::test]
async fn a_burst_gets_exactly_the_quota() {
    let world = World::new("").await;
    let bearer = world.bearer("usr_a", "PRO");
    let connection = world.edge.connect_h2().await;
    let headers = [("authorization", &*bearer)];
    let mut answers = Vec::new();
    for _ in 0..40 {
        answers.push(
            connection
                .start("GET", "/closed/x", &headers, true)
                .await
                .unwrap()
                .0,
        );
    }
    let mut passed = 0;
    for answer in answers {
        match answer.await.unwrap().status().as_u16() {
            200 => passed += 1,
            429 => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!((passed, world.origin.seen().len()), (5, 5));
    let series = "maitred_limit_decisions_total{decision=\"refused\",policy=\"plan-pro\"}";
    assert_eq!(world.edge.metric(series).await, 35.0);
}
