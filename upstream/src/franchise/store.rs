//! The rows of organisations and branches, and the sums over orders per branch.

use sqlx::Row as _;

use crate::{
    error::{ApiError, ApiResult},
    franchise::model::Span,
    kernel::clock::Millis,
    store::{Store, Tx},
};

pub(crate) struct Organisation {
    pub id: String,
    pub name: String,
    pub currency: String,
    pub plan: String,
}

pub(crate) struct BranchFigures {
    pub branch_id: String,
    pub name: String,
    pub revenue_minor: i64,
    pub orders: i64,
}

/// `false` if there is one with this id already.
pub(crate) async fn insert_organisation(
    tx: &mut Tx,
    org: &Organisation,
    now: Millis,
) -> ApiResult<bool> {
    let inserted = sqlx::query(
        "INSERT INTO organisations (id, name, currency, plan, created_at)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
    )
    .bind(org.id.as_str())
    .bind(org.name.as_str())
    .bind(org.currency.as_str())
    .bind(org.plan.as_str())
    .bind(now.0)
    .execute(&mut **tx)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

pub(crate) async fn insert_branch(
    tx: &mut Tx,
    branch_id: &str,
    org_id: &str,
    name: &str,
    now: Millis,
) -> ApiResult<()> {
    sqlx::query(
        "INSERT INTO branches (id, org_id, name, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT DO NOTHING",
    )
    .bind(branch_id)
    .bind(org_id)
    .bind(name)
    .bind(now.0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(crate) async fn organisation(store: &Store, org_id: &str) -> ApiResult<Organisation> {
    let row = sqlx::query("SELECT id, name, currency, plan FROM organisations WHERE id = $1")
        .bind(org_id)
        .fetch_optional(store.reader())
        .await?
        .ok_or(ApiError::NotFound {
            what: "organisation",
        })?;
    Ok(Organisation {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        currency: row.try_get("currency")?,
        plan: row.try_get("plan")?,
    })
}

pub(crate) async fn exists(tx: &mut Tx, org_id: &str) -> ApiResult<bool> {
    let row = sqlx::query("SELECT id FROM organisations WHERE id = $1")
        .bind(org_id)
        .fetch_optional(&mut **tx)
        .await?;
    Ok(row.is_some())
}

/// `false` if there is no such organisation or it has that plan already.
pub(crate) async fn change_plan(tx: &mut Tx, org_id: &str, plan: &str) -> ApiResult<bool> {
    let changed = sqlx::query("UPDATE organisations SET plan = $1 WHERE id = $2 AND plan <> $1")
        .bind(plan)
        .bind(org_id)
        .execute(&mut **tx)
        .await?;
    Ok(changed.rows_affected() == 1)
}

/// Every branch of the organisation, those without orders included.
pub(crate) async fn figures_by_branch(
    store: &Store,
    org_id: &str,
    span: Span,
) -> ApiResult<Vec<BranchFigures>> {
    let rows = sqlx::query(
        "SELECT b.id, b.name,
                CAST(COALESCE(SUM(o.total_minor), 0) AS BIGINT) AS revenue_minor,
                COUNT(o.id) AS orders
         FROM branches b
         LEFT JOIN orders o ON o.org_id = b.org_id AND o.branch_id = b.id
              AND o.business_day BETWEEN $2 AND $3 AND o.status = 'CLOSED'
         WHERE b.org_id = $1
         GROUP BY b.id, b.name ORDER BY b.id",
    )
    .bind(org_id)
    .bind(span.first.0)
    .bind(span.last.0)
    .fetch_all(store.reader())
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(BranchFigures {
                branch_id: row.try_get("id")?,
                name: row.try_get("name")?,
                revenue_minor: row.try_get("revenue_minor")?,
                orders: row.try_get("orders")?,
            })
        })
        .collect()
}
