//! The rules of entering, staying and leaving.
//!
//! * An attempt is counted before the password is looked at; five in a row close the door for that
//!   address, whether or not it has an account, and the right password does not open it early.
//! * A refresh token works once. One that comes back was stolen or copied: its whole session ends.
//! * Ending a session tells the edge which access tokens are dead.

use serde_json::{Value, json};

use crate::{
    app::App,
    auth::{
        assertion::Caller,
        model::{Credentials, NewOrganisation, Registration},
        store::{self, Membership, UserRow},
        token::{self, Grant},
    },
    error::{ApiError, ApiResult},
    event::Work,
    franchise,
    kernel::{
        clock::{DAY_MS, MINUTE_MS, Millis, SECOND_MS},
        id,
        role::Role,
        secret::Secret,
    },
};

const FAILURES_MAX: i64 = 5;
const LOCK_MS: i64 = 15 * MINUTE_MS;
const SESSION_MS: i64 = 30 * DAY_MS;

pub(crate) struct TokenPair {
    pub access: String,
    pub refresh: Secret,
}

impl TokenPair {
    pub(crate) fn json(&self) -> Value {
        json!({
            "accessToken": self.access,
            "refreshToken": self.refresh.expose(),
            "expiresIn": token::ACCESS_SECONDS,
            "tokenType": "Bearer",
        })
    }
}

pub(crate) async fn register(app: &App, registration: Registration) -> ApiResult<Value> {
    let Registration {
        email,
        password,
        name,
        organisation,
    } = registration;
    let password_hash = app.passwords.hash(password).await?;
    let now = app.clock.now();
    let user = UserRow {
        id: id::fresh("usr", now),
        email,
        name,
        password_hash,
    };
    let mut work = app.work().await?;
    if !store::insert_user(&mut work.tx, &user, now).await? {
        return Err(ApiError::Conflict {
            code: "email_taken",
            detail: "there is an account with this address already".to_owned(),
        });
    }
    let org_id = match organisation {
        Some(organisation) => Some(found(&mut work, &user.id, &organisation, now).await?),
        None => None,
    };
    work.commit().await?;
    let mut orgs = serde_json::Map::new();
    orgs.extend(org_id.map(|org_id| (org_id, json!(Role::Owner))));
    Ok(json!({
        "user": { "id": user.id, "email": user.email, "name": user.name },
        "orgs": orgs,
    }))
}

/// A new organisation with its first branch, owned by the user.
async fn found(
    work: &mut Work,
    user_id: &str,
    organisation: &NewOrganisation,
    now: Millis,
) -> ApiResult<String> {
    let org_id = id::fresh("org", now);
    let org = franchise::store::Organisation {
        id: org_id.clone(),
        name: organisation.name.clone(),
        currency: organisation.currency.clone(),
        plan: "FREE".to_owned(),
    };
    franchise::store::insert_organisation(&mut work.tx, &org, now).await?;
    let branch_id = id::fresh("brn", now);
    franchise::store::insert_branch(&mut work.tx, &branch_id, &org_id, "Main branch", now).await?;
    store::insert_membership(&mut work.tx, user_id, &org_id, Role::Owner).await?;
    Ok(org_id)
}

pub(crate) async fn login(app: &App, credentials: Credentials) -> ApiResult<TokenPair> {
    let Credentials { email, password } = credentials;
    let now = app.clock.now();
    refuse_if_locked(app, &email, now).await?;
    let mut work = app.work().await?;
    let failures = store::count_attempt(&mut work.tx, &email, LOCK_MS, now).await?;
    work.commit().await?;
    if failures > FAILURES_MAX {
        return Err(locked(now, now));
    }
    let user = store::user_by_email(&app.store, &email).await?;
    let stored = user.as_ref().map(|user| user.password_hash.clone());
    let right = app.passwords.verify(password, stored).await?;
    let Some(user) = user.filter(|_| right) else {
        return Err(ApiError::Unauthenticated {
            code: "credentials_invalid",
            detail: "the address or the password is wrong",
        });
    };
    let mut work = app.work().await?;
    store::forget_attempts(&mut work.tx, &email).await?;
    let session_id = id::fresh("ses", now);
    store::insert_session(
        &mut work.tx,
        &session_id,
        &user.id,
        now.plus_ms(SESSION_MS),
        now,
    )
    .await?;
    let pair = issue(app, &mut work, &session_id, &user.id, now).await?;
    work.commit().await?;
    Ok(pair)
}

pub(crate) async fn refresh(app: &App, presented: Secret) -> ApiResult<TokenPair> {
    let now = app.clock.now();
    let hash = token::digest(&presented);
    let mut work = app.work().await?;
    let Some(row) = store::refresh_row(&mut work.tx, &hash).await? else {
        return Err(refresh_invalid());
    };
    if row.revoked || row.expires_at <= now {
        return Err(refresh_invalid());
    }
    if row.used || !store::use_refresh(&mut work.tx, &hash, now).await? {
        end_session(&mut work, &row.session_id, "refresh token reused", now).await?;
        work.commit().await?;
        tracing::warn!(
            session.id = row.session_id,
            "refresh token reused: session ended"
        );
        return Err(ApiError::Unauthenticated {
            code: "refresh_reused",
            detail: "this refresh token was used before; the session is over",
        });
    }
    let pair = issue(app, &mut work, &row.session_id, &row.user_id, now).await?;
    work.commit().await?;
    Ok(pair)
}

/// Ends the session of the token the caller came with.
pub(crate) async fn logout(app: &App, caller: &Caller) -> ApiResult<()> {
    let now = app.clock.now();
    let mut work = app.work().await?;
    let session = store::session_of_token(&mut work.tx, &caller.jti, &caller.user_id).await?;
    if let Some(session_id) = session {
        end_session(&mut work, &session_id, "logout", now).await?;
    }
    work.commit().await
}

pub(crate) async fn me(app: &App, caller: &Caller) -> ApiResult<Value> {
    let user = store::user_by_id(&app.store, &caller.user_id)
        .await?
        .ok_or(ApiError::NotFound { what: "user" })?;
    let memberships = store::memberships(app.store.reader(), &user.id).await?;
    let orgs: Vec<_> = memberships
        .iter()
        .map(|m| json!({ "id": m.org_id, "name": m.org_name, "role": m.role, "plan": m.plan }))
        .collect();
    Ok(json!({
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "plan": best_plan(&memberships),
        "orgs": orgs,
    }))
}

async fn issue(
    app: &App,
    work: &mut Work,
    session_id: &str,
    user_id: &str,
    now: Millis,
) -> ApiResult<TokenPair> {
    let memberships = store::memberships(&mut *work.tx, user_id).await?;
    let orgs = store::roles(&memberships);
    let jti = id::fresh("tok", now);
    let grant = Grant {
        user_id,
        jti: &jti,
        orgs: &orgs,
        plan: best_plan(&memberships),
    };
    let access = token::sign_access(&app.signer, &grant, now)?;
    let refresh = token::fresh_refresh();
    let expires_at = now.plus_ms(token::ACCESS_SECONDS * SECOND_MS);
    let hash = token::digest(&refresh);
    store::insert_tokens(&mut work.tx, session_id, &hash, &jti, expires_at, now).await?;
    Ok(TokenPair { access, refresh })
}

async fn end_session(
    work: &mut Work,
    session_id: &str,
    reason: &str,
    now: Millis,
) -> ApiResult<()> {
    if !store::revoke_session(&mut work.tx, session_id, reason, now).await? {
        return Ok(());
    }
    for (jti, expires_at) in store::live_tokens(&mut work.tx, session_id, now).await? {
        let payload = json!({ "jti": jti, "exp": expires_at.seconds(), "reason": reason });
        work.tell_edge("token.revoked", payload, now).await?;
    }
    Ok(())
}

async fn refuse_if_locked(app: &App, email: &str, now: Millis) -> ApiResult<()> {
    match store::attempts(&app.store, email).await? {
        Some((failures, last)) if failures >= FAILURES_MAX && last.plus_ms(LOCK_MS) > now => {
            Err(locked(last, now))
        }
        Some(_) | None => Ok(()),
    }
}

fn locked(since: Millis, now: Millis) -> ApiError {
    let left_ms = since.plus_ms(LOCK_MS).0.saturating_sub(now.0);
    ApiError::Locked {
        retry_after_s: left_ms.div_euclid(SECOND_MS) + 1,
    }
}

fn refresh_invalid() -> ApiError {
    ApiError::Unauthenticated {
        code: "refresh_invalid",
        detail: "this refresh token is unknown, expired or revoked",
    }
}

/// A user of several organisations has the best of their plans.
fn best_plan(memberships: &[Membership]) -> &'static str {
    let has = |plan: &str| memberships.iter().any(|m| m.plan == plan);
    if has("ENT") {
        "ENT"
    } else if has("PRO") {
        "PRO"
    } else {
        "FREE"
    }
}
