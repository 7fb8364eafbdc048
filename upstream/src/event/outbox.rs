//! The outbox: per topic a gapless, commit-ordered sequence of events. Reserving an id locks the
//! topic's head row until commit; that is what lets a reader say "everything up to 41 is seen".

use serde_json::Value;
use sqlx::{AssertSqlSafe, Row as _};

use crate::{
    error::ApiResult,
    kernel::clock::Millis,
    store::{Store, Tx},
};

/// How many topics one polling query asks about.
const HEADS_PER_QUERY: usize = 100;

#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub id: i64,
    pub kind: String,
    pub payload: Value,
    pub created_at: Millis,
}

pub(crate) async fn reserve(tx: &mut Tx, topic: &str) -> ApiResult<i64> {
    let row = sqlx::query(
        "INSERT INTO outbox_heads (topic, last_id) VALUES ($1, 1)
         ON CONFLICT (topic) DO UPDATE SET last_id = outbox_heads.last_id + 1
         RETURNING last_id",
    )
    .bind(topic)
    .fetch_one(&mut **tx)
    .await?;
    Ok(row.try_get("last_id")?)
}

pub(crate) async fn write(
    tx: &mut Tx,
    topic: &str,
    id: i64,
    kind: &str,
    payload: &Value,
    now: Millis,
) -> ApiResult<()> {
    sqlx::query(
        "INSERT INTO outbox_events (topic, id, kind, payload, created_at)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(topic)
    .bind(id)
    .bind(kind)
    .bind(payload.to_string())
    .bind(now.0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(crate) async fn head(store: &Store, topic: &str) -> ApiResult<i64> {
    let row = sqlx::query("SELECT last_id FROM outbox_heads WHERE topic = $1")
        .bind(topic)
        .fetch_optional(store.reader())
        .await?;
    Ok(match row {
        Some(row) => row.try_get("last_id")?,
        None => 0,
    })
}

pub(crate) async fn heads(store: &Store, topics: &[String]) -> ApiResult<Vec<(String, i64)>> {
    let mut found = Vec::with_capacity(topics.len());
    for chunk in topics.chunks(HEADS_PER_QUERY) {
        let marks: Vec<_> = (1..=chunk.len()).map(|place| format!("${place}")).collect();
        let text = format!(
            "SELECT topic, last_id FROM outbox_heads WHERE topic IN ({})",
            marks.join(", ")
        );
        // Only placeholders are put together here; the topics themselves are bound.
        let mut query = sqlx::query(AssertSqlSafe(text));
        for topic in chunk {
            query = query.bind(topic.as_str());
        }
        for row in query.fetch_all(store.reader()).await? {
            found.push((row.try_get("topic")?, row.try_get("last_id")?));
        }
    }
    Ok(found)
}

/// Whether the outbox still has the event that follows `id`, or there is none yet.
pub(crate) async fn keeps_all_after(
    store: &Store,
    topic: &str,
    id: i64,
    head: i64,
) -> ApiResult<bool> {
    if id >= head {
        return Ok(true);
    }
    let row = sqlx::query("SELECT id FROM outbox_events WHERE topic = $1 AND id = $2")
        .bind(topic)
        .bind(id.saturating_add(1))
        .fetch_optional(store.reader())
        .await?;
    Ok(row.is_some())
}

/// The next events of a topic, oldest first. A first id above `id + 1` means that older ones are
/// no longer kept.
pub(crate) async fn after(
    store: &Store,
    topic: &str,
    id: i64,
    events_max: i64,
) -> ApiResult<Vec<Event>> {
    let rows = sqlx::query(
        "SELECT id, kind, payload, created_at FROM outbox_events
         WHERE topic = $1 AND id > $2 ORDER BY id LIMIT $3",
    )
    .bind(topic)
    .bind(id)
    .bind(events_max)
    .fetch_all(store.reader())
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Event {
                id: row.try_get("id")?,
                kind: row.try_get("kind")?,
                payload: serde_json::from_str(&row.try_get::<String, _>("payload")?)
                    .map_err(|error| anyhow::Error::new(error).context("outbox payload"))?,
                created_at: Millis(row.try_get("created_at")?),
            })
        })
        .collect()
}
