//! The rows of invoices, payments and subscriptions. A row is locked by touching it, folded in Rust
//! and written back.

use sqlx::{Row as _, any::AnyRow};

use crate::{
    billing::model::{Dated, InvoiceState, SubscriptionFact, SubscriptionState},
    error::ApiResult,
    kernel::{clock::Millis, id},
    store::Tx,
};

pub(crate) struct Invoice {
    pub id: String,
    pub org_id: Option<String>,
    pub state: InvoiceState,
}

pub(crate) struct Payment<'a> {
    pub invoice_id: &'a str,
    pub kind: &'a str,
    pub amount_minor: i64,
    pub currency: Option<&'a str>,
    pub event_id: &'a str,
}

/// The invoice, made if it is new, locked until commit.
pub(crate) async fn lock_invoice(
    tx: &mut Tx,
    provider: &str,
    reference: &str,
    org_id: Option<&str>,
    currency: Option<&str>,
    now: Millis,
) -> ApiResult<Invoice> {
    let row = sqlx::query(
        "INSERT INTO invoices (provider, external_id, id, org_id, currency, refunded_minor,
                               failures, disputes, status, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, 0, 0, 0, 'OPEN', $6, $6)
         ON CONFLICT (provider, external_id) DO UPDATE SET
             org_id = COALESCE(invoices.org_id, excluded.org_id),
             currency = COALESCE(invoices.currency, excluded.currency),
             updated_at = excluded.updated_at
         RETURNING id, org_id, paid_minor, refunded_minor, failures, disputes",
    )
    .bind(provider)
    .bind(reference)
    .bind(id::fresh("inv", now))
    .bind(org_id)
    .bind(currency)
    .bind(now.0)
    .fetch_one(&mut **tx)
    .await?;
    Ok(Invoice {
        id: row.try_get("id")?,
        org_id: row.try_get("org_id")?,
        state: InvoiceState {
            paid_minor: row.try_get("paid_minor")?,
            refunded_minor: row.try_get("refunded_minor")?,
            failures: row.try_get("failures")?,
            disputes: row.try_get("disputes")?,
        },
    })
}

pub(crate) async fn save_invoice(tx: &mut Tx, id: &str, state: InvoiceState) -> ApiResult<()> {
    sqlx::query(
        "UPDATE invoices SET paid_minor = $1, refunded_minor = $2, failures = $3, disputes = $4,
                             status = $5
         WHERE id = $6",
    )
    .bind(state.paid_minor)
    .bind(state.refunded_minor)
    .bind(state.failures)
    .bind(state.disputes)
    .bind(state.status())
    .bind(id)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(crate) async fn insert_payment(
    tx: &mut Tx,
    payment: &Payment<'_>,
    now: Millis,
) -> ApiResult<()> {
    sqlx::query(
        "INSERT INTO payments (id, invoice_id, kind, amount_minor, currency, event_id, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(id::fresh("pay", now))
    .bind(payment.invoice_id)
    .bind(payment.kind)
    .bind(payment.amount_minor)
    .bind(payment.currency)
    .bind(payment.event_id)
    .bind(now.0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The subscription as it was before `fact`, locked until commit; `None` if the fact made it.
pub(crate) async fn lock_subscription(
    tx: &mut Tx,
    provider: &str,
    fact: &SubscriptionFact,
) -> ApiResult<Option<SubscriptionState>> {
    let inserted = sqlx::query(
        "INSERT INTO subscriptions (provider, external_id, org_id, status, status_at, status_by)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(provider)
    .bind(fact.reference.as_str())
    .bind(fact.org_id.as_deref())
    .bind(fact.status.as_str())
    .bind(fact.at.0)
    .bind(fact.event_id.as_str())
    .execute(&mut **tx)
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok(None);
    }
    let row = sqlx::query(
        "UPDATE subscriptions SET org_id = COALESCE(org_id, $1)
         WHERE provider = $2 AND external_id = $3
         RETURNING status, status_at, status_by, plan, plan_at, plan_by, canceled_at",
    )
    .bind(fact.org_id.as_deref())
    .bind(provider)
    .bind(fact.reference.as_str())
    .fetch_one(&mut **tx)
    .await?;
    subscription(&row).map(Some)
}

/// Writes the folded state; the organisation the subscription belongs to, if it is known.
pub(crate) async fn save_subscription(
    tx: &mut Tx,
    provider: &str,
    reference: &str,
    state: &SubscriptionState,
) -> ApiResult<Option<String>> {
    let plan = state.plan.as_ref();
    let row = sqlx::query(
        "UPDATE subscriptions SET status = $1, status_at = $2, status_by = $3, plan = $4,
                                  plan_at = $5, plan_by = $6, canceled_at = $7
         WHERE provider = $8 AND external_id = $9 RETURNING org_id",
    )
    .bind(state.status.value.as_str())
    .bind(state.status.at.0)
    .bind(state.status.by.as_str())
    .bind(plan.map(|plan| plan.value.as_str()))
    .bind(plan.map(|plan| plan.at.0))
    .bind(plan.map(|plan| plan.by.as_str()))
    .bind(state.canceled_at.map(|at| at.0))
    .bind(provider)
    .bind(reference)
    .fetch_one(&mut **tx)
    .await?;
    Ok(row.try_get("org_id")?)
}

fn subscription(row: &AnyRow) -> ApiResult<SubscriptionState> {
    let plan: Option<String> = row.try_get("plan")?;
    let at: Option<i64> = row.try_get("plan_at")?;
    let by: Option<String> = row.try_get("plan_by")?;
    Ok(SubscriptionState {
        status: Dated {
            at: Millis(row.try_get("status_at")?),
            by: row.try_get("status_by")?,
            value: row.try_get("status")?,
        },
        plan: plan.zip(at).zip(by).map(|((value, at), by)| Dated {
            at: Millis(at),
            by,
            value,
        }),
        canceled_at: row.try_get::<Option<i64>, _>("canceled_at")?.map(Millis),
    })
}
