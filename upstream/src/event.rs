//! Events out: what a transaction tells the rest of the world, written with its effect and announced
//! after its commit. Who listens is not decided here.
//!
//! Order of steps: effect → `publish` (takes the topic's lock, so late in the transaction) → commit →
//! announce in this process; other replicas find the new head by polling.

pub(crate) mod figures;
pub(crate) mod hub;
pub(crate) mod outbox;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    error::ApiResult,
    kernel::clock::Millis,
    store::{Store, Tx},
};
use hub::Hub;

/// What an order or a receipt changes among the answers that may be cached.
pub(crate) const FIGURES_GROUPS: [&str; 2] = ["overview", "rankings"];

/// The topic that every edge node reads: revoked tokens, stale caches, changed plans.
pub(crate) const EDGE_TOPIC: &str = "edge";

/// A transaction and what it will announce once it is committed.
pub(crate) struct Work {
    pub tx: Tx,
    hub: Arc<Hub>,
    announcements: Vec<(String, i64)>,
}

impl Work {
    pub(crate) async fn begin(store: &Store, hub: &Arc<Hub>) -> ApiResult<Self> {
        let tx = store.begin().await?;
        Ok(Self {
            tx,
            hub: Arc::clone(hub),
            announcements: Vec::new(),
        })
    }

    /// An event of one organisation. The day's figures ride along, read under the topic's lock, so
    /// that figures never run backwards from one id to the next.
    pub(crate) async fn publish(
        &mut self,
        org_id: &str,
        kind: &str,
        detail: Value,
        now: Millis,
    ) -> ApiResult<()> {
        let id = outbox::reserve(&mut self.tx, org_id).await?;
        let figures = figures::of_day(&mut *self.tx, org_id, now.day()).await?;
        let payload = json!({
            "figures": { "revenue": figures.revenue_minor, "orders": figures.orders },
            "detail": detail,
        });
        outbox::write(&mut self.tx, org_id, id, kind, &payload, now).await?;
        self.announcements.push((org_id.to_owned(), id));
        Ok(())
    }

    /// An event for the edge nodes.
    pub(crate) async fn tell_edge(
        &mut self,
        kind: &str,
        payload: Value,
        now: Millis,
    ) -> ApiResult<()> {
        let id = outbox::reserve(&mut self.tx, EDGE_TOPIC).await?;
        outbox::write(&mut self.tx, EDGE_TOPIC, id, kind, &payload, now).await?;
        self.announcements.push((EDGE_TOPIC.to_owned(), id));
        Ok(())
    }

    /// Tells every edge node to drop what it cached for an organisation under these groups. The
    /// node that carried the request learns it from the answer as well.
    pub(crate) async fn invalidate(
        &mut self,
        org_id: &str,
        groups: &[&str],
        now: Millis,
    ) -> ApiResult<()> {
        let payload = json!({ "orgId": org_id, "groups": groups });
        self.tell_edge("cache.invalidate", payload, now).await
    }

    pub(crate) async fn commit(self) -> ApiResult<()> {
        self.tx.commit().await?;
        for (topic, id) in &self.announcements {
            self.hub.announce(topic, *id);
        }
        Ok(())
    }
}
