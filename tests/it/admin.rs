//! The admin listener over real sockets, with a real inbox on disk behind it: what it serves, who may,
//! its bounds, the commands that speak to it, and its page in a real browser.

mod api;
mod bounds;
mod browser;
mod commands;
mod door;
mod runbook;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use maitred::admin::{self, View};
use maitred::kernel::clock::{Clock, UnixMs};
use maitred::kernel::reject::Reject;
use maitred::kernel::secret::Secret;
use maitred::telemetry::refusals::Recent;
use maitred::webhook::Refusal;
use maitred::webhook::inbox::{
    Attempt, DeadReason, EntryId, Event, Inbox, Outcome, Policy, Settings, Settlement, Standing,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::harness::client::{Connection, Response};
use crate::harness::within;

pub const TOKEN: &str = "an-admin-token-of-32-characters-0";
/// Received at this moment unless something else is said.
pub const RECEIVED: i64 = 1_700_000_000_000;

/// An admin listener of the test's own.
pub struct Window {
    pub address: SocketAddr,
    pub inbox: Inbox,
    pub refusals: Arc<Recent>,
    pub dir: TempDir,
    task: JoinHandle<()>,
}

impl Drop for Window {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Window {
    /// On loopback, without a token.
    pub async fn open() -> Self {
        Self::on("127.0.0.1:0", None).await
    }

    pub async fn on(address: &str, token: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::new(
            dir.path().join("inbox"),
            Policy {
                disk_free_bytes_min: 0,
                ..Policy::default()
            },
            Clock::system(),
        );
        let inbox = Inbox::open(settings).await.unwrap().inbox;
        let refusals = Arc::new(Recent::default());
        let (recent, token) = (refusals.clone(), token.map(Secret::new));
        let view = View {
            metrics: Box::new(|| Some("maitred_build_info 1\n".into())),
            detail: Box::new(|| json!({ "ready": true })),
            refusals: Box::new(move || recent.list()),
            version: Box::new(|| json!({ "version": "9.9.9" })),
            config: Box::new(|| json!({ "digest": "d" })),
            webhooks: Box::new(
                || json!([{ "endpoint": "billing", "outcome": "accepted", "count": 3 }]),
            ),
            inbox: Box::new({
                let inbox = inbox.clone();
                move || Some(inbox.clone())
            }),
            token: Box::new(move || token.clone()),
            clock: Clock::system(),
        };
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            admin::serve_on(listener, Arc::new(view)).await.unwrap();
        });
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            inbox,
            refusals,
            dir,
            task,
        }
    }

    pub async fn connect(&self) -> Connection {
        within("connect", Connection::plain(self.address))
            .await
            .unwrap()
    }

    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let mut connection = self.connect().await;
        within("an answer", connection.request(method, path, headers, body))
            .await
            .unwrap()
    }

    pub async fn get(&self, path: &str) -> Response {
        self.ask("GET", path, &[], b"").await
    }

    /// The JSON of a 200.
    pub async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.json()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        let json = ("Content-Type", "application/json");
        self.ask("POST", path, &[json], body.to_string().as_bytes())
            .await
    }

    pub async fn append(&self, event: Event) -> EntryId {
        self.inbox.append(event, Vec::new()).await.unwrap()
    }

    /// An event that the API has refused.
    pub async fn dead(&self, event: Event) -> EntryId {
        let now = UnixMs(event.received_at.0 + 60_000);
        let id = self.append(event).await;
        let claimed = self.inbox.claim("api", 1_000, now).await;
        assert!(claimed.iter().any(|c| c.id == id));
        let settle = |claimed: maitred::webhook::inbox::Claimed| {
            let settlement = match claimed.id == id {
                true => Settlement::Dead {
                    attempt: Attempt {
                        at: now,
                        took_ms: 12,
                        outcome: Outcome::Status(422),
                    },
                    reason: DeadReason::Refused,
                },
                false => Settlement::Unclaim,
            };
            (claimed.id, settlement)
        };
        let settled = claimed.into_iter().map(settle).collect();
        self.inbox.settle(settled, now).await.unwrap();
        id
    }

    pub async fn entries(&self, standing: Standing) -> u64 {
        self.inbox.stats().await.unwrap().total(standing).entries
    }

    pub fn refuse(&self, refusal: Refusal, request_id: &str, route: &str) {
        self.refusals
            .push(&Reject::from(refusal), request_id, route, UnixMs(RECEIVED));
    }
}

pub fn event(endpoint: &str, event_id: &str) -> Event {
    Event {
        endpoint: endpoint.into(),
        provider: "chefcloud".into(),
        destination: "api".into(),
        event_id: event_id.into(),
        received_at: UnixMs(RECEIVED),
        content_type: Some(Bytes::from_static(b"application/json")),
        headers: vec![
            ("user-agent".into(), "Provider/1.0".into()),
            ("x-signature".into(), "(masked)".into()),
        ],
        authenticated: "body".into(),
        traceparent: None,
        order_key: None,
        body: Bytes::from_static(b"{\"amount\":5000}"),
    }
}
