use serde_json::json;

use super::*;

const NOW: Millis = Millis(1_732_183_200_000);

fn read(body: &Value) -> Result<Fact, Unreadable> {
    let kind = Kind::parse(event_name(body).unwrap()).unwrap();
    Fact::read(kind, body, "evt_header", NOW)
}

#[test]
fn the_flat_example_is_an_invoice_paid_in_full() {
    let body = json!({"event": "invoice.paid", "id": "evt_test_123", "amount": 5000});
    let fact = Fact::Invoice {
        reference: "evt_header".to_owned(),
        org_id: None,
        currency: None,
        change: Change::Paid { minor: 5000 },
    };
    assert_eq!(read(&body), Ok(fact));
}

#[test]
fn the_nested_shape_names_its_invoice_and_organisation() {
    let body = json!({"type": "invoice.paid", "id": "evt_1", "data": {"object": {
        "id": "in_1", "amount_paid": 700, "currency": "eur", "metadata": {"orgId": "org_a"}}}});
    let fact = Fact::Invoice {
        reference: "in_1".to_owned(),
        org_id: Some("org_a".to_owned()),
        currency: Some("EUR".to_owned()),
        change: Change::Paid { minor: 700 },
    };
    assert_eq!(read(&body), Ok(fact));
}

#[test]
fn bodies_that_can_never_be_applied_say_why() {
    let refused = |body: Value| read(&body).unwrap_err();
    assert_eq!(
        refused(json!({"event": "invoice.paid"})),
        Unreadable::Amount
    );
    assert_eq!(
        refused(json!({"event": "invoice.paid", "amount": -1})),
        Unreadable::Amount
    );
    assert_eq!(
        refused(json!({"event": "invoice.paid", "amount": 1.5})),
        Unreadable::Amount
    );
    assert_eq!(
        refused(json!({"event": "subscription.updated", "plan": "PRO"})),
        Unreadable::Reference
    );
    assert_eq!(
        refused(json!({"event": "subscription.updated", "orgId": "org_a", "plan": "GOLD"})),
        Unreadable::Plan
    );
}

/// Every order of `items`.
fn permutations<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    (0..items.len())
        .flat_map(|place| {
            let mut rest = items.to_vec();
            let first = rest.remove(place);
            permutations(&rest).into_iter().map(move |mut order| {
                order.insert(0, first.clone());
                order
            })
        })
        .collect()
}

#[test]
fn an_invoice_ends_the_same_in_every_order_of_arrival() {
    let changes = [
        Change::Failed,
        Change::Paid { minor: 100 },
        Change::Refunded { minor: 40 },
        Change::Refunded { minor: 60 },
    ];
    for order in permutations(&changes) {
        let state = order
            .into_iter()
            .fold(InvoiceState::default(), InvoiceState::apply);
        assert_eq!(state.status(), "REFUNDED");
    }
}

#[test]
fn a_subscription_ends_the_same_in_every_order_of_arrival() {
    let fact = |event_id: &str, at, plan: Option<&str>, canceled| SubscriptionFact {
        reference: "sub_1".to_owned(),
        org_id: None,
        plan: plan.map(str::to_owned),
        status: if canceled { "canceled" } else { "active" }.to_owned(),
        canceled,
        at: Millis(at),
        event_id: event_id.to_owned(),
    };
    let upgrades = [
        fact("evt_a", 1, Some("PRO"), false),
        fact("evt_b", 2, Some("ENT"), false),
        fact("evt_c", 2, None, false),
    ];
    for order in permutations(&upgrades) {
        let mut facts = order.iter();
        let first = SubscriptionState::first(facts.next().unwrap());
        let state = facts.fold(first, SubscriptionState::apply);
        assert_eq!(state.effective_plan(), Some("ENT"), "{order:?}");
    }
    let canceled = [
        fact("evt_a", 1, Some("PRO"), false),
        fact("evt_b", 3, None, true),
        fact("evt_c", 4, Some("ENT"), false),
    ];
    for order in permutations(&canceled) {
        let mut facts = order.iter();
        let first = SubscriptionState::first(facts.next().unwrap());
        let state = facts.fold(first, SubscriptionState::apply);
        assert_eq!(
            (state.status(), state.effective_plan()),
            ("canceled", Some("FREE"))
        );
    }
}

#[test]
fn a_cumulative_refund_does_not_count_twice() {
    let state = InvoiceState::default()
        .apply(Change::Paid { minor: 100 })
        .apply(Change::RefundedInAll { minor: 30 })
        .apply(Change::RefundedInAll { minor: 30 });
    assert_eq!(
        (state.refunded_minor, state.status()),
        (30, "PARTLY_REFUNDED")
    );
}
