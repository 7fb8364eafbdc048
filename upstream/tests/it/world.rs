//! One API over one database, served on a free port, with demo data; and the edge's side of the
//! contract: assertions and signed deliveries.

use std::{net::SocketAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chefcloud_api::{Api, Clock, Config, Demo, Listener};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use sha2::Sha256;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Row as _};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};

use crate::{
    client::{Answer, Call, DEADLINE, Events},
    database::{Database, Engine, SKIP},
};

pub(crate) const ASSERTION_SECRET: &str = "an assertion secret of the tests";
const DELIVERY_KEY: &[u8] = b"a delivery key of the tests only";

pub(crate) struct World {
    pub(crate) database_url: String,
    shift_ms: i64,
    pub(crate) demo: Demo,
    pub(crate) served: Served,
}

/// A running API.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) clock: Clock,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<anyhow::Result<()>>,
}

pub(crate) fn run(engine: Engine, test: impl AsyncFnOnce(&World)) {
    if engine == Engine::Postgres && std::env::var_os(SKIP).is_some_and(|value| value == "1") {
        eprintln!("left out: {SKIP}=1");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let database = Database::create(engine).await;
        let api = open(&database.url).await;
        // At noon, so that no day turns while a test runs.
        let now = api.clock().now();
        let shift_ms = now.day().start().0 + 12 * 60 * 60 * 1000 - now.0;
        api.clock().shift(shift_ms);
        let demo = api.seed_demo().await.unwrap();
        let served = serve(api).await;
        let world = World {
            database_url: database.url.clone(),
            shift_ms,
            demo,
            served,
        };
        test(&world).await;
        world.served.stop().await;
        database.remove().await;
    });
}

pub(crate) fn config(database_url: &str) -> Config {
    let delivery = format!("whsec_{}", STANDARD.encode(DELIVERY_KEY));
    Config::development(
        database_url.to_owned(),
        ASSERTION_SECRET.to_owned(),
        delivery,
    )
}

pub(crate) async fn open(database_url: &str) -> Api {
    Api::open(config(database_url)).await.unwrap()
}

pub(crate) async fn serve(api: Api) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let clock = api.clock();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let serving = tokio::spawn(api.serve(Listener::Tcp(listener), shutdown));
    Served {
        address,
        clock,
        stop,
        serving,
    }
}

impl Served {
    /// Tells the API to stop and waits until it has: it must do so by itself and without error.
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(DEADLINE, self.serving)
            .await
            .expect("a prompt stop")
            .unwrap()
            .unwrap();
    }
}

impl World {
    /// Another API on the same database and with the same time of day.
    pub(crate) async fn replica(&self) -> Api {
        self.replica_with(config(&self.database_url)).await
    }

    pub(crate) async fn replica_with(&self, config: Config) -> Api {
        let api = Api::open(config).await.unwrap();
        api.clock().shift(self.shift_ms);
        api
    }

    pub(crate) async fn send(&self, call: Call) -> Answer {
        call.send(self.served.address).await
    }

    pub(crate) async fn get(&self, path: &str, identity: &str) -> Answer {
        self.send(Call::get(path).identity(identity)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value, identity: &str) -> Answer {
        self.send(Call::post(path, body).identity(identity)).await
    }

    pub(crate) async fn kpis(&self, last_event_id: Option<i64>) -> Events {
        let mut call = Call::get("/stream/kpis?orgId=org_demo").identity(&self.manager());
        if let Some(id) = last_event_id {
            call = call.header("last-event-id", id.to_string());
        }
        call.stream(self.served.address).await
    }

    pub(crate) async fn edge_events(&self, last_event_id: Option<i64>) -> Events {
        let claims = self.claims("maitred", json!({}), &["edge"]);
        let mut call = Call::get("/internal/edge-events").identity(&assertion(&claims));
        if let Some(id) = last_event_id {
            call = call.header("last-event-id", id.to_string());
        }
        call.stream(self.served.address).await
    }

    /// A closed order of the demo organisation.
    pub(crate) async fn order(&self, total_minor: i64) -> Answer {
        self.post("/orders", &self.order_body(total_minor), &self.manager())
            .await
            .expect(201)
    }

    pub(crate) fn order_body(&self, total_minor: i64) -> Value {
        json!({
            "orgId": self.demo.org_id,
            "branchId": self.demo.branch_id,
            "total": total_minor,
            "currency": "USD",
        })
    }

    pub(crate) async fn overview(&self) -> Value {
        let path = "/franchise/overview?orgId=org_demo&range=today";
        self.get(path, &self.manager()).await.expect(200).json()
    }

    pub(crate) fn manager(&self) -> String {
        self.identity(json!({ "org_demo": "manager" }))
    }

    /// The demo manager with these memberships.
    pub(crate) fn identity(&self, orgs: Value) -> String {
        assertion(&self.claims("usr_demo_manager", orgs, &["api"]))
    }

    pub(crate) fn claims(&self, subject: &str, orgs: Value, scopes: &[&str]) -> Value {
        let now = now_s(&self.served.clock);
        json!({
            "iss": "maitred", "aud": "chefcloud-api", "sub": subject, "jti": "tok_test",
            "orgs": orgs, "plan": "PRO", "scopes": scopes, "rid": "req_test",
            "iat": now, "exp": now + 60,
        })
    }

    /// The identity the edge would assert for an access token of ours.
    pub(crate) fn identity_of(&self, access_token: &str) -> String {
        let token: Value = claims_of(access_token);
        let mut claims = self.claims(
            token["sub"].as_str().unwrap(),
            token["orgs"].clone(),
            &["api"],
        );
        claims["jti"] = token["jti"].clone();
        assertion(&claims)
    }

    pub(crate) async fn deliver(&self, endpoint: &str, event_id: &str, body: &str) -> Answer {
        self.send(self.delivery(endpoint, event_id, body)).await
    }

    /// A delivery as the edge signs it.
    pub(crate) fn delivery(&self, endpoint: &str, event_id: &str, body: &str) -> Call {
        let seconds = now_s(&self.served.clock);
        self.delivery_at(endpoint, event_id, body, seconds)
    }

    pub(crate) fn delivery_at(
        &self,
        endpoint: &str,
        event_id: &str,
        body: &str,
        seconds: i64,
    ) -> Call {
        let mut mac = Hmac::<Sha256>::new_from_slice(DELIVERY_KEY).unwrap();
        mac.update(format!("{event_id}.{seconds}.{body}").as_bytes());
        let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        Call::post_bytes(format!("/internal/webhooks/{endpoint}"), body.to_owned())
            .header("content-type", "application/json")
            .header("webhook-id", event_id)
            .header("webhook-timestamp", seconds.to_string())
            .header("webhook-signature", signature)
            .header("idempotency-key", event_id)
            .header("x-maitred-provider", "chefcloud")
            .header("x-maitred-received-at", "2024-11-21T10:00:00.000Z")
            .header("x-maitred-attempt", "1")
    }

    /// One number straight from the database.
    pub(crate) async fn count(&self, query: &str) -> i64 {
        self.row(query).await.try_get::<i64, _>(0).unwrap()
    }

    pub(crate) async fn text(&self, query: &str) -> String {
        self.row(query).await.try_get::<String, _>(0).unwrap()
    }

    async fn row(&self, query: &str) -> sqlx::any::AnyRow {
        let mut connection = AnyConnection::connect(&self.database_url).await.unwrap();
        let row = sqlx::query(AssertSqlSafe(query.to_owned()))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        row
    }
}

/// What an access token says, unverified.
pub(crate) fn claims_of(token: &str) -> Value {
    jsonwebtoken::dangerous::insecure_decode::<Value>(token)
        .unwrap()
        .claims
}

pub(crate) fn assertion(claims: &Value) -> String {
    assertion_with(claims, ASSERTION_SECRET)
}

pub(crate) fn assertion_with(claims: &Value, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

pub(crate) fn now_s(clock: &Clock) -> i64 {
    clock.now().0 / 1000
}

/// Looks again until `holds`, or fails at the deadline.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let look = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, look)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}
