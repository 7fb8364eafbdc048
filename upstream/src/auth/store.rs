//! The rows of auth: users, memberships, attempts, sessions and their tokens.

use std::collections::BTreeMap;

use sqlx::{Any, Executor, Row as _};

use crate::{
    error::ApiResult,
    kernel::{clock::Millis, role::Role},
    store::{Store, Tx},
};

pub(crate) struct UserRow {
    pub id: String,
    pub email: String,
    pub name: String,
    pub password_hash: String,
}

pub(crate) struct Membership {
    pub org_id: String,
    pub org_name: String,
    pub plan: String,
    pub role: Role,
}

pub(crate) struct RefreshRow {
    pub session_id: String,
    pub user_id: String,
    pub used: bool,
    pub revoked: bool,
    pub expires_at: Millis,
}

pub(crate) async fn user_by_email(store: &Store, email: &str) -> ApiResult<Option<UserRow>> {
    let row = sqlx::query("SELECT id, email, name, password_hash FROM users WHERE email = $1")
        .bind(email)
        .fetch_optional(store.reader())
        .await?;
    row.map(user).transpose()
}

pub(crate) async fn user_by_id(store: &Store, id: &str) -> ApiResult<Option<UserRow>> {
    let row = sqlx::query("SELECT id, email, name, password_hash FROM users WHERE id = $1")
        .bind(id)
        .fetch_optional(store.reader())
        .await?;
    row.map(user).transpose()
}

fn user(row: sqlx::any::AnyRow) -> ApiResult<UserRow> {
    Ok(UserRow {
        id: row.try_get("id")?,
        email: row.try_get("email")?,
        name: row.try_get("name")?,
        password_hash: row.try_get("password_hash")?,
    })
}

/// `false` if the address is taken.
pub(crate) async fn insert_user(tx: &mut Tx, user: &UserRow, now: Millis) -> ApiResult<bool> {
    let inserted = sqlx::query(
        "INSERT INTO users (id, email, name, password_hash, created_at)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
    )
    .bind(user.id.as_str())
    .bind(user.email.as_str())
    .bind(user.name.as_str())
    .bind(user.password_hash.as_str())
    .bind(now.0)
    .execute(&mut **tx)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

pub(crate) async fn insert_membership(
    tx: &mut Tx,
    user_id: &str,
    org_id: &str,
    role: Role,
) -> ApiResult<()> {
    sqlx::query(
        "INSERT INTO memberships (user_id, org_id, role) VALUES ($1, $2, $3)
         ON CONFLICT DO NOTHING",
    )
    .bind(user_id)
    .bind(org_id)
    .bind(role.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(crate) async fn memberships<'c, E>(executor: E, user_id: &str) -> ApiResult<Vec<Membership>>
where
    E: Executor<'c, Database = Any>,
{
    let rows = sqlx::query(
        "SELECT m.org_id, m.role, o.name, o.plan
         FROM memberships m JOIN organisations o ON o.id = m.org_id
         WHERE m.user_id = $1 ORDER BY m.org_id",
    )
    .bind(user_id)
    .fetch_all(executor)
    .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let role = row.try_get::<String, _>("role")?;
        // A role this build does not know grants nothing.
        if let Some(role) = Role::parse(&role) {
            found.push(Membership {
                org_id: row.try_get("org_id")?,
                org_name: row.try_get("name")?,
                plan: row.try_get("plan")?,
                role,
            });
        }
    }
    Ok(found)
}

pub(crate) fn roles(memberships: &[Membership]) -> BTreeMap<String, Role> {
    memberships
        .iter()
        .map(|m| (m.org_id.clone(), m.role))
        .collect()
}

/// Counts an attempt before it is judged, so that attempts in parallel cannot share one count.
pub(crate) async fn count_attempt(
    tx: &mut Tx,
    email: &str,
    window_ms: i64,
    now: Millis,
) -> ApiResult<i64> {
    let row = sqlx::query(
        "INSERT INTO login_attempts (email, failures, last_attempt_at) VALUES ($1, 1, $2)
         ON CONFLICT (email) DO UPDATE SET
             failures = CASE WHEN login_attempts.last_attempt_at <= $3 THEN 1
                             ELSE login_attempts.failures + 1 END,
             last_attempt_at = $2
         RETURNING failures",
    )
    .bind(email)
    .bind(now.0)
    .bind(now.minus_ms(window_ms).0)
    .fetch_one(&mut **tx)
    .await?;
    Ok(row.try_get("failures")?)
}

/// Failures so far and when the last attempt was.
pub(crate) async fn attempts(store: &Store, email: &str) -> ApiResult<Option<(i64, Millis)>> {
    let row = sqlx::query("SELECT failures, last_attempt_at FROM login_attempts WHERE email = $1")
        .bind(email)
        .fetch_optional(store.reader())
        .await?;
    row.map(|row| {
        Ok((
            row.try_get("failures")?,
            Millis(row.try_get("last_attempt_at")?),
        ))
    })
    .transpose()
}

pub(crate) async fn forget_attempts(tx: &mut Tx, email: &str) -> ApiResult<()> {
    sqlx::query("DELETE FROM login_attempts WHERE email = $1")
        .bind(email)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(crate) async fn insert_session(
    tx: &mut Tx,
    session_id: &str,
    user_id: &str,
    expires_at: Millis,
    now: Millis,
) -> ApiResult<()> {
    sqlx::query(
        "INSERT INTO sessions (id, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)",
    )
    .bind(session_id)
    .bind(user_id)
    .bind(now.0)
    .bind(expires_at.0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(crate) async fn insert_tokens(
    tx: &mut Tx,
    session_id: &str,
    refresh_hash: &str,
    jti: &str,
    access_expires_at: Millis,
    now: Millis,
) -> ApiResult<()> {
    sqlx::query(
        "INSERT INTO refresh_tokens (token_hash, session_id, issued_at) VALUES ($1, $2, $3)",
    )
    .bind(refresh_hash)
    .bind(session_id)
    .bind(now.0)
    .execute(&mut **tx)
    .await?;
    sqlx::query("INSERT INTO access_tokens (jti, session_id, expires_at) VALUES ($1, $2, $3)")
        .bind(jti)
        .bind(session_id)
        .bind(access_expires_at.0)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(crate) async fn refresh_row(tx: &mut Tx, refresh_hash: &str) -> ApiResult<Option<RefreshRow>> {
    let row = sqlx::query(
        "SELECT r.session_id, r.used_at, s.user_id, s.revoked_at, s.expires_at
         FROM refresh_tokens r JOIN sessions s ON s.id = r.session_id WHERE r.token_hash = $1",
    )
    .bind(refresh_hash)
    .fetch_optional(&mut **tx)
    .await?;
    row.map(|row| {
        Ok(RefreshRow {
            session_id: row.try_get("session_id")?,
            user_id: row.try_get("user_id")?,
            used: row.try_get::<Option<i64>, _>("used_at")?.is_some(),
            revoked: row.try_get::<Option<i64>, _>("revoked_at")?.is_some(),
            expires_at: Millis(row.try_get("expires_at")?),
        })
    })
    .transpose()
}

/// `true` for the one caller that used the token.
pub(crate) async fn use_refresh(tx: &mut Tx, refresh_hash: &str, now: Millis) -> ApiResult<bool> {
    let used = sqlx::query(
        "UPDATE refresh_tokens SET used_at = $1 WHERE token_hash = $2 AND used_at IS NULL",
    )
    .bind(now.0)
    .bind(refresh_hash)
    .execute(&mut **tx)
    .await?;
    Ok(used.rows_affected() == 1)
}

pub(crate) async fn session_of_token(
    tx: &mut Tx,
    jti: &str,
    user_id: &str,
) -> ApiResult<Option<String>> {
    let row = sqlx::query(
        "SELECT a.session_id FROM access_tokens a JOIN sessions s ON s.id = a.session_id
         WHERE a.jti = $1 AND s.user_id = $2",
    )
    .bind(jti)
    .bind(user_id)
    .fetch_optional(&mut **tx)
    .await?;
    row.map(|row| Ok(row.try_get("session_id")?)).transpose()
}

/// `true` if the session was alive.
pub(crate) async fn revoke_session(
    tx: &mut Tx,
    session_id: &str,
    reason: &str,
    now: Millis,
) -> ApiResult<bool> {
    let revoked = sqlx::query(
        "UPDATE sessions SET revoked_at = $1, revoked_reason = $2
         WHERE id = $3 AND revoked_at IS NULL",
    )
    .bind(now.0)
    .bind(reason)
    .bind(session_id)
    .execute(&mut **tx)
    .await?;
    Ok(revoked.rows_affected() == 1)
}

/// The access tokens of a session that are still alive, with their expiry.
pub(crate) async fn live_tokens(
    tx: &mut Tx,
    session_id: &str,
    now: Millis,
) -> ApiResult<Vec<(String, Millis)>> {
    let rows = sqlx::query(
        "SELECT jti, expires_at FROM access_tokens WHERE session_id = $1 AND expires_at > $2",
    )
    .bind(session_id)
    .bind(now.0)
    .fetch_all(&mut **tx)
    .await?;
    rows.into_iter()
        .map(|row| Ok((row.try_get("jti")?, Millis(row.try_get("expires_at")?))))
        .collect()
}
