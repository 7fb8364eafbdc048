//! The memory of deliveries: which event of which endpoint was taken.

use crate::{error::ApiResult, kernel::clock::Millis, store::Tx};

pub(crate) struct Taken<'a> {
    pub endpoint: &'a str,
    pub event_id: &'a str,
    pub provider: &'a str,
    pub kind: &'a str,
    pub outcome: &'a str,
    pub body_sha256: &'a str,
}

/// `false` if the event was taken before. A concurrent copy waits here until the first commits.
pub(crate) async fn remember(tx: &mut Tx, taken: &Taken<'_>, now: Millis) -> ApiResult<bool> {
    let inserted = sqlx::query(
        "INSERT INTO webhook_events (endpoint, event_id, provider, kind, outcome, body_sha256,
                                     received_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(taken.endpoint)
    .bind(taken.event_id)
    .bind(taken.provider)
    .bind(taken.kind)
    .bind(taken.outcome)
    .bind(taken.body_sha256)
    .bind(now.0)
    .execute(&mut **tx)
    .await?;
    Ok(inserted.rows_affected() == 1)
}
