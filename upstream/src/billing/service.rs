//! Applies one fact inside the transaction that also remembers its event id.

use serde_json::json;

use crate::{
    billing::{
        model::{Change, Fact, SubscriptionFact, SubscriptionState},
        store::{self, Payment},
    },
    error::ApiResult,
    event::Work,
    franchise,
    kernel::clock::Millis,
};

/// `provider` separates the ids of one endpoint from another's.
pub(crate) async fn apply(
    work: &mut Work,
    provider: &str,
    fact: &Fact,
    event_id: &str,
    now: Millis,
) -> ApiResult<()> {
    match fact {
        Fact::Invoice {
            reference,
            org_id,
            currency,
            change,
        } => {
            let currency = currency.as_deref();
            let tx = &mut work.tx;
            let invoice =
                store::lock_invoice(tx, provider, reference, org_id.as_deref(), currency, now)
                    .await?;
            let state = invoice.state.apply(*change);
            store::save_invoice(tx, &invoice.id, state).await?;
            if let Some((kind, amount_minor)) = money_moved(*change) {
                let invoice_id = invoice.id.as_str();
                let payment = Payment {
                    invoice_id,
                    kind,
                    amount_minor,
                    currency,
                    event_id,
                };
                store::insert_payment(tx, &payment, now).await?;
            }
            let Some(org_id) = invoice.org_id else {
                return Ok(());
            };
            if !franchise::store::exists(tx, &org_id).await? {
                return Ok(());
            }
            let detail = json!({ "invoiceId": invoice.id, "status": state.status() });
            work.publish(&org_id, "invoice.changed", detail, now).await
        }
        Fact::Subscription(fact) => change_subscription(work, provider, fact, now).await,
    }
}

async fn change_subscription(
    work: &mut Work,
    provider: &str,
    fact: &SubscriptionFact,
    now: Millis,
) -> ApiResult<()> {
    let state = match store::lock_subscription(&mut work.tx, provider, fact).await? {
        Some(before) => before.apply(fact),
        None => SubscriptionState::first(fact),
    };
    let tx = &mut work.tx;
    let org_id = store::save_subscription(tx, provider, &fact.reference, &state).await?;
    let (Some(org_id), Some(plan)) = (org_id, state.effective_plan()) else {
        return Ok(());
    };
    if !franchise::store::change_plan(tx, &org_id, plan).await? {
        return Ok(());
    }
    let detail = json!({ "plan": plan, "status": state.status() });
    work.publish(&org_id, "plan.changed", detail, now).await?;
    work.tell_edge(
        "plan.changed",
        json!({ "orgId": org_id, "plan": plan }),
        now,
    )
    .await
}

/// What the ledger of payments records of a change.
fn money_moved(change: Change) -> Option<(&'static str, i64)> {
    match change {
        Change::Paid { minor } => Some(("payment", minor)),
        Change::Refunded { minor } => Some(("refund", minor)),
        Change::RefundedInAll { minor } => Some(("refund_total", minor)),
        Change::Disputed | Change::Failed => None,
    }
}
