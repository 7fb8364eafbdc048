//! What runs beside requests: looking for events that other replicas wrote, the turn of the day, and
//! forgetting what is past its use. Each ends with the process or with its `App`.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::{sync::watch, time};

use crate::{
    app::App,
    error::ApiResult,
    event::{EDGE_TOPIC, Work, figures, hub::Hub, outbox},
    kernel::clock::{Clock, DAY_MS, Millis},
    store::Store,
};

const POLL_EVERY: Duration = Duration::from_secs(1);
const FORGET_EVERY: Duration = Duration::from_secs(3600);

const OUTBOX_KEPT_MS: i64 = 7 * DAY_MS;
const IDEMPOTENCY_KEPT_MS: i64 = DAY_MS;
const ATTEMPTS_KEPT_MS: i64 = DAY_MS;
/// Longer than any provider or dead-letter list redelivers.
const WEBHOOKS_KEPT_MS: i64 = 400 * DAY_MS;

pub(crate) fn start(app: &App) {
    let poller = Poller {
        store: app.store.clone(),
        hub: Arc::clone(&app.hub),
        clock: app.clock.clone(),
    };
    let (store, clock) = (app.store.clone(), app.clock.clone());
    tokio::spawn(until_stop(app.stop.subscribe(), poller.run()));
    tokio::spawn(until_stop(
        app.stop.subscribe(),
        forget_regularly(store, clock),
    ));
}

async fn until_stop(mut stop: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        // An error means that the App is gone, which is a stop as well.
        _ = stop.wait_for(|stopped| *stopped) => {}
        () = work => {}
    }
}

struct Poller {
    store: Store,
    hub: Arc<Hub>,
    clock: Clock,
}

impl Poller {
    async fn run(self) {
        let mut day = self.clock.now().day();
        loop {
            time::sleep(POLL_EVERY).await;
            let topics = self.hub.listened();
            let now = self.clock.now();
            let turned = now.day() > day;
            let looked = self.look(&topics, turned, now).await;
            match looked {
                Ok(()) => day = now.day(),
                Err(error) => tracing::warn!(error.cause = %error, "polling the outbox failed"),
            }
        }
    }

    async fn look(&self, topics: &[String], turned: bool, now: Millis) -> ApiResult<()> {
        if turned {
            for org_id in topics.iter().filter(|topic| *topic != EDGE_TOPIC) {
                self.open_day(org_id, now).await?;
            }
        }
        for (topic, head) in outbox::heads(&self.store, topics).await? {
            self.hub.announce(&topic, head);
        }
        Ok(())
    }

    /// Tells whoever watches that a new day began at zero; one replica does it for all.
    async fn open_day(&self, org_id: &str, now: Millis) -> ApiResult<()> {
        let mut work = Work::begin(&self.store, &self.hub).await?;
        if figures::open_day(&mut work.tx, org_id, now.day()).await? {
            work.publish(org_id, "day.opened", json!({}), now).await?;
        }
        work.commit().await
    }
}

async fn forget_regularly(store: Store, clock: Clock) {
    loop {
        if let Err(error) = forget(&store, clock.now()).await {
            tracing::warn!(error.cause = %error, "forgetting old rows failed");
        }
        time::sleep(FORGET_EVERY).await;
    }
}

async fn forget(store: &Store, now: Millis) -> ApiResult<()> {
    let rules = [
        (
            "DELETE FROM outbox_events WHERE created_at < $1",
            OUTBOX_KEPT_MS,
        ),
        (
            "DELETE FROM idempotency_keys WHERE created_at < $1",
            IDEMPOTENCY_KEPT_MS,
        ),
        (
            "DELETE FROM login_attempts WHERE last_attempt_at < $1",
            ATTEMPTS_KEPT_MS,
        ),
        (
            "DELETE FROM webhook_events WHERE received_at < $1",
            WEBHOOKS_KEPT_MS,
        ),
        ("DELETE FROM access_tokens WHERE expires_at < $1", 0),
        (
            "DELETE FROM refresh_tokens WHERE session_id IN
             (SELECT id FROM sessions WHERE expires_at < $1)",
            0,
        ),
        (
            "DELETE FROM sessions WHERE expires_at < $1 AND id NOT IN
             (SELECT session_id FROM access_tokens)",
            0,
        ),
    ];
    for (statement, kept_ms) in rules {
        // One short transaction each: the writer is not held for all of them together.
        let mut tx = store.begin().await?;
        sqlx::query(statement)
            .bind(now.minus_ms(kept_ms).0)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
    }
    Ok(())
}
