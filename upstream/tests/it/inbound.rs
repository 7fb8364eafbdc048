//! Webhooks as the edge delivers them.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{client::Call, world::World};

crate::on_both_databases!(
    the_example_is_applied_and_recorded,
    copies_of_an_event_have_one_effect,
    forged_old_and_changed_deliveries_are_refused_and_leave_nothing,
    what_we_have_no_use_for_is_ignored_and_remembered,
    what_can_never_be_applied_is_refused_and_not_remembered,
    an_invoice_ends_the_same_in_any_order,
    a_plan_change_reaches_the_organisation_and_the_edge,
    a_body_beyond_the_limit_is_refused,
);

const EXAMPLE: &str = r#"{"event":"invoice.paid","id":"evt_test_123","amount":5000}"#;

async fn events(world: &World) -> i64 {
    world.count("SELECT COUNT(*) FROM webhook_events").await
}

async fn apply(world: &World, event_id: &str, body: Value) {
    let answer = world
        .deliver("billing", event_id, &body.to_string())
        .await
        .expect(200);
    assert_eq!(answer.json(), json!({ "status": "applied" }));
}

async fn the_example_is_applied_and_recorded(world: &World) {
    let answer = world
        .deliver("billing", "evt_test_123", EXAMPLE)
        .await
        .expect(200);
    assert_eq!(answer.json(), json!({ "status": "applied" }));
    let invoice = "FROM invoices WHERE external_id = 'evt_test_123'";
    assert_eq!(
        world.text(&format!("SELECT status {invoice}")).await,
        "PAID"
    );
    assert_eq!(
        world.count(&format!("SELECT paid_minor {invoice}")).await,
        5_000
    );
    let payment = "SELECT amount_minor FROM payments WHERE event_id = 'evt_test_123'";
    assert_eq!(world.count(payment).await, 5_000);
}

async fn copies_of_an_event_have_one_effect(world: &World) {
    let delivery = world.delivery("billing", "evt_1", EXAMPLE);
    let answers = join_all((0..8).map(|_| world.send(delivery.clone()))).await;
    let of = |status: &str| {
        answers
            .iter()
            .filter(|answer| answer.json() == json!({ "status": status }))
            .count()
    };
    assert_eq!((of("applied"), of("duplicate")), (1, 7));
    // The same id at another endpoint is another event.
    let other = world.deliver("partner", "evt_1", EXAMPLE).await.expect(200);
    assert_eq!(other.json(), json!({ "status": "applied" }));
    assert_eq!(
        world
            .count("SELECT COUNT(*) FROM payments WHERE event_id = 'evt_1'")
            .await,
        2
    );
}

async fn forged_old_and_changed_deliveries_are_refused_and_leave_nothing(world: &World) {
    let now = crate::world::now_s(&world.served.clock);
    let bare = || Call::post_bytes("/internal/webhooks/billing", EXAMPLE);
    let forged = bare()
        .header("webhook-id", "evt_1")
        .header("webhook-timestamp", now.to_string())
        .header("webhook-signature", "v1,AAAA");
    let refused = [
        (bare(), "signature_missing"),
        (forged, "signature_invalid"),
        (
            world.delivery_at("billing", "evt_1", EXAMPLE, now - 310),
            "signature_expired",
        ),
        (
            world.delivery_at("billing", "evt_1", EXAMPLE, now + 310),
            "signature_expired",
        ),
        (bare().identity(&world.manager()), "signature_missing"),
    ];
    for (call, code) in refused {
        assert_eq!(world.send(call).await.expect(401).code(), code);
    }
    world
        .send(world.delivery_at("billing", "evt_1", EXAMPLE, now - 290))
        .await
        .expect(200);
    assert_eq!(events(world).await, 1);
}

async fn what_we_have_no_use_for_is_ignored_and_remembered(world: &World) {
    let body = r#"{"type":"customer.created","id":"evt_2"}"#;
    for status in ["ignored", "duplicate"] {
        let answer = world.deliver("stripe", "evt_2", body).await.expect(200);
        assert_eq!(answer.json(), json!({ "status": status }));
    }
    assert_eq!(events(world).await, 1);
}

async fn what_can_never_be_applied_is_refused_and_not_remembered(world: &World) {
    for (body, code) in [
        ("not json", "body_not_json"),
        ("{}", "event_missing"),
        (r#"{"event":"invoice.paid"}"#, "event_unreadable"),
        (
            r#"{"event":"invoice.paid","amount":-5}"#,
            "event_unreadable",
        ),
    ] {
        let answer = world.deliver("billing", "evt_3", body).await.expect(422);
        assert_eq!(answer.code(), code);
    }
    assert_eq!(events(world).await, 0);
}

async fn an_invoice_ends_the_same_in_any_order(world: &World) {
    let event = |kind: &str, invoice: &str, amount: i64| {
        json!({ "event": kind, "invoiceId": invoice, "orgId": "org_demo", "amount": amount,
                "currency": "USD" })
    };
    let kinds = [
        ("invoice.payment_failed", 100),
        ("invoice.paid", 100),
        ("charge.refunded", 40),
        ("charge.refunded", 60),
    ];
    let orders = [
        ("in_a", [0, 1, 2, 3]),
        ("in_b", [3, 2, 1, 0]),
        ("in_c", [2, 0, 3, 1]),
    ];
    for (invoice, order) in orders {
        for place in order {
            let (kind, amount) = kinds[place];
            apply(
                world,
                &format!("evt_{invoice}_{place}"),
                event(kind, invoice, amount),
            )
            .await;
        }
        let status = format!("SELECT status FROM invoices WHERE external_id = '{invoice}'");
        assert_eq!(world.text(&status).await, "REFUNDED");
    }
    apply(
        world,
        "evt_dispute",
        event("charge.dispute.created", "in_a", 100),
    )
    .await;
    let status = "SELECT status FROM invoices WHERE external_id = 'in_a'";
    assert_eq!(world.text(status).await, "DISPUTED");
}

async fn a_plan_change_reaches_the_organisation_and_the_edge(world: &World) {
    let mut edge = world.edge_events(None).await;
    assert_eq!(edge.next().await.event, "ready");
    let event = |kind: &str, plan: &str, created: i64| {
        json!({ "event": kind, "subscriptionId": "sub_1", "orgId": "org_demo", "plan": plan,
                "created": created })
    };
    apply(world, "evt_s1", event("subscription.updated", "ENT", 2_000)).await;
    let told = edge.next().await;
    assert_eq!(told.event, "plan.changed");
    assert_eq!(told.data, json!({ "orgId": "org_demo", "plan": "ENT" }));
    // An older change that arrives late changes nothing.
    apply(
        world,
        "evt_s0",
        event("subscription.updated", "FREE", 1_000),
    )
    .await;
    let plan = "SELECT plan FROM organisations WHERE id = 'org_demo'";
    assert_eq!(world.text(plan).await, "ENT");
    apply(
        world,
        "evt_s2",
        event("subscription.canceled", "ENT", 3_000),
    )
    .await;
    assert_eq!(
        edge.next().await.data,
        json!({ "orgId": "org_demo", "plan": "FREE" })
    );
    assert_eq!(world.text(plan).await, "FREE");
}

async fn a_body_beyond_the_limit_is_refused(world: &World) {
    let body = format!(r#"{{"event":"{}"}}"#, "x".repeat(2 * 1024 * 1024));
    let answer = world.deliver("billing", "evt_4", &body).await.expect(413);
    assert_eq!(answer.code(), "body_too_large");
}
