//! Closed orders and what they move.

use futures_util::future::join_all;
use serde_json::json;

use sqlx::{AnyConnection, Connection as _};

use crate::{
    client::Call,
    world::{self, World},
};

crate::on_both_databases!(
    an_order_moves_the_overview_and_labels_the_answer,
    faulty_orders_are_refused_and_leave_nothing,
    a_repeated_key_gets_the_first_answer,
    concurrent_copies_of_a_key_have_one_effect,
    running_figures_equal_the_rows_after_concurrent_orders,
    two_processes_write_to_one_database_at_once,
    a_database_that_is_held_up_is_trouble_that_passes,
);

async fn orders(world: &World) -> i64 {
    world
        .count("SELECT COUNT(*) FROM orders WHERE org_id = 'org_demo'")
        .await
}

async fn an_order_moves_the_overview_and_labels_the_answer(world: &World) {
    let before = world.overview().await["summary"].clone();
    let mut edge = world.edge_events(None).await;
    assert_eq!(edge.next().await.event, "ready");
    let answer = world.order(12_345).await;
    assert_eq!(
        answer.header("cache-group-invalidation"),
        Some(r#""overview";org="org_demo", "rankings";org="org_demo""#)
    );
    let order = answer.json();
    assert!(order["id"].as_str().unwrap().starts_with("ord_"));
    assert_eq!(
        (&order["total"], &order["status"]),
        (&json!(12_345), &json!("CLOSED"))
    );
    let after = world.overview().await["summary"].clone();
    let told = edge.next().await;
    assert_eq!(told.event, "cache.invalidate");
    let groups = json!(["overview", "rankings"]);
    assert_eq!(told.data, json!({ "orgId": "org_demo", "groups": groups }));
    let figure = |summary: &serde_json::Value, name: &str| summary[name].as_i64().unwrap();
    assert_eq!(
        figure(&after, "revenue"),
        figure(&before, "revenue") + 12_345
    );
    assert_eq!(figure(&after, "orders"), figure(&before, "orders") + 1);
}

async fn faulty_orders_are_refused_and_leave_nothing(world: &World) {
    let before = orders(world).await;
    let post = async |body: serde_json::Value, identity: &str| {
        world.post("/orders", &body, identity).await
    };
    let body = json!({ "orgId": 7, "branchId": "", "total": 0, "currency": "usd" });
    let faults = post(body, &world.manager()).await.expect(422).faults();
    assert_eq!(faults, ["orgId", "branchId", "total", "currency"]);
    let mut euros = world.order_body(100);
    euros["currency"] = json!("EUR");
    assert_eq!(
        post(euros, &world.manager()).await.expect(422).faults(),
        ["currency"]
    );
    let mut elsewhere = world.order_body(100);
    elsewhere["branchId"] = json!("brn_other_main");
    post(elsewhere, &world.manager()).await.expect(404);
    let chef = world.identity(json!({ "org_demo": "chef" }));
    assert_eq!(
        post(world.order_body(100), &chef).await.expect(403).code(),
        "role_forbidden"
    );
    let stranger = world.identity(json!({ "org_other": "owner" }));
    assert_eq!(
        post(world.order_body(100), &stranger)
            .await
            .expect(403)
            .code(),
        "org_forbidden"
    );
    assert_eq!(orders(world).await, before);
}

async fn a_repeated_key_gets_the_first_answer(world: &World) {
    let before = orders(world).await;
    let send = async |total: i64, key: &str| {
        let call = Call::post("/orders", &world.order_body(total)).identity(&world.manager());
        world.send(call.header("idempotency-key", key)).await
    };
    let first = send(500, "key-1").await.expect(201);
    let again = send(500, "key-1").await.expect(201);
    assert_eq!(first.text, again.text);
    assert!(again.header("cache-group-invalidation").is_some());
    let other = send(501, "key-1").await.expect(409);
    assert_eq!(other.code(), "idempotency_key_reused");
    send(500, "key-2").await.expect(201);
    assert_eq!(
        send(500, &"k".repeat(256)).await.expect(422).faults(),
        ["Idempotency-Key"]
    );
    assert_eq!(orders(world).await, before + 2);
}

async fn concurrent_copies_of_a_key_have_one_effect(world: &World) {
    let before = orders(world).await;
    let call = Call::post("/orders", &world.order_body(700)).identity(&world.manager());
    let call = call.header("idempotency-key", "same");
    let answers = join_all((0..8).map(|_| world.send(call.clone()))).await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.text), (201, &answers[0].text));
    }
    assert_eq!(orders(world).await, before + 1);
}

async fn running_figures_equal_the_rows_after_concurrent_orders(world: &World) {
    join_all((1..=16).map(|total| world.order(total * 100))).await;
    let day = world.served.clock.now().day().0;
    for (running, summed) in [
        ("revenue_minor", "CAST(SUM(total_minor) AS BIGINT)"),
        ("orders", "COUNT(*)"),
    ] {
        let filter = format!("WHERE org_id = 'org_demo' AND business_day = {day}");
        assert_eq!(
            world
                .count(&format!("SELECT {running} FROM kpi_days {filter}"))
                .await,
            world
                .count(&format!("SELECT {summed} FROM orders {filter}"))
                .await
        );
    }
}

async fn two_processes_write_to_one_database_at_once(world: &World) {
    let before = orders(world).await;
    let replica = world::serve(world.replica().await).await;
    let calls = (0..40).map(|place| {
        let call = Call::post("/orders", &world.order_body(100)).identity(&world.manager());
        call.send(if place % 2 == 0 {
            world.served.address
        } else {
            replica.address
        })
    });
    for answer in join_all(calls).await {
        answer.expect(201);
    }
    replica.stop().await;
    assert_eq!(orders(world).await, before + 40);
}

async fn a_database_that_is_held_up_is_trouble_that_passes(world: &World) {
    let mut config = world::config(&world.database_url);
    config.statement_timeout_ms = 200;
    let hurried = world::serve(world.replica_with(config).await).await;
    let order = || Call::post("/orders", &world.order_body(100)).identity(&world.manager());
    let mut connection = AnyConnection::connect(&world.database_url).await.unwrap();
    let begin = if world.database_url.starts_with("sqlite") {
        "BEGIN IMMEDIATE"
    } else {
        "BEGIN"
    };
    let mut holder = connection.begin_with(begin).await.unwrap();
    sqlx::query("UPDATE outbox_heads SET last_id = last_id WHERE topic = 'org_demo'")
        .execute(&mut *holder)
        .await
        .unwrap();
    let refused = order().send(hurried.address).await.expect(503);
    assert_eq!(refused.code(), "unavailable");
    assert_eq!(refused.header("retry-after"), Some("1"));
    holder.rollback().await.unwrap();
    order().send(hurried.address).await.expect(201);
    hurried.stop().await;
}
