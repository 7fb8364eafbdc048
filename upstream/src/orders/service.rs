//! Records a closed order: row, day's figures and event in one transaction.

use serde_json::json;

use crate::{
    app::App,
    auth::assertion::Caller,
    error::{ApiError, ApiResult},
    event::{FIGURES_GROUPS, figures},
    kernel::{id, input::Fault, role::Permission},
    orders::{model::NewOrder, store},
    store::idempotency::{self, Claim, Kept, Key},
};

pub(crate) async fn close(
    app: &App,
    caller: &Caller,
    order: &NewOrder,
    key: Option<&Key>,
) -> ApiResult<Kept> {
    caller.must(Permission::CloseOrders, &order.org_id)?;
    let now = app.clock.now();
    let mut work = app.work().await?;
    if let Some(key) = key
        && let Claim::Repeat(kept) = idempotency::claim(&mut work.tx, key, now).await?
    {
        return Ok(kept);
    }
    let currency = store::currency_at_branch(&mut work.tx, &order.org_id, &order.branch_id).await?;
    match currency {
        None => return Err(ApiError::NotFound { what: "branch" }),
        Some(currency) if currency != order.currency => {
            let message = format!("this organisation trades in {currency}");
            return Err(vec![Fault {
                field: "currency".to_owned(),
                message,
            }]
            .into());
        }
        Some(_) => {}
    }
    let order_id = id::fresh("ord", now);
    let day = now.day();
    store::insert_closed(&mut work.tx, &order_id, order, day, now).await?;
    figures::add_order(&mut work.tx, &order.org_id, day, order.total_minor).await?;
    let detail = json!({ "orderId": order_id, "branchId": order.branch_id });
    work.publish(&order.org_id, "order.closed", detail, now)
        .await?;
    work.invalidate(&order.org_id, &FIGURES_GROUPS, now).await?;
    let answer = Kept {
        status: 201,
        body: json!({
            "id": order_id,
            "orgId": order.org_id,
            "branchId": order.branch_id,
            "status": "CLOSED",
            "total": order.total_minor,
            "currency": order.currency,
            "closedAt": now.rfc3339(),
        })
        .to_string(),
    };
    if let Some(key) = key {
        idempotency::keep(&mut work.tx, key, &answer).await?;
    }
    work.commit().await?;
    Ok(answer)
}
