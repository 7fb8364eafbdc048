//! `Idempotency-Key`: the first answer to a key is kept in the transaction of its effect and given
//! again to every repeat. A key that comes back with another body is a mistake and refused.
//!
//! Claim and effect share one transaction, so there is no "in progress" to clean up: a concurrent
//! repeat waits for the first to commit and then finds its answer.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use crate::{
    error::{ApiError, ApiResult},
    kernel::clock::Millis,
    store::Tx,
};

pub(crate) const KEY_CHARS_MAX: usize = 255;

#[derive(Clone, Debug)]
pub(crate) struct Key {
    caller: String,
    operation: &'static str,
    key: String,
    fingerprint: String,
}

/// An answer that can be kept and given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub status: u16,
    pub body: String,
}

pub(crate) enum Claim {
    Fresh,
    Repeat(Kept),
}

impl Key {
    pub(crate) fn new(caller: &str, operation: &'static str, key: &str, body: &Value) -> Self {
        Self {
            caller: caller.to_owned(),
            operation,
            key: key.to_owned(),
            fingerprint: hex::encode(Sha256::digest(body.to_string())),
        }
    }
}

pub(crate) async fn claim(tx: &mut Tx, key: &Key, now: Millis) -> ApiResult<Claim> {
    let inserted = sqlx::query(
        "INSERT INTO idempotency_keys
         (caller, operation, idempotency_key, fingerprint, status, body, created_at)
         VALUES ($1, $2, $3, $4, 0, '', $5) ON CONFLICT DO NOTHING",
    )
    .bind(key.caller.as_str())
    .bind(key.operation)
    .bind(key.key.as_str())
    .bind(key.fingerprint.as_str())
    .bind(now.0)
    .execute(&mut **tx)
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok(Claim::Fresh);
    }
    let row = sqlx::query(
        "SELECT fingerprint, status, body FROM idempotency_keys
         WHERE caller = $1 AND operation = $2 AND idempotency_key = $3",
    )
    .bind(key.caller.as_str())
    .bind(key.operation)
    .bind(key.key.as_str())
    .fetch_one(&mut **tx)
    .await?;
    if row.try_get::<String, _>("fingerprint")? != key.fingerprint {
        return Err(ApiError::Conflict {
            code: "idempotency_key_reused",
            detail: "this Idempotency-Key was used with another body".to_owned(),
        });
    }
    let status = u16::try_from(row.try_get::<i64, _>("status")?).unwrap_or(200);
    Ok(Claim::Repeat(Kept {
        status,
        body: row.try_get("body")?,
    }))
}

pub(crate) async fn keep(tx: &mut Tx, key: &Key, answer: &Kept) -> ApiResult<()> {
    sqlx::query(
        "UPDATE idempotency_keys SET status = $1, body = $2
         WHERE caller = $3 AND operation = $4 AND idempotency_key = $5",
    )
    .bind(i64::from(answer.status))
    .bind(answer.body.as_str())
    .bind(key.caller.as_str())
    .bind(key.operation)
    .bind(key.key.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}
