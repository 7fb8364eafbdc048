//! Streams of figures.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    client::{Call, Received},
    world::{self, World},
};

crate::on_both_databases!(
    a_stream_begins_with_the_present_and_follows_every_order,
    a_stream_resumes_without_gap_or_repeat,
    an_unknown_position_gets_the_present,
    figures_never_run_backwards_under_concurrency,
    what_another_replica_writes_arrives,
    a_receipt_is_an_event_too,
    streams_are_for_members_who_may_see_figures,
    a_new_day_begins_at_zero,
    streams_end_at_once_when_the_api_stops,
    a_client_that_leaves_gives_its_slot_back,
);

fn receipt(world: &World) -> Value {
    json!({ "orgId": "org_demo", "poId": world.demo.po_id, "receivedBy": "Ana",
        "items": [{ "itemId": world.demo.item_id, "quantity": 1 }] })
}

async fn a_stream_begins_with_the_present_and_follows_every_order(world: &World) {
    let summary = world.overview().await["summary"].clone();
    let mut events = world.kpis(None).await;
    let first = events.next().await;
    assert_eq!(first.event, "kpi-update");
    assert_eq!(first.data["revenue"], summary["revenue"]);
    assert_eq!(first.data["orders"], summary["orders"]);
    assert!(first.data["timestamp"].as_str().unwrap().ends_with('Z'));
    for step in 1..=3 {
        world.order(1_000).await;
        let update = events.next().await;
        assert_eq!(
            (update.id, update.event.as_str()),
            (first.id + step, "kpi-update")
        );
        let revenue = summary["revenue"].as_i64().unwrap() + 1_000 * step;
        assert_eq!(update.data["revenue"], revenue);
        assert_eq!(
            update.data["orders"],
            summary["orders"].as_i64().unwrap() + step
        );
    }
}

async fn a_stream_resumes_without_gap_or_repeat(world: &World) {
    let mut events = world.kpis(None).await;
    let seen = events.next().await.id;
    drop(events);
    for total in [100, 200, 300] {
        world.order(total).await;
    }
    let mut resumed = world.kpis(Some(seen)).await;
    let missed = [
        resumed.next().await,
        resumed.next().await,
        resumed.next().await,
    ];
    assert_eq!(
        missed.each_ref().map(|event| event.id),
        [seen + 1, seen + 2, seen + 3]
    );
    let mut again = world.kpis(Some(seen + 1)).await;
    assert_eq!(again.next().await, missed[1]);
    assert_eq!(again.next().await, missed[2]);
    world.order(400).await;
    assert_eq!(again.next().await.id, seen + 4);
    assert_eq!(resumed.next().await.id, seen + 4);
}

async fn an_unknown_position_gets_the_present(world: &World) {
    let present = world.kpis(None).await.next().await;
    for last in [present.id + 1, i64::MAX] {
        let first = world.kpis(Some(last)).await.next().await;
        assert_eq!(
            (first.id, &first.data["cause"]),
            (present.id, &json!("snapshot"))
        );
    }
}

async fn figures_never_run_backwards_under_concurrency(world: &World) {
    let receipt = receipt(world);
    let mut events = world.kpis(None).await;
    let mut last = events.next().await;
    let path = "/procurement/purchase-orders/receive";
    let manager = world.manager();
    let receipts = join_all((0..20).map(|_| world.post(path, &receipt, &manager)));
    tokio::join!(join_all((0..20).map(|_| world.order(50))), receipts);
    for _ in 0..40 {
        let event = events.next().await;
        assert_eq!(event.id, last.id + 1);
        let orders = |event: &Received| event.data["orders"].as_i64().unwrap();
        let step = i64::from(event.data["cause"] == "order.closed");
        assert_eq!(orders(&event), orders(&last) + step, "{event:?}");
        last = event;
    }
    assert_eq!(
        world.overview().await["summary"]["orders"],
        last.data["orders"]
    );
}

async fn what_another_replica_writes_arrives(world: &World) {
    let replica = world::serve(world.replica().await).await;
    let mut events = world.kpis(None).await;
    let first = events.next().await;
    let call = Call::post("/orders", &world.order_body(900)).identity(&world.manager());
    call.send(replica.address).await.expect(201);
    assert_eq!(events.next().await.id, first.id + 1);
    replica.stop().await;
}

async fn a_receipt_is_an_event_too(world: &World) {
    let mut events = world.kpis(None).await;
    let first = events.next().await;
    let path = "/procurement/purchase-orders/receive";
    world
        .post(path, &receipt(world), &world.manager())
        .await
        .expect(200);
    let event = events.next().await;
    assert_eq!(
        (event.id, &event.data["cause"]),
        (first.id + 1, &json!("stock.received"))
    );
    assert_eq!(event.data["orders"], first.data["orders"]);
}

async fn streams_are_for_members_who_may_see_figures(world: &World) {
    let path = "/stream/kpis?orgId=org_demo";
    let stranger = world.identity(json!({ "org_other": "owner" }));
    assert_eq!(
        world.get(path, &stranger).await.expect(403).code(),
        "org_forbidden"
    );
    let waiter = world.identity(json!({ "org_demo": "waiter" }));
    assert_eq!(
        world.get(path, &waiter).await.expect(403).code(),
        "role_forbidden"
    );
    assert_eq!(
        world
            .get("/stream/kpis", &world.manager())
            .await
            .expect(422)
            .faults(),
        ["orgId"]
    );
    world.send(Call::get(path)).await.expect(401);
}

async fn a_new_day_begins_at_zero(world: &World) {
    let mut events = world.kpis(None).await;
    let first = events.next().await;
    assert!(first.data["orders"].as_i64().unwrap() > 0);
    world.served.clock.shift(24 * 60 * 60 * 1000);
    let event = events.next().await;
    assert_eq!((event.id, &event.data["orders"]), (first.id + 1, &json!(0)));
    assert_eq!(event.data["cause"], "day.opened");
}

async fn streams_end_at_once_when_the_api_stops(world: &World) {
    let replica = world::serve(world.replica().await).await;
    let call = Call::get("/stream/kpis?orgId=org_demo").identity(&world.manager());
    let mut events = call.stream(replica.address).await;
    events.next().await;
    replica.stop().await;
    assert_eq!(events.next_or_end().await, None);
}

async fn a_client_that_leaves_gives_its_slot_back(world: &World) {
    let open = async || {
        let text = world.send(Call::get("/metrics")).await.expect(200).text;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("chefcloud_streams_open "));
        line.unwrap().to_owned()
    };
    let mut events = world.kpis(None).await;
    events.next().await;
    assert_eq!(open().await, "1");
    drop(events);
    world::until("the slot is given back", async || open().await == "0").await;
}
