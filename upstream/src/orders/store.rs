//! The rows of orders.

use sqlx::Row as _;

use crate::{
    error::ApiResult,
    kernel::clock::{Day, Millis},
    orders::model::NewOrder,
    store::Tx,
};

/// The currency of the organisation if the branch is one of its own.
pub(crate) async fn currency_at_branch(
    tx: &mut Tx,
    org_id: &str,
    branch_id: &str,
) -> ApiResult<Option<String>> {
    let row = sqlx::query(
        "SELECT o.currency FROM branches b JOIN organisations o ON o.id = b.org_id
         WHERE b.id = $1 AND b.org_id = $2",
    )
    .bind(branch_id)
    .bind(org_id)
    .fetch_optional(&mut **tx)
    .await?;
    row.map(|row| Ok(row.try_get("currency")?)).transpose()
}

pub(crate) async fn insert_closed(
    tx: &mut Tx,
    order_id: &str,
    order: &NewOrder,
    day: Day,
    now: Millis,
) -> ApiResult<()> {
    sqlx::query(
        "INSERT INTO orders (id, org_id, branch_id, status, total_minor, currency, business_day,
                             created_at, updated_at)
         VALUES ($1, $2, $3, 'CLOSED', $4, $5, $6, $7, $7)",
    )
    .bind(order_id)
    .bind(order.org_id.as_str())
    .bind(order.branch_id.as_str())
    .bind(order.total_minor)
    .bind(order.currency.as_str())
    .bind(day.0)
    .bind(now.0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
