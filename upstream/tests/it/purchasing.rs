//! Receiving goods.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    client::{Answer, Call},
    world::World,
};

crate::on_both_databases!(
    a_receipt_becomes_batches_and_labels_the_answer,
    a_receipt_is_all_or_nothing,
    every_fault_of_a_receipt_is_listed,
    a_full_order_is_received_and_takes_no_more,
    concurrent_receipts_never_exceed_the_order,
    only_ones_own_approved_orders_take_goods,
    a_repeated_receipt_key_creates_no_second_batch,
);

const RECEIVE: &str = "/procurement/purchase-orders/receive";

fn body(po_id: &str, items: Value) -> Value {
    json!({ "orgId": "org_demo", "poId": po_id, "receivedBy": "Ana", "items": items })
}

fn flour(quantity: f64) -> Value {
    json!([{ "itemId": "itm_demo_flour", "quantity": quantity }])
}

async fn receive(world: &World, po_id: &str, items: Value) -> Answer {
    world
        .post(RECEIVE, &body(po_id, items), &world.manager())
        .await
}

async fn batches(world: &World) -> i64 {
    world.count("SELECT COUNT(*) FROM stock_batches").await
}

async fn a_receipt_becomes_batches_and_labels_the_answer(world: &World) {
    let items = json!([
        { "itemId": "itm_demo_oil", "quantity": 3 },
        { "itemId": "itm_demo_flour", "quantity": 2.5 },
    ]);
    let answer = receive(world, "po_demo_flour", items).await.expect(200);
    assert_eq!(
        answer.header("cache-group-invalidation"),
        Some(r#""overview";org="org_demo", "rankings";org="org_demo""#)
    );
    let receipt = answer.json();
    assert_eq!(receipt["status"], "PARTLY_RECEIVED");
    assert_eq!(receipt["batches"][0]["itemId"], "itm_demo_flour");
    assert_eq!(receipt["batches"][0]["quantity"], 2.5);
    assert_eq!(receipt["batches"][1]["quantity"], 3);
    assert_eq!(batches(world).await, 2);
    let remaining = "SELECT remaining_milli FROM stock_batches WHERE item_id = 'itm_demo_flour'";
    assert_eq!(world.count(remaining).await, 2_500);
}

async fn a_receipt_is_all_or_nothing(world: &World) {
    let items = json!([
        { "itemId": "itm_demo_flour", "quantity": 4 },
        { "itemId": "itm_demo_oil", "quantity": 1 },
    ]);
    let answer = receive(world, "po_demo_small", items).await.expect(409);
    assert_eq!(answer.code(), "item_not_ordered");
    assert_eq!(answer.header("cache-group-invalidation"), None);
    let over = receive(world, "po_demo_small", flour(10.001))
        .await
        .expect(409);
    assert_eq!(over.code(), "over_receipt");
    assert_eq!(batches(world).await, 0);
    let received = "SELECT received_milli FROM purchase_order_lines WHERE po_id = 'po_demo_small'";
    assert_eq!(world.count(received).await, 0);
}

async fn every_fault_of_a_receipt_is_listed(world: &World) {
    let body = json!({ "poId": "", "items": [
        { "itemId": "itm_demo_flour", "quantity": -1 },
        { "quantity": "two" },
        7,
    ]});
    let answer = world
        .post(RECEIVE, &body, &world.manager())
        .await
        .expect(422);
    assert_eq!(
        answer.faults(),
        [
            "orgId",
            "poId",
            "receivedBy",
            "items[0].quantity",
            "items[1].itemId",
            "items[1].quantity",
            "items[2].itemId",
            "items[2].quantity"
        ]
    );
}

async fn a_full_order_is_received_and_takes_no_more(world: &World) {
    let part = receive(world, "po_demo_small", flour(4.0))
        .await
        .expect(200)
        .json();
    assert_eq!(part["status"], "PARTLY_RECEIVED");
    let over = receive(world, "po_demo_small", flour(7.0))
        .await
        .expect(409);
    assert_eq!(over.code(), "over_receipt");
    let rest = receive(world, "po_demo_small", flour(6.0))
        .await
        .expect(200)
        .json();
    assert_eq!(rest["status"], "RECEIVED");
    assert_eq!(
        receive(world, "po_demo_small", flour(1.0))
            .await
            .expect(409)
            .code(),
        "over_receipt"
    );
    assert_eq!(world.overview().await["summary"]["openPurchaseOrders"], 1);
}

async fn concurrent_receipts_never_exceed_the_order(world: &World) {
    let calls = (0..12).map(|_| receive(world, "po_demo_small", flour(3.0)));
    let answers = join_all(calls).await;
    let taken = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().filter(|answer| answer.status == 409).count();
    assert_eq!((taken, refused), (3, 9));
    assert_eq!(batches(world).await, 3);
}

async fn only_ones_own_approved_orders_take_goods(world: &World) {
    let draft = receive(world, "po_demo_draft", flour(1.0))
        .await
        .expect(409);
    assert_eq!(draft.code(), "purchase_order_not_receivable");
    receive(world, "po_other", flour(1.0)).await.expect(404);
    receive(world, "po_missing", flour(1.0)).await.expect(404);
    for (orgs, code) in [
        (json!({ "org_other": "owner" }), "org_forbidden"),
        (json!({ "org_demo": "waiter" }), "role_forbidden"),
    ] {
        let body = body("po_demo_flour", flour(1.0));
        let answer = world
            .post(RECEIVE, &body, &world.identity(orgs))
            .await
            .expect(403);
        assert_eq!(answer.code(), code);
    }
    assert_eq!(batches(world).await, 0);
}

async fn a_repeated_receipt_key_creates_no_second_batch(world: &World) {
    let call = Call::post(RECEIVE, &body("po_demo_flour", flour(1.0)))
        .identity(&world.manager())
        .header("idempotency-key", "receipt-1");
    let first = world.send(call.clone()).await.expect(200);
    let again = world.send(call).await.expect(200);
    assert_eq!(first.text, again.text);
    assert_eq!(batches(world).await, 1);
}
