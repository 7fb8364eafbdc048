//! Data to try the API with: two organisations, thirty days of orders, a purchase order that takes
//! many receipts. Made again every time it is called: what exists stays, what is missing is added,
//! such as the orders of a new day.

use anyhow::ensure;
use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::{
    app::App,
    auth::store::{self as auth_store, UserRow},
    billing::{
        model::{Change, Fact},
        service as billing,
    },
    config::Environment,
    error::ApiResult,
    event::Work,
    franchise::store::{self as franchise_store, Organisation},
    kernel::{
        clock::{DAY_MS, Day, MINUTE_MS, Millis},
        role::Role,
        secret::Secret,
    },
    store::Tx,
};

const DAYS_OF_HISTORY: i64 = 30;
const ROWS_PER_INSERT: usize = 40;
/// Minor units; what guests order.
const MENU: [i64; 8] = [650, 890, 1_250, 1_480, 1_790, 2_200, 2_650, 3_900];
const MENU_LEN: i64 = 8;

/// What a newcomer needs to try the API.
#[derive(Clone, Debug)]
pub struct Demo {
    pub email: String,
    pub password: String,
    pub org_id: String,
    pub branch_id: String,
    pub po_id: String,
    pub item_id: String,
}

struct DemoUser {
    id: &'static str,
    email: &'static str,
    name: &'static str,
    password: &'static str,
    org_id: &'static str,
    role: Role,
}

struct DemoBranch {
    id: &'static str,
    org_id: &'static str,
    name: &'static str,
    orders_a_day: i64,
}

const ORGANISATIONS: [(&str, &str, &str); 2] = [
    ("org_demo", "Demo Bistros", "PRO"),
    ("org_other", "Other Kitchens", "FREE"),
];

const BRANCHES: [DemoBranch; 3] = [
    DemoBranch {
        id: "brn_demo_centro",
        org_id: "org_demo",
        name: "Centro",
        orders_a_day: 14,
    },
    DemoBranch {
        id: "brn_demo_norte",
        org_id: "org_demo",
        name: "Norte",
        orders_a_day: 9,
    },
    DemoBranch {
        id: "brn_other_main",
        org_id: "org_other",
        name: "Main",
        orders_a_day: 3,
    },
];

const USERS: [DemoUser; 3] = [
    DemoUser {
        id: "usr_demo_manager",
        email: "manager@staging.com",
        name: "Demo Manager",
        password: "staging-manager-1",
        org_id: "org_demo",
        role: Role::Manager,
    },
    DemoUser {
        id: "usr_demo_waiter",
        email: "waiter@staging.com",
        name: "Demo Waiter",
        password: "staging-waiter-1",
        org_id: "org_demo",
        role: Role::Waiter,
    },
    DemoUser {
        id: "usr_other_owner",
        email: "owner@other.test",
        name: "Other Owner",
        password: "staging-owner-1",
        org_id: "org_other",
        role: Role::Owner,
    },
];

pub(crate) async fn seed(app: &App) -> anyhow::Result<Demo> {
    ensure!(
        app.environment == Environment::Development,
        "demo data has fixed passwords and is refused in production"
    );
    let now = app.clock.now();
    seed_accounts(app, now).await?;
    let mut work = app.work().await?;
    seed_purchasing(&mut work.tx, now).await?;
    let mut today = false;
    for branch in &BRANCHES {
        today |= seed_orders(&mut work.tx, branch, now).await?;
    }
    recount_days(&mut work.tx, now).await?;
    seed_invoices(&mut work, now).await?;
    if today {
        for (org_id, _, _) in ORGANISATIONS {
            work.publish(org_id, "demo.seeded", json!({}), now).await?;
        }
    }
    work.commit().await?;
    Ok(Demo {
        email: "manager@staging.com".to_owned(),
        password: "staging-manager-1".to_owned(),
        org_id: "org_demo".to_owned(),
        branch_id: "brn_demo_centro".to_owned(),
        po_id: "po_demo_flour".to_owned(),
        item_id: "itm_demo_flour".to_owned(),
    })
}

async fn seed_accounts(app: &App, now: Millis) -> ApiResult<()> {
    let mut rows = Vec::with_capacity(USERS.len());
    for user in &USERS {
        if auth_store::user_by_email(&app.store, user.email)
            .await?
            .is_some()
        {
            continue;
        }
        let password_hash = app
            .passwords
            .hash(Secret::new(user.password.to_owned()))
            .await?;
        let row = UserRow {
            id: user.id.to_owned(),
            email: user.email.to_owned(),
            name: user.name.to_owned(),
            password_hash,
        };
        rows.push((row, user));
    }
    let mut tx = app.store.begin().await?;
    for (id, name, plan) in ORGANISATIONS {
        let org = Organisation {
            id: id.to_owned(),
            name: name.to_owned(),
            currency: "USD".to_owned(),
            plan: plan.to_owned(),
        };
        franchise_store::insert_organisation(&mut tx, &org, now).await?;
    }
    for branch in &BRANCHES {
        let (id, org_id) = (branch.id, branch.org_id);
        franchise_store::insert_branch(&mut tx, id, org_id, branch.name, now).await?;
    }
    for (row, user) in &rows {
        if auth_store::insert_user(&mut tx, row, now).await? {
            auth_store::insert_membership(&mut tx, user.id, user.org_id, user.role).await?;
        }
    }
    tx.commit().await?;
    Ok(())
}

/// The quantity ordered is large on purpose: a receipt can be tried over and over.
async fn seed_purchasing(tx: &mut Tx, now: Millis) -> ApiResult<()> {
    let statements = [
        "INSERT INTO suppliers (id, org_id, name) VALUES ('sup_demo', 'org_demo', 'Demo Mills')
         ON CONFLICT DO NOTHING",
        "INSERT INTO suppliers (id, org_id, name) VALUES ('sup_other', 'org_other', 'Other Mills')
         ON CONFLICT DO NOTHING",
        "INSERT INTO inventory_items (id, org_id, name, unit, is_active) VALUES
         ('itm_demo_flour', 'org_demo', 'Flour', 'kg', 1),
         ('itm_demo_oil', 'org_demo', 'Olive oil', 'l', 1),
         ('itm_other_flour', 'org_other', 'Flour', 'kg', 1) ON CONFLICT DO NOTHING",
    ];
    for statement in statements {
        sqlx::query(statement).execute(&mut **tx).await?;
    }
    sqlx::query(
        "INSERT INTO purchase_orders (id, org_id, branch_id, supplier_id, status, currency,
                                      created_at, updated_at) VALUES
         ('po_demo_flour', 'org_demo', 'brn_demo_centro', 'sup_demo', 'APPROVED', 'USD', $1, $1),
         ('po_demo_small', 'org_demo', 'brn_demo_norte', 'sup_demo', 'APPROVED', 'USD', $1, $1),
         ('po_demo_draft', 'org_demo', 'brn_demo_norte', 'sup_demo', 'DRAFT', 'USD', $1, $1),
         ('po_other', 'org_other', 'brn_other_main', 'sup_other', 'APPROVED', 'USD', $1, $1)
         ON CONFLICT DO NOTHING",
    )
    .bind(now.0)
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "INSERT INTO purchase_order_lines (po_id, item_id, ordered_milli, received_milli,
                                           unit_cost_minor) VALUES
         ('po_demo_flour', 'itm_demo_flour', 1000000000000, 0, 120),
         ('po_demo_flour', 'itm_demo_oil', 1000000000000, 0, 900),
         ('po_demo_small', 'itm_demo_flour', 10000, 0, 125),
         ('po_demo_draft', 'itm_demo_flour', 10000, 0, 125),
         ('po_other', 'itm_other_flour', 10000, 0, 130) ON CONFLICT DO NOTHING",
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

struct OrderRow {
    id: String,
    total_minor: i64,
    day: Day,
    closed_at: Millis,
}

/// Orders of the past days and of today so far; whether any of today's are new.
async fn seed_orders(tx: &mut Tx, branch: &DemoBranch, now: Millis) -> ApiResult<bool> {
    let today = now.day();
    let past: Vec<_> = (1..=DAYS_OF_HISTORY)
        .flat_map(|back| orders_of_day(branch, today.plus(-back), DAY_MS))
        .collect();
    for rows in past.chunks(ROWS_PER_INSERT) {
        insert_orders(tx, branch, rows).await?;
    }
    // Spread over the part of the day that is over, so that none lies in the future.
    let elapsed_ms = now.0.saturating_sub(today.start().0).max(MINUTE_MS);
    let mut added = 0;
    for rows in orders_of_day(branch, today, elapsed_ms).chunks(ROWS_PER_INSERT) {
        added += insert_orders(tx, branch, rows).await?;
    }
    Ok(added > 0)
}

/// The same orders for the same branch and day, every time.
fn orders_of_day(branch: &DemoBranch, day: Day, within_ms: i64) -> Vec<OrderRow> {
    // Weekends are busier: 1970-01-01 was a Thursday.
    let weekend = matches!((day.0 + 3).rem_euclid(7), 4..=6);
    let count = if weekend {
        branch.orders_a_day * 3 / 2
    } else {
        branch.orders_a_day
    };
    (0..count)
        .map(|place| {
            let guests = 1 + (place * 5 + day.0).rem_euclid(4);
            let pick = |course: i64| {
                let dish = (place * 7 + day.0 * 3 + course * 5).rem_euclid(MENU_LEN);
                usize::try_from(dish)
                    .ok()
                    .and_then(|dish| MENU.get(dish).copied())
                    .unwrap_or(650)
            };
            OrderRow {
                id: format!("ord_demo_{}_{}_{place}", branch.id, day.0),
                total_minor: (0..guests).map(pick).sum(),
                day,
                closed_at: day.start().plus_ms(within_ms * place / count.max(1)),
            }
        })
        .collect()
}

async fn insert_orders(tx: &mut Tx, branch: &DemoBranch, rows: &[OrderRow]) -> ApiResult<u64> {
    const COLUMNS: usize = 4;
    let values: Vec<_> = (0..rows.len())
        .map(|row| {
            let at = |column: usize| row * COLUMNS + column + 3;
            format!(
                "(${}, $1, $2, 'CLOSED', ${}, 'USD', ${}, ${}, ${})",
                at(0),
                at(1),
                at(2),
                at(3),
                at(3)
            )
        })
        .collect();
    // Only placeholders are put together here; every value is bound.
    let statement = format!(
        "INSERT INTO orders (id, org_id, branch_id, status, total_minor, currency, business_day,
                             created_at, updated_at)
         VALUES {} ON CONFLICT DO NOTHING",
        values.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(statement))
        .bind(branch.org_id)
        .bind(branch.id);
    for row in rows {
        query = query
            .bind(row.id.as_str())
            .bind(row.total_minor)
            .bind(row.day.0)
            .bind(row.closed_at.0);
    }
    Ok(query.execute(&mut **tx).await?.rows_affected())
}

/// The running figures of every day the seed touches, from the order rows.
async fn recount_days(tx: &mut Tx, now: Millis) -> ApiResult<()> {
    sqlx::query(
        "INSERT INTO kpi_days (org_id, business_day, revenue_minor, orders)
         SELECT org_id, business_day, CAST(SUM(total_minor) AS BIGINT), COUNT(*) FROM orders
         WHERE org_id IN ('org_demo', 'org_other') AND status = 'CLOSED' AND business_day >= $1
         GROUP BY org_id, business_day
         ON CONFLICT (org_id, business_day) DO UPDATE
         SET revenue_minor = excluded.revenue_minor, orders = excluded.orders",
    )
    .bind(now.day().plus(-DAYS_OF_HISTORY).0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn seed_invoices(work: &mut Work, now: Millis) -> ApiResult<()> {
    let known = sqlx::query("SELECT id FROM invoices WHERE provider = 'demo' LIMIT 1")
        .fetch_optional(&mut *work.tx)
        .await?;
    if known.is_some() {
        return Ok(());
    }
    let invoices = [
        ("demo_2", "org_demo", Change::Paid { minor: 4_900 }),
        ("demo_3", "org_demo", Change::Failed),
        ("demo_4", "org_other", Change::Paid { minor: 1_900 }),
    ];
    for (reference, org_id, change) in invoices {
        let fact = Fact::Invoice {
            reference: reference.to_owned(),
            org_id: Some(org_id.to_owned()),
            currency: Some("USD".to_owned()),
            change,
        };
        billing::apply(work, "demo", &fact, reference, now).await?;
    }
    Ok(())
}
