//! What every engine of the inbox must do, as functions over an engine. An engine is tested by
//! [`all`] with a harness of its own.

mod operator;

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Attempt, Claimed, DeadReason, EntryId, Event, Inbox, Memory, MemoryOf, Outcome, Policy,
    Selection, Settlement, Spread, Standing, State, Unwritable,
};
use crate::kernel::clock::UnixMs;
use crate::webhook::replay::ReplayKey;

/// An engine under test.
pub(crate) trait Harness {
    /// An empty inbox in a new place.
    async fn fresh(&mut self, policy: Policy) -> Inbox;

    /// The place opened last, once more; what was opened before is released and dropped.
    async fn again(&mut self, inbox: Inbox, policy: Policy) -> (Inbox, Vec<Memory>);
}

/// Everything.
pub(crate) async fn all(harness: &mut impl Harness) {
    an_event_is_claimed_once_and_again_after_a_restart(harness).await;
    a_retry_is_due_when_it_says_and_counts(harness).await;
    the_dead_stay_until_redelivered_or_past_their_time(harness).await;
    delivered_entries_are_kept_within_their_bytes_and_time(harness).await;
    entries_of_one_order_key_go_one_after_the_other(harness).await;
    an_entry_that_yields_no_longer_holds_others_back(harness).await;
    a_discarded_entry_is_gone_even_in_flight(harness).await;
    at_a_limit_nothing_is_taken_and_below_it_again(harness).await;
    what_must_be_remembered_survives_until_its_end(harness).await;
    operator::lists_are_complete_in_order_and_filtered(harness).await;
    operator::figures_are_those_of_the_rows(harness).await;
    operator::redelivery_by_filter_is_spread_and_planned(harness).await;
    destinations_do_not_meet(harness).await;
    who_waits_is_woken(harness).await;
}

/// A small event for `api`, received at 1,000.
pub(crate) fn event(endpoint: &str, event_id: &str, body: &[u8]) -> Event {
    Event {
        endpoint: endpoint.into(),
        provider: "stripe".into(),
        destination: Arc::from("api"),
        event_id: event_id.into(),
        received_at: UnixMs(1_000),
        content_type: None,
        headers: Vec::new(),
        traceparent: None,
        order_key: None,
        body: Bytes::copy_from_slice(body),
    }
}

fn ordered(event_id: &str, order_key: &str) -> Event {
    Event {
        order_key: Some(order_key.into()),
        ..event("billing", event_id, b"{}")
    }
}

fn attempt(at: i64, status: u16) -> Attempt {
    Attempt {
        at: UnixMs(at),
        took_ms: 7,
        outcome: Outcome::Status(status),
    }
}

fn retry(at: i64, due: i64, yield_order: bool) -> Settlement {
    Settlement::Retry {
        attempt: attempt(at, 503),
        due: UnixMs(due),
        yield_order,
    }
}

fn dead(at: i64) -> Settlement {
    Settlement::Dead {
        attempt: attempt(at, 400),
        reason: DeadReason::Refused,
    }
}

async fn append(inbox: &Inbox, event: Event) -> EntryId {
    inbox.append(event, Vec::new()).await.unwrap()
}

async fn claim(inbox: &Inbox, now: i64) -> Vec<Claimed> {
    inbox.claim("api", 100, UnixMs(now)).await
}

async fn claimed_ids(inbox: &Inbox, now: i64) -> Vec<EntryId> {
    claim(inbox, now).await.iter().map(|c| c.id).collect()
}

async fn settle(inbox: &Inbox, id: EntryId, settlement: Settlement, now: i64) {
    let settled = vec![(id, settlement)];
    inbox.settle(settled, UnixMs(now)).await.unwrap();
}

async fn state(inbox: &Inbox, id: EntryId) -> Option<State> {
    let shown = inbox.show(id).await.unwrap();
    shown.map(|shown| shown.summary.state)
}

async fn entries(inbox: &Inbox, standing: Standing) -> u64 {
    inbox.stats().await.unwrap().total(standing).entries
}

async fn an_event_is_claimed_once_and_again_after_a_restart(harness: &mut impl Harness) {
    let inbox = harness.fresh(Policy::default()).await;
    let full = Event {
        content_type: Some(Bytes::from_static(b"application/json")),
        headers: vec![("user-agent".into(), "Stripe/1.0".into())],
        traceparent: Some("00-0af7-b7ad-01".into()),
        ..event("billing", "evt_1", b"{\"a\": 1}")
    };
    let id = append(&inbox, full.clone()).await;
    assert!(claim(&inbox, 999).await.is_empty(), "not due yet");
    let claimed = claim(&inbox, 1_000).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!((claimed[0].id, &*claimed[0].event), (id, &full));
    assert_eq!((claimed[0].attempts, claimed[0].first_failed_at), (0, None));
    assert_eq!(claimed[0].patience_from, UnixMs(1_000));
    assert!(claim(&inbox, 9_000).await.is_empty(), "claimed already");
    assert_eq!(inbox.next_due("api").await, None);

    settle(&inbox, id, Settlement::Unclaim, 1_001).await;
    assert_eq!(inbox.next_due("api").await, Some(UnixMs(1_000)));
    assert_eq!(claim(&inbox, 1_001).await[0].attempts, 0);

    // The holder of the claim dies.
    let (inbox, _) = harness.again(inbox, Policy::default()).await;
    assert_eq!(claimed_ids(&inbox, 1_001).await, [id]);
    settle(
        &inbox,
        id,
        Settlement::Delivered(attempt(1_002, 200)),
        1_003,
    )
    .await;
    let (inbox, _) = harness.again(inbox, Policy::default()).await;
    assert!(claim(&inbox, 9_000).await.is_empty());
    let shown = inbox.show(id).await.unwrap().unwrap();
    assert_eq!(shown.event, full);
    assert_eq!(shown.summary.state, State::Delivered { at: UnixMs(1_003) });
    assert_eq!(shown.summary.history, [attempt(1_002, 200)]);
    let next = append(&inbox, full).await;
    assert!(next > id, "ids grow");
}

async fn a_retry_is_due_when_it_says_and_counts(harness: &mut impl Harness) {
    let inbox = harness.fresh(Policy::default()).await;
    let id = append(&inbox, event("billing", "evt_1", b"{}")).await;
    assert_eq!(claimed_ids(&inbox, 1_000).await, [id]);
    settle(&inbox, id, retry(1_000, 5_000, false), 1_001).await;
    assert_eq!(inbox.next_due("api").await, Some(UnixMs(5_000)));
    assert!(claim(&inbox, 4_999).await.is_empty());
    let (inbox, _) = harness.again(inbox, Policy::default()).await;
    let claimed = claim(&inbox, 5_000).await;
    assert_eq!((claimed[0].id, claimed[0].attempts), (id, 1));
    assert_eq!(claimed[0].first_failed_at, Some(UnixMs(1_000)));
    settle(&inbox, id, retry(5_000, 9_000, false), 5_001).await;
    let claimed = claim(&inbox, 9_000).await;
    assert_eq!(claimed[0].attempts, 2);
    assert_eq!(claimed[0].first_failed_at, Some(UnixMs(1_000)));
    // A second settlement of the same claim must not bring it back.
    settle(
        &inbox,
        id,
        Settlement::Delivered(attempt(9_000, 200)),
        9_001,
    )
    .await;
    settle(&inbox, id, retry(9_002, 9_003, false), 9_003).await;
    assert!(claim(&inbox, 99_000).await.is_empty());
}

async fn the_dead_stay_until_redelivered_or_past_their_time(harness: &mut impl Harness) {
    let policy = Policy {
        dead_keep_s: 10,
        ..Policy::default()
    };
    let inbox = harness.fresh(policy.clone()).await;
    let first = append(&inbox, event("billing", "evt_1", b"{}")).await;
    let second = append(&inbox, event("billing", "evt_2", b"{}")).await;
    assert_eq!(claimed_ids(&inbox, 1_000).await, [first, second]);
    settle(&inbox, first, dead(1_000), 1_001).await;
    settle(&inbox, second, dead(1_000), 1_001).await;
    let expected = State::Dead {
        reason: DeadReason::Refused,
        at: UnixMs(1_001),
    };
    assert_eq!(state(&inbox, first).await, Some(expected));
    assert!(claim(&inbox, 99_000).await.is_empty());

    let (inbox, _) = harness.again(inbox, policy).await;
    assert_eq!(entries(&inbox, Standing::Dead).await, 2);
    let only = Selection::Ids(vec![first, EntryId(999)]);
    let touched = inbox.redeliver(only, Spread::AtOnce, UnixMs(7_000)).await;
    assert_eq!(touched, Ok(1));
    let claimed = claim(&inbox, 7_000).await;
    assert_eq!((claimed[0].id, claimed.len()), (first, 1));
    // Patience begins anew, history does not.
    assert_eq!((claimed[0].attempts, claimed[0].first_failed_at), (0, None));
    assert_eq!(claimed[0].patience_from, UnixMs(7_000));
    let shown = inbox.show(first).await.unwrap().unwrap();
    assert_eq!(shown.summary.history.len(), 1);

    inbox.expire(UnixMs(11_001)).await.unwrap();
    assert!(
        state(&inbox, second).await.is_some(),
        "ten seconds are not over"
    );
    inbox.expire(UnixMs(11_002)).await.unwrap();
    assert_eq!(state(&inbox, second).await, None);
    assert!(state(&inbox, first).await.is_some(), "it is pending");
}

async fn delivered_entries_are_kept_within_their_bytes_and_time(harness: &mut impl Harness) {
    let policy = Policy {
        delivered_keep_s: 10,
        delivered_bytes_max: 5_000,
        ..Policy::default()
    };
    let inbox = harness.fresh(policy).await;
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(
            append(
                &inbox,
                event("billing", &format!("evt_{n}"), &[b'x'; 1_000]),
            )
            .await,
        );
    }
    assert_eq!(claimed_ids(&inbox, 1_000).await, ids);
    for id in &ids {
        settle(
            &inbox,
            *id,
            Settlement::Delivered(attempt(1_000, 200)),
            1_000,
        )
        .await;
    }
    let delivered = inbox.stats().await.unwrap().total(Standing::Delivered);
    assert!(
        delivered.bytes <= 5_000 && delivered.entries >= 3,
        "{delivered:?}"
    );
    assert_eq!(state(&inbox, ids[0]).await, None, "the oldest go first");
    assert!(state(&inbox, ids[9]).await.is_some());
    inbox.expire(UnixMs(11_001)).await.unwrap();
    assert_eq!(entries(&inbox, Standing::Delivered).await, 0);
}

async fn entries_of_one_order_key_go_one_after_the_other(harness: &mut impl Harness) {
    let inbox = harness.fresh(Policy::default()).await;
    let a1 = append(&inbox, ordered("a1", "a")).await;
    let b1 = append(&inbox, ordered("b1", "b")).await;
    let a2 = append(&inbox, ordered("a2", "a")).await;
    let a3 = append(&inbox, ordered("a3", "a")).await;
    // The same key at another endpoint is another order.
    let elsewhere = Event {
        endpoint: "orders".into(),
        ..ordered("x1", "a")
    };
    let x1 = append(&inbox, elsewhere).await;
    assert_eq!(claimed_ids(&inbox, 1_000).await, [a1, b1, x1]);
    assert_eq!(state(&inbox, a2).await, Some(State::Pending { due: None }));

    settle(&inbox, a1, retry(1_000, 2_000, false), 1_001).await;
    assert!(claim(&inbox, 1_999).await.is_empty(), "a2 still waits");
    // Asking for it again does not let it jump.
    let jump = Selection::Ids(vec![a2]);
    assert_eq!(
        inbox.redeliver(jump, Spread::AtOnce, UnixMs(1_500)).await,
        Ok(0)
    );
    assert_eq!(claimed_ids(&inbox, 2_000).await, [a1]);
    settle(
        &inbox,
        a1,
        Settlement::Delivered(attempt(2_000, 200)),
        2_001,
    )
    .await;

    let (inbox, _) = harness.again(inbox, Policy::default()).await;
    assert_eq!(claimed_ids(&inbox, 2_001).await, [b1, x1, a2]);
    settle(&inbox, a2, dead(2_002), 2_002).await;
    assert_eq!(claimed_ids(&inbox, 2_002).await, [a3]);
    settle(
        &inbox,
        a3,
        Settlement::Delivered(attempt(2_003, 200)),
        2_003,
    )
    .await;
    // An empty lane is free again.
    let a4 = append(&inbox, ordered("a4", "a")).await;
    assert_eq!(claimed_ids(&inbox, 2_003).await, [a4]);
}

async fn an_entry_that_yields_no_longer_holds_others_back(harness: &mut impl Harness) {
    let inbox = harness.fresh(Policy::default()).await;
    let first = append(&inbox, ordered("a1", "a")).await;
    let second = append(&inbox, ordered("a2", "a")).await;
    let third = append(&inbox, ordered("a3", "a")).await;
    assert_eq!(claimed_ids(&inbox, 1_000).await, [first]);
    settle(&inbox, first, retry(1_000, 5_000, true), 1_001).await;
    assert_eq!(claimed_ids(&inbox, 1_001).await, [second]);
    // It comes back in between without disturbing the order of the others.
    assert_eq!(claimed_ids(&inbox, 5_000).await, [first]);
    settle(
        &inbox,
        first,
        Settlement::Delivered(attempt(5_000, 200)),
        5_000,
    )
    .await;
    assert!(claim(&inbox, 5_000).await.is_empty());
    // The one in the middle of a lane goes, its head does not notice.
    let gone = Selection::Ids(vec![third]);
    assert_eq!(inbox.discard(gone, UnixMs(5_000)).await, Ok(1));
    settle(
        &inbox,
        second,
        Settlement::Delivered(attempt(5_000, 200)),
        5_000,
    )
    .await;
    assert!(claim(&inbox, 9_000).await.is_empty());
    assert_eq!(entries(&inbox, Standing::Pending).await, 0);
}

async fn a_discarded_entry_is_gone_even_in_flight(harness: &mut impl Harness) {
    let inbox = harness.fresh(Policy::default()).await;
    let first = append(&inbox, ordered("a1", "a")).await;
    let second = append(&inbox, ordered("a2", "a")).await;
    assert_eq!(claimed_ids(&inbox, 1_000).await, [first]);
    let gone = Selection::Ids(vec![first]);
    assert_eq!(inbox.discard(gone.clone(), UnixMs(1_000)).await, Ok(1));
    assert_eq!(inbox.discard(gone, UnixMs(1_000)).await, Ok(0));
    settle(&inbox, first, retry(1_000, 1_500, false), 1_001).await;
    assert_eq!(inbox.show(first).await.unwrap(), None);
    assert_eq!(claimed_ids(&inbox, 2_000).await, [second]);
    let stats = inbox.stats().await.unwrap();
    assert_eq!(stats.total(Standing::Pending).entries, 1);
    assert_eq!(stats.claimed, 1);
}

async fn at_a_limit_nothing_is_taken_and_below_it_again(harness: &mut impl Harness) {
    let policy = Policy {
        entries_max: 3,
        ..Policy::default()
    };
    let inbox = harness.fresh(policy.clone()).await;
    let first = append(&inbox, event("billing", "evt_0", b"{}")).await;
    for n in 1..3 {
        append(&inbox, event("billing", &format!("evt_{n}"), b"{}")).await;
    }
    let one_more = || inbox.append(event("billing", "more", b"{}"), Vec::new());
    let full = |limit| Err(Unwritable::Full { limit });
    assert_eq!(one_more().await, full("inbox.entries_max"));
    // The dead count, the delivered do not.
    claim(&inbox, 1_000).await;
    settle(&inbox, first, dead(1_000), 1_000).await;
    assert_eq!(one_more().await, full("inbox.entries_max"));
    settle(
        &inbox,
        EntryId(first.0 + 1),
        Settlement::Delivered(attempt(1, 200)),
        1_000,
    )
    .await;
    one_more().await.unwrap();
    let (inbox, _) = harness.again(inbox, policy).await;
    let refused = inbox
        .append(event("billing", "more", b"{}"), Vec::new())
        .await;
    assert_eq!(refused, full("inbox.entries_max"), "counted anew");

    let policy = Policy {
        bytes_max: 2_500,
        ..Policy::default()
    };
    let inbox = harness.fresh(policy).await;
    let large = || inbox.append(event("billing", "evt", &[b'x'; 1_000]), Vec::new());
    large().await.unwrap();
    large().await.unwrap();
    assert_eq!(large().await, full("inbox.bytes_max"));
    append(&inbox, event("billing", "small", b"{}")).await;
}

async fn what_must_be_remembered_survives_until_its_end(harness: &mut impl Harness) {
    let memory = |n: u8, of, until| Memory {
        of,
        key: ReplayKey([n; 32]),
        until: UnixMs(until),
    };
    let far = i64::MAX / 2;
    let inbox = harness.fresh(Policy::default()).await;
    let with_event = vec![
        memory(1, MemoryOf::Message, far),
        memory(2, MemoryOf::Event, far + 1),
    ];
    let kept = event("billing", "evt_1", b"{}");
    inbox.append(kept, with_event.clone()).await.unwrap();
    let alone = vec![
        memory(3, MemoryOf::Event, far),
        memory(4, MemoryOf::Event, 5),
    ];
    inbox.remember(alone.clone()).await.unwrap();
    let (inbox, found) = harness.again(inbox, Policy::default()).await;
    for memory in with_event.iter().chain(&alone[..1]) {
        assert!(found.contains(memory), "{memory:?}");
    }
    assert_eq!(found.len(), 3, "what has ended is not told");
    inbox.expire(UnixMs(far)).await.unwrap();
    let (_, found) = harness.again(inbox, Policy::default()).await;
    assert_eq!(found, with_event[1..]);
}

async fn destinations_do_not_meet(harness: &mut impl Harness) {
    let inbox = harness.fresh(Policy::default()).await;
    let here = append(&inbox, event("billing", "evt_1", b"{}")).await;
    let elsewhere = Event {
        destination: "apis".into(),
        ..event("billing", "evt_2", b"{}")
    };
    let there = append(&inbox, elsewhere).await;
    let claimed = inbox.claim("apis", 10, UnixMs(1_000)).await;
    assert_eq!((claimed.len(), claimed[0].id), (1, there));
    assert_eq!(inbox.next_due("apis").await, None);
    assert!(inbox.claim("ap", 10, UnixMs(1_000)).await.is_empty());
    assert!(inbox.claim("api", 0, UnixMs(1_000)).await.is_empty());
    assert_eq!(claimed_ids(&inbox, 1_000).await, [here]);
}

async fn who_waits_is_woken(harness: &mut impl Harness) {
    let inbox = harness.fresh(Policy::default()).await;
    let mut changes = inbox.subscribe();
    changes.mark_unchanged();
    let id = append(&inbox, ordered("a1", "a")).await;
    changes.changed().await.unwrap();
    append(&inbox, ordered("a2", "a")).await;
    claim(&inbox, 1_000).await;
    changes.mark_unchanged();
    settle(
        &inbox,
        id,
        Settlement::Delivered(attempt(1_000, 200)),
        1_000,
    )
    .await;
    changes.changed().await.unwrap();
    assert_eq!(claim(&inbox, 1_000).await.len(), 1);
}
