//! Puts the figures together: totals are the sum of what the branches show, so the page always adds
//! up.

use serde_json::{Value, json};

use crate::{
    app::App,
    auth::assertion::Caller,
    error::ApiResult,
    franchise::{
        model::{Metric, OverviewQuery, RankingsQuery},
        store::{self, BranchFigures},
    },
    kernel::role::Permission,
    purchasing,
};

pub(crate) async fn overview(
    app: &App,
    caller: &Caller,
    query: &OverviewQuery,
) -> ApiResult<Value> {
    caller.must(Permission::ViewFigures, &query.org_id)?;
    let org = store::organisation(&app.store, &query.org_id).await?;
    let branches = store::figures_by_branch(&app.store, &query.org_id, query.span).await?;
    let open_orders = purchasing::store::open_count(&app.store, &query.org_id).await?;
    let revenue = branches
        .iter()
        .map(|branch| branch.revenue_minor)
        .sum::<i64>();
    let orders = branches.iter().map(|branch| branch.orders).sum::<i64>();
    Ok(json!({
        "orgId": org.id,
        "range": query.range,
        "currency": org.currency,
        "summary": {
            "revenue": revenue,
            "orders": orders,
            "averageTicket": average(revenue, orders),
            "branches": branches.len(),
            "openPurchaseOrders": open_orders,
        },
        "branches": branches.iter().map(branch_json).collect::<Vec<_>>(),
        "generatedAt": app.clock.now().rfc3339(),
    }))
}

pub(crate) async fn rankings(
    app: &App,
    caller: &Caller,
    query: &RankingsQuery,
) -> ApiResult<Value> {
    caller.must(Permission::ViewFigures, &query.org_id)?;
    let org = store::organisation(&app.store, &query.org_id).await?;
    let mut branches = store::figures_by_branch(&app.store, &query.org_id, query.span).await?;
    branches.sort_by_key(|branch| std::cmp::Reverse(by_metric(branch, query.metric)));
    let rankings: Vec<_> = branches
        .iter()
        .zip(1..)
        .map(|(branch, rank)| {
            let mut entry = branch_json(branch);
            entry["rank"] = Value::from(rank);
            entry["value"] = Value::from(by_metric(branch, query.metric));
            entry
        })
        .collect();
    Ok(json!({
        "orgId": org.id,
        "period": query.period,
        "metric": query.metric.as_str(),
        "currency": org.currency,
        "rankings": rankings,
    }))
}

fn branch_json(branch: &BranchFigures) -> Value {
    json!({
        "branchId": branch.branch_id,
        "name": branch.name,
        "revenue": branch.revenue_minor,
        "orders": branch.orders,
        "averageTicket": average(branch.revenue_minor, branch.orders),
    })
}

fn by_metric(branch: &BranchFigures, metric: Metric) -> i64 {
    match metric {
        Metric::Orders => branch.orders,
        Metric::Revenue => branch.revenue_minor,
    }
}

/// Rounded down to a whole minor unit; 0 without orders.
fn average(revenue_minor: i64, orders: i64) -> i64 {
    revenue_minor.checked_div(orders).unwrap_or_default()
}
