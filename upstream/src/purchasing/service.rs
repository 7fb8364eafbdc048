//! Receives goods: all lines or none, batches and event in one transaction.

use serde_json::{Value, json};

use crate::{
    app::App,
    auth::assertion::Caller,
    error::{ApiError, ApiResult},
    event::{FIGURES_GROUPS, Work},
    kernel::{clock::Millis, id, input::from_milli, role::Permission},
    purchasing::{
        model::{PoStatus, Receipt, ReceivedItem},
        store::{self, Batch},
    },
    store::idempotency::{self, Claim, Kept, Key},
};

pub(crate) async fn receive(
    app: &App,
    caller: &Caller,
    receipt: &Receipt,
    key: Option<&Key>,
) -> ApiResult<Kept> {
    caller.must(Permission::ReceiveStock, &receipt.org_id)?;
    let now = app.clock.now();
    let mut work = app.work().await?;
    if let Some(key) = key
        && let Claim::Repeat(kept) = idempotency::claim(&mut work.tx, key, now).await?
    {
        return Ok(kept);
    }
    let branch_id = open_for_receipt(&mut work, receipt, now).await?;
    let mut batches = Vec::with_capacity(receipt.items.len());
    for item in &receipt.items {
        batches.push(take_in(&mut work, receipt, item, &branch_id, now).await?);
    }
    let status = store::settle_status(&mut work.tx, &receipt.po_id).await?;
    let detail = json!({ "poId": receipt.po_id, "branchId": branch_id, "status": status.as_str() });
    work.publish(&receipt.org_id, "stock.received", detail, now)
        .await?;
    work.invalidate(&receipt.org_id, &FIGURES_GROUPS, now)
        .await?;
    let answer = Kept {
        status: 200,
        body: json!({
            "orgId": receipt.org_id,
            "poId": receipt.po_id,
            "branchId": branch_id,
            "status": status.as_str(),
            "receivedBy": receipt.received_by,
            "receivedAt": now.rfc3339(),
            "batches": batches,
        })
        .to_string(),
    };
    if let Some(key) = key {
        idempotency::keep(&mut work.tx, key, &answer).await?;
    }
    work.commit().await?;
    Ok(answer)
}

/// The branch the goods go to, with the purchase order locked.
async fn open_for_receipt(work: &mut Work, receipt: &Receipt, now: Millis) -> ApiResult<String> {
    let order = store::lock(&mut work.tx, &receipt.org_id, &receipt.po_id, now)
        .await?
        .ok_or(ApiError::NotFound {
            what: "purchase order",
        })?;
    match PoStatus::parse(&order.status) {
        Some(status) if status.receivable() => Ok(order.branch_id),
        Some(PoStatus::Received) => Err(over_receipt("every line is fully received".to_owned())),
        Some(_) | None => Err(ApiError::Conflict {
            code: "purchase_order_not_receivable",
            detail: format!("a purchase order that is {} takes no goods", order.status),
        }),
    }
}

async fn take_in(
    work: &mut Work,
    receipt: &Receipt,
    item: &ReceivedItem,
    branch_id: &str,
    now: Millis,
) -> ApiResult<Value> {
    let Some(unit_cost_minor) = store::receive_line(&mut work.tx, &receipt.po_id, item).await?
    else {
        return Err(refusal(work, receipt, item).await?);
    };
    let batch_id = id::fresh("bat", now);
    let batch = Batch {
        id: &batch_id,
        org_id: &receipt.org_id,
        branch_id,
        po_id: &receipt.po_id,
        received_by: &receipt.received_by,
        unit_cost_minor,
    };
    store::insert_batch(&mut work.tx, &batch, item, now).await?;
    Ok(json!({
        "id": batch_id,
        "itemId": item.item_id,
        "quantity": from_milli(item.quantity_milli),
        "unitCost": unit_cost_minor,
    }))
}

/// Why a line did not take the quantity: it is not on the order, or there is no room.
async fn refusal(work: &mut Work, receipt: &Receipt, item: &ReceivedItem) -> ApiResult<ApiError> {
    let room = store::room(&mut work.tx, &receipt.po_id, &item.item_id).await?;
    Ok(match room {
        None => ApiError::Conflict {
            code: "item_not_ordered",
            detail: format!("{} is not on this purchase order", item.item_id),
        },
        Some(room) => over_receipt(format!(
            "{} can still take {}, not {}",
            item.item_id,
            from_milli(room),
            from_milli(item.quantity_milli)
        )),
    })
}

fn over_receipt(detail: String) -> ApiError {
    ApiError::Conflict {
        code: "over_receipt",
        detail,
    }
}
