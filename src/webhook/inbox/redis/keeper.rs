//! What one engine does beside its callers: renews its claims, wakes who waits for what other nodes
//! append or leave behind, and tells whether the server is there.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Arguments, Health, OnRedis, Parts, RENEW};

/// How soon what another node appended is noticed here. Costs one small script per destination.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A claim is renewed so many times within its lease.
const RENEWALS: u32 = 4;

/// Ends with the last handle of the engine.
pub(super) fn spawn(engine: &OnRedis) {
    let parts = Arc::downgrade(&engine.0);
    let renew_every = engine.0.settings.lease / RENEWALS;
    tokio::spawn(async move { keep(&parts, renew_every).await });
}

async fn keep(parts: &Weak<Parts>, renew_every: Duration) {
    let look_every = LOOK_EVERY.min(renew_every);
    let mut since_renewed = Duration::ZERO;
    loop {
        tokio::time::sleep(look_every).await;
        let Some(engine) = parts.upgrade().map(OnRedis) else {
            return;
        };
        if engine.0.released.load(Ordering::Relaxed) {
            continue;
        }
        engine.tell_health();
        engine.change();
        since_renewed += look_every;
        if since_renewed >= renew_every {
            since_renewed = Duration::ZERO;
            engine.renew().await;
        }
    }
}

impl OnRedis {
    fn tell_health(&self) {
        let found = self.0.settings.redis.health();
        let health = match found.connected {
            true => Health::Ready,
            false => Health::Unwritable(
                found
                    .last_error
                    .map_or_else(|| "Redis is not connected yet".into(), |(_, why)| why),
            ),
        };
        self.0.health.send_if_modified(|told| {
            let news = *told != health && *told != Health::Released;
            if news {
                *told = health;
            }
            news
        });
    }

    /// Without an answer the claims run out, and others take them: that is what a lease is for.
    async fn renew(&self) {
        let mut call = Arguments::default();
        call.text(&self.0.node);
        let claims: Vec<_> = self.claims().values().cloned().collect();
        if claims.is_empty() {
            return;
        }
        for (destination, at) in claims {
            call.text(&destination).text(&at);
        }
        if let Err(error) = self.eval::<String>(&RENEW, call).await {
            tracing::debug!(%error, "claims of the inbox are not renewed");
        }
    }
}
