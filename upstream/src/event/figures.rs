//! The running figures of an organisation's day: one row per day, moved by the transaction that
//! closes an order, so that a stream never sums a day's orders per event.

use sqlx::{Any, Executor, Row as _};

use crate::{error::ApiResult, kernel::clock::Day, store::Tx};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub revenue_minor: i64,
    pub orders: i64,
}

pub(crate) async fn of_day<'c, E>(executor: E, org_id: &str, day: Day) -> ApiResult<Figures>
where
    E: Executor<'c, Database = Any>,
{
    let row = sqlx::query(
        "SELECT revenue_minor, orders FROM kpi_days WHERE org_id = $1 AND business_day = $2",
    )
    .bind(org_id)
    .bind(day.0)
    .fetch_optional(executor)
    .await?;
    Ok(match row {
        Some(row) => Figures {
            revenue_minor: row.try_get("revenue_minor")?,
            orders: row.try_get("orders")?,
        },
        None => Figures::default(),
    })
}

pub(crate) async fn add_order(
    tx: &mut Tx,
    org_id: &str,
    day: Day,
    total_minor: i64,
) -> ApiResult<()> {
    sqlx::query(
        "INSERT INTO kpi_days (org_id, business_day, revenue_minor, orders) VALUES ($1, $2, $3, 1)
         ON CONFLICT (org_id, business_day) DO UPDATE
         SET revenue_minor = kpi_days.revenue_minor + excluded.revenue_minor,
             orders = kpi_days.orders + 1",
    )
    .bind(org_id)
    .bind(day.0)
    .bind(total_minor)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Opens a day that has no figures yet; `true` for the one caller that did.
pub(crate) async fn open_day(tx: &mut Tx, org_id: &str, day: Day) -> ApiResult<bool> {
    let opened = sqlx::query(
        "INSERT INTO kpi_days (org_id, business_day, revenue_minor, orders) VALUES ($1, $2, 0, 0)
         ON CONFLICT DO NOTHING",
    )
    .bind(org_id)
    .bind(day.0)
    .execute(&mut **tx)
    .await?;
    Ok(opened.rows_affected() == 1)
}
