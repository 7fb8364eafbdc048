//! The product as `maitred serve` starts it for a developer: the real API embedded on a database file,
//! and the routes of the shipped configuration. What a restaurant's browser, its provider and its
//! neighbour would do.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::{Value, json};

use crate::harness::client::Response;
use crate::harness::edge::Edge;
use crate::harness::either::{BOTH, Client, Speaks};
use crate::harness::hook::{EXAMPLE, Event, PATH};
use crate::harness::keys::{ASSERTION_SECRET, DELIVERY_SECRET, WEBHOOK_SECRET};
use crate::harness::stream::{Events, Protocol};
use crate::harness::until;

/// Laid over `config/maitred.toml`, as `config/dev.toml` is. The quotas leave room for the tests.
const CONFIG: &str = r#"
environment = "development"
include = ["{repository}/config/maitred.toml"]
[server]
threads = 2
upgrade_socket = "{dir}/upgrade.sock"
[listeners.https]
address = "127.0.0.1:0"
[listeners.http]
address = "127.0.0.1:0"
[listeners.admin]
address = "127.0.0.1:0"
[tls]
certificates = [{ chain = "{dir}/localhost.pem", key = "{dir}/localhost.key" }]
[identity]
assertion_secret = { danger_secret = "{assertion}" }
[delivery]
secret = { danger_secret = "{delivery}" }
[inbox]
path = "{dir}/inbox"
[webhooks.endpoints.billing]
mode = "pass"
secrets = [{ name = "current", danger_secret = "{webhook}" }]
[webhooks.endpoints.marketplace]
mode = "pass"
secrets = [{ name = "current", danger_secret = "{webhook}" }]
[upstreams.api]
endpoints = ["{api}"]
connect_timeout_ms = 10000
[upstreams.api.health]
interval_ms = 500
timeout_ms = 500
[plans.FREE]
requests = 1000
[plans.PRO]
requests = 1000
[classes.auth]
requests = 100
[drain]
announce_ms = 0
streams_window_ms = 200
[log]
level = "info,maitred=debug"
format = "json"
[embedded_api]
enabled = true
listen = "{api}"
database_url = "sqlite://{dir}/data/chefcloud.db?mode=rwc"
danger_seed_demo = true
"#;

const MANAGER: (&str, &str) = ("manager@staging.com", "staging-manager-1");
const OTHER_OWNER: (&str, &str) = ("owner@other.test", "staging-owner-1");
const OVERVIEW: &str = "/franchise/overview?orgId=org_demo&range=today";

/// A loopback address that nobody else uses, so that its free port stays free until the API binds it.
fn api_address() -> SocketAddr {
    static STARTED: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, STARTED.fetch_add(1, Ordering::Relaxed), high, low);
    let listener = std::net::TcpListener::bind((own, 0)).unwrap();
    listener.local_addr().unwrap()
}

async fn edge() -> Edge {
    let api = api_address();
    let edge = Edge::on(|dir| config(dir, api)).await;
    until("the API is ready", || async {
        let mut client = Client::open(&edge, Speaks::Http1).await;
        (client.get("/readiness", &[]).await.status == 200).then_some(())
    })
    .await;
    edge
}

fn config(dir: &Path, api: SocketAddr) -> String {
    CONFIG
        .replace("{repository}", env!("CARGO_MANIFEST_DIR"))
        .replace("{dir}", &dir.display().to_string())
        .replace("{api}", &api.to_string())
        .replace("{assertion}", ASSERTION_SECRET)
        .replace("{delivery}", DELIVERY_SECRET)
        .replace("{webhook}", WEBHOOK_SECRET)
}

/// Somebody who has logged in.
struct User {
    client: Client,
    bearer: String,
    refresh: String,
}

impl User {
    async fn login(edge: &Edge, speaks: Speaks, (email, password): (&str, &str)) -> Self {
        let mut client = Client::open(edge, speaks).await;
        let body = json!({"email": email, "password": password});
        let answer = post(&mut client, "/auth/login", &[], &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let tokens = answer.json();
        Self {
            client,
            bearer: format!("Bearer {}", tokens["accessToken"].as_str().unwrap()),
            refresh: tokens["refreshToken"].as_str().unwrap().to_owned(),
        }
    }

    async fn get(&mut self, target: &str) -> Response {
        let headers = [("authorization", &*self.bearer)];
        self.client.get(target, &headers).await
    }

    async fn post(&mut self, target: &str, body: &Value) -> Response {
        let bearer = self.bearer.clone();
        post(
            &mut self.client,
            target,
            &[("authorization", &bearer)],
            body,
        )
        .await
    }

    /// The overview's summary, and what the cache did.
    async fn overview(&mut self) -> (Value, String) {
        let answer = self.get(OVERVIEW).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let cache = answer.header("x-cache").unwrap().to_owned();
        (answer.json()["summary"].clone(), cache)
    }
}

async fn post(
    client: &mut Client,
    target: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Response {
    let mut all = vec![("content-type", "application/json")];
    all.extend_from_slice(headers);
    let body = body.to_string();
    client
        .request("POST", target, &all, body.as_bytes())
        .await
        .unwrap()
}

fn order(total: i64) -> Value {
    json!({"orgId": "org_demo", "branchId": "brn_demo_centro", "total": total, "currency": "USD"})
}

fn receipt(po: &str, quantity: u32) -> Value {
    json!({
        "orgId": "org_demo", "poId": po, "receivedBy": "tests",
        "items": [{"itemId": "itm_demo_flour", "quantity": quantity}],
    })
}

#[tokio::test]
async fn figures_are_cached_until_goods_or_orders_change_them() {
    let edge = edge().await;
    for speaks in BOTH {
        let mut manager = User::login(&edge, speaks, MANAGER).await;
        manager.overview().await;
        let (before, cache) = manager.overview().await;
        assert_eq!(cache, "HIT", "{speaks:?}");

        // The whole of a small order: it is no longer open. The large one takes any number.
        let (po, quantity) = match speaks {
            Speaks::Http1 => ("po_demo_small", 10),
            Speaks::Http2 => ("po_demo_flour", 2),
        };
        let received = manager
            .post(
                "/procurement/purchase-orders/receive",
                &receipt(po, quantity),
            )
            .await;
        assert!(received.status < 300, "{}", received.text());
        assert_eq!(received.header("cache-group-invalidation"), None);
        let (after, cache) = manager.overview().await;
        assert_eq!(cache, "MISS", "{speaks:?}");
        if speaks == Speaks::Http1 {
            let open = |v: &Value| v["openPurchaseOrders"].as_i64().unwrap();
            assert_eq!(open(&after), open(&before) - 1);
        }
        assert_eq!(manager.overview().await.1, "HIT");

        let closed = manager.post("/orders", &order(4_200)).await;
        assert!(closed.status < 300, "{}", closed.text());
        let (grown, cache) = manager.overview().await;
        assert_eq!(cache, "MISS", "{speaks:?}");
        let number = |v: &Value, name: &str| v[name].as_i64().unwrap();
        assert_eq!(number(&grown, "orders"), number(&after, "orders") + 1);
        assert_eq!(number(&grown, "revenue"), number(&after, "revenue") + 4_200);
    }
    let log = edge.log();
    assert!(
        log.contains("Invalidating org=org_demo"),
        "the line that operators look for"
    );
}

#[tokio::test]
async fn an_order_is_on_the_stream_while_it_is_open() {
    let edge = edge().await;
    for (speaks, protocol) in BOTH.into_iter().zip([Protocol::H1, Protocol::H2]) {
        let mut manager = User::login(&edge, speaks, MANAGER).await;
        let headers = [("authorization", &*manager.bearer)];
        let target = "/stream/kpis?orgId=org_demo";
        let mut stream = Events::open_at(&edge, protocol, target, &headers).await;
        assert_eq!(stream.head.status, 200, "{:?}", stream.head);
        assert_eq!(
            stream.head.header("content-type"),
            Some("text/event-stream")
        );
        stream
            .until("the figures at the start", |seen| {
                seen.contains("\"snapshot\"")
            })
            .await;
        let first = updates(&stream.seen).pop().unwrap();

        let closed = manager.post("/orders", &order(1_000)).await;
        assert!(closed.status < 300, "{}", closed.text());
        stream
            .until("the order", |seen| updates(seen).len() == 2)
            .await;
        let second = updates(&stream.seen).pop().unwrap();
        let number = |v: &Value, name: &str| v[name].as_i64().unwrap();
        assert_eq!(number(&second, "orders"), number(&first, "orders") + 1);
        assert_eq!(
            number(&second, "revenue"),
            number(&first, "revenue") + 1_000
        );

        // Where it ended is where the next one begins.
        let id = stream
            .seen
            .lines()
            .rev()
            .find_map(|l| l.strip_prefix("id:"));
        let id = id.unwrap().trim().to_owned();
        drop(stream);
        let closed = manager.post("/orders", &order(500)).await;
        assert!(closed.status < 300, "{}", closed.text());
        let headers = [("authorization", &*manager.bearer), ("last-event-id", &*id)];
        let mut resumed = Events::open_at(&edge, protocol, target, &headers).await;
        resumed
            .until("what was missed", |seen| !updates(seen).is_empty())
            .await;
        let missed = updates(&resumed.seen).remove(0);
        assert_eq!(number(&missed, "orders"), number(&second, "orders") + 1);
        assert!(!resumed.seen.contains("snapshot"), "{}", resumed.seen);
    }
}

/// The data of all whole `kpi-update` events so far.
fn updates(seen: &str) -> Vec<Value> {
    let whole = seen.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    let events = whole.split("\n\n").filter(|e| e.contains("kpi-update"));
    let data = events.filter_map(|e| e.lines().find_map(|l| l.strip_prefix("data:")));
    data.map(|d| serde_json::from_str(d.trim()).unwrap())
        .collect()
}

#[tokio::test]
async fn a_webhook_is_applied_once() {
    let edge = edge().await;
    let mut first = edge.connect().await;
    let event = Event::of(EXAMPLE).with("content-type", "application/json");
    let taken = event.post(&mut first).await.unwrap();
    assert_eq!(taken.status, 200, "{}", taken.text());
    assert_eq!(taken.json()["status"], "applied");
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let mut headers = event.headers();
        headers.push(("x-request-id", "another-name"));
        let replay = client
            .request("POST", PATH, &headers, &event.body)
            .await
            .unwrap();
        assert_eq!(replay.status, 401, "{speaks:?}");
        // The same event signed anew is a provider's honest retry, and no second payment.
        let retry = Event::of(EXAMPLE).with("x-attempt", "2");
        let retry = client
            .request("POST", PATH, &retry.headers(), EXAMPLE)
            .await
            .unwrap();
        assert_eq!(
            (retry.status, &retry.json()["status"]),
            (200, &json!("duplicate")),
            "{speaks:?}"
        );
        let forged = Event::signed(
            EXAMPLE,
            "not-the-secret-of-anybody-at-all",
            &event.timestamp,
        );
        let forged = client
            .request("POST", PATH, &forged.headers(), EXAMPLE)
            .await
            .unwrap();
        assert_eq!(forged.status, 401);
        let id = format!("evt_{speaks:?}");
        let paid = Event::of(json!({"event": "invoice.paid", "id": id, "amount": 100}).to_string());
        let paid = client
            .request("POST", PATH, &paid.headers(), &paid.body)
            .await
            .unwrap();
        assert_eq!(
            (paid.status, &paid.json()["status"]),
            (200, &json!("applied")),
            "{speaks:?}"
        );
    }
    let unreadable = Event::of(r#"{"event":"invoice.paid","id":"evt_bad"}"#);
    let mut client = edge.connect().await;
    let answer = unreadable.post(&mut client).await.unwrap();
    assert_eq!(answer.status, 422, "{}", answer.text());
}

#[tokio::test]
async fn neighbours_never_see_each_other() {
    let edge = edge().await;
    for speaks in BOTH {
        let mut manager = User::login(&edge, speaks, MANAGER).await;
        let mut neighbour = User::login(&edge, speaks, OTHER_OWNER).await;
        let (ours, _) = manager.overview().await;
        for foreign in [
            OVERVIEW,
            "/franchise/rankings?orgId=org_demo&period=2024-11",
            "/stream/kpis?orgId=org_demo",
        ] {
            let answer = neighbour.get(foreign).await;
            assert_eq!(
                (answer.status, answer.header("x-cache")),
                (403, None),
                "{foreign}"
            );
        }
        let theirs = neighbour
            .get("/franchise/overview?orgId=org_other&range=today")
            .await;
        assert_eq!(
            (theirs.status, &theirs.json()["orgId"]),
            (200, &json!("org_other"))
        );
        assert_ne!(theirs.json()["summary"], ours);
        // Where the organisation is in the body the API is the judge.
        for (target, body) in [
            ("/orders", order(1)),
            (
                "/procurement/purchase-orders/receive",
                receipt("po_demo_flour", 1),
            ),
        ] {
            let answer = neighbour.post(target, &body).await;
            assert!(
                [403, 404].contains(&answer.status),
                "{target}: {}",
                answer.text()
            );
        }
        assert_eq!(manager.overview().await, (ours, "HIT".to_owned()));
        // Only the edge may say who is calling.
        let mut stranger = Client::open(&edge, speaks).await;
        let forged = [("x-maitred-identity", "eyJhbGciOiJIUzI1NiJ9.e30.x")];
        assert_eq!(stranger.get("/auth/me", &forged).await.status, 401);
        for inside in [
            "/internal/edge-events",
            "/internal/webhooks/billing",
            "/ready/../internal/edge-events",
        ] {
            assert_eq!(neighbour.get(inside).await.status, 404, "{inside}");
        }
    }
}

#[tokio::test]
async fn a_session_begins_with_a_password_and_ends_with_logout() {
    let edge = edge().await;
    for speaks in BOTH {
        let mut client = Client::open(&edge, speaks).await;
        let wrong = json!({"email": MANAGER.0, "password": "wrong"});
        let refused = post(&mut client, "/auth/login", &[], &wrong).await;
        assert_eq!(refused.status, 401);
        assert!(
            refused
                .header("ratelimit-policy")
                .unwrap()
                .starts_with("\"auth\"")
        );

        let mut manager = User::login(&edge, speaks, MANAGER).await;
        let me = manager.get("/auth/me").await;
        assert_eq!(me.status, 200, "{}", me.text());
        assert!(me.text().contains(MANAGER.0));
        let body = json!({"refreshToken": manager.refresh});
        let renewed = post(&mut client, "/auth/refresh", &[], &body).await;
        assert_eq!(renewed.status, 200, "{}", renewed.text());
        manager.bearer = format!("Bearer {}", renewed.json()["accessToken"].as_str().unwrap());
        assert_eq!(manager.get("/auth/me").await.status, 200);

        let out = manager.post("/auth/logout", &json!({})).await;
        assert_eq!(out.status, 204, "{}", out.text());
        let body = json!({"refreshToken": renewed.json()["refreshToken"]});
        let late = post(&mut client, "/auth/refresh", &[], &body).await;
        assert_eq!(late.status, 401, "a session that ended cannot be renewed");
    }
    let log = edge.log();
    assert!(
        !log.contains(MANAGER.1) && !log.contains("eyJ"),
        "credentials in the log"
    );
}
