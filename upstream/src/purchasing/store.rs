//! The rows of purchase orders and the batches they become. Conditional updates carry the limits, so
//! they hold under concurrency on both engines.

use sqlx::Row as _;

use crate::{
    error::ApiResult,
    kernel::clock::Millis,
    purchasing::model::{PoStatus, ReceivedItem},
    store::{Store, Tx},
};

pub(crate) struct PurchaseOrder {
    pub branch_id: String,
    pub status: String,
}

pub(crate) struct Batch<'a> {
    pub id: &'a str,
    pub org_id: &'a str,
    pub branch_id: &'a str,
    pub po_id: &'a str,
    pub received_by: &'a str,
    pub unit_cost_minor: i64,
}

pub(crate) async fn open_count(store: &Store, org_id: &str) -> ApiResult<i64> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS orders FROM purchase_orders
         WHERE org_id = $1 AND status IN ('APPROVED', 'PARTLY_RECEIVED')",
    )
    .bind(org_id)
    .fetch_one(store.reader())
    .await?;
    Ok(row.try_get("orders")?)
}

/// Marks the order as touched, which locks its row until commit: receipts of one order take turns.
pub(crate) async fn lock(
    tx: &mut Tx,
    org_id: &str,
    po_id: &str,
    now: Millis,
) -> ApiResult<Option<PurchaseOrder>> {
    let row = sqlx::query(
        "UPDATE purchase_orders SET updated_at = $1 WHERE id = $2 AND org_id = $3
         RETURNING branch_id, status",
    )
    .bind(now.0)
    .bind(po_id)
    .bind(org_id)
    .fetch_optional(&mut **tx)
    .await?;
    row.map(|row| {
        Ok(PurchaseOrder {
            branch_id: row.try_get("branch_id")?,
            status: row.try_get("status")?,
        })
    })
    .transpose()
}

/// Takes a quantity in against a line if the order still has room for it; the unit cost of the line,
/// or `None` if it has not.
pub(crate) async fn receive_line(
    tx: &mut Tx,
    po_id: &str,
    item: &ReceivedItem,
) -> ApiResult<Option<i64>> {
    let row = sqlx::query(
        "UPDATE purchase_order_lines SET received_milli = received_milli + $1
         WHERE po_id = $2 AND item_id = $3 AND received_milli + $1 <= ordered_milli
         RETURNING unit_cost_minor",
    )
    .bind(item.quantity_milli)
    .bind(po_id)
    .bind(item.item_id.as_str())
    .fetch_optional(&mut **tx)
    .await?;
    row.map(|row| Ok(row.try_get("unit_cost_minor")?))
        .transpose()
}

/// What a line can still take; `None` if the order has no such line.
pub(crate) async fn room(tx: &mut Tx, po_id: &str, item_id: &str) -> ApiResult<Option<i64>> {
    let row = sqlx::query(
        "SELECT ordered_milli - received_milli AS room FROM purchase_order_lines
         WHERE po_id = $1 AND item_id = $2",
    )
    .bind(po_id)
    .bind(item_id)
    .fetch_optional(&mut **tx)
    .await?;
    row.map(|row| Ok(row.try_get("room")?)).transpose()
}

pub(crate) async fn insert_batch(
    tx: &mut Tx,
    batch: &Batch<'_>,
    item: &ReceivedItem,
    now: Millis,
) -> ApiResult<()> {
    sqlx::query(
        "INSERT INTO stock_batches (id, org_id, branch_id, item_id, po_id, received_milli,
                                    remaining_milli, unit_cost_minor, received_by, received_at)
         VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8, $9)",
    )
    .bind(batch.id)
    .bind(batch.org_id)
    .bind(batch.branch_id)
    .bind(item.item_id.as_str())
    .bind(batch.po_id)
    .bind(item.quantity_milli)
    .bind(batch.unit_cost_minor)
    .bind(batch.received_by)
    .bind(now.0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// RECEIVED once every line is full, PARTLY_RECEIVED until then.
pub(crate) async fn settle_status(tx: &mut Tx, po_id: &str) -> ApiResult<PoStatus> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS lines FROM purchase_order_lines
         WHERE po_id = $1 AND received_milli < ordered_milli",
    )
    .bind(po_id)
    .fetch_one(&mut **tx)
    .await?;
    let waiting = row.try_get::<i64, _>("lines")?;
    let status = if waiting == 0 {
        PoStatus::Received
    } else {
        PoStatus::PartlyReceived
    };
    sqlx::query("UPDATE purchase_orders SET status = $1 WHERE id = $2")
        .bind(status.as_str())
        .bind(po_id)
        .execute(&mut **tx)
        .await?;
    Ok(status)
}
