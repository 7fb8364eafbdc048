//! What an operator sees and does, on every engine.

use std::num::NonZeroU32;

use super::{Harness, append, claim, claimed_ids, dead, entries, event, settle};
use crate::kernel::clock::UnixMs;
use crate::webhook::inbox::{Event, Filter, Order, Policy, Selection, Spread, Standing};

pub(super) async fn lists_are_complete_in_order_and_filtered(harness: &mut impl Harness) {
    let inbox = harness.fresh(Policy::default()).await;
    let mut ids = Vec::new();
    for n in 0..7_i64 {
        let endpoint = ["billing", "orders"][usize::try_from(n % 2).unwrap()];
        let received = Event {
            received_at: UnixMs(n * 100),
            ..event(endpoint, &format!("evt_{n}"), b"{}")
        };
        ids.push(append(&inbox, received).await);
    }
    claim(&inbox, 10_000).await;
    settle(&inbox, ids[2], dead(10_000), 10_000).await;
    settle(&inbox, ids[3], dead(10_000), 10_000).await;

    let all = async |filter: Filter, limit| {
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let page = inbox.list(filter.clone(), cursor, limit).await.unwrap();
            assert!(page.entries.len() <= limit);
            found.extend(page.entries.iter().map(|entry| entry.id));
            match page.next {
                Some(next) => cursor = Some(next),
                None => return found,
            }
        }
    };
    let backwards: Vec<_> = ids.iter().rev().copied().collect();
    for limit in [1, 2, 7, 100] {
        assert_eq!(all(Filter::default(), limit).await, backwards, "{limit}");
        let oldest = Filter {
            order: Order::OldestFirst,
            ..Filter::default()
        };
        assert_eq!(all(oldest.clone(), limit).await, ids, "{limit}");
        let dead = Filter {
            standing: Some(Standing::Dead),
            ..oldest.clone()
        };
        assert_eq!(all(dead, limit).await, [ids[2], ids[3]], "{limit}");
        let billing = Filter {
            endpoint: Some("billing".into()),
            ..oldest.clone()
        };
        let expected = [ids[0], ids[2], ids[4], ids[6]];
        assert_eq!(all(billing, limit).await, expected, "{limit}");
        let between = Filter {
            from: Some(UnixMs(100)),
            to: Some(UnixMs(400)),
            endpoint: Some("orders".into()),
            ..Filter::default()
        };
        assert_eq!(all(between, limit).await, [ids[3], ids[1]], "{limit}");
    }
    let nobody = Filter {
        endpoint: Some("bill".into()),
        ..Filter::default()
    };
    assert!(all(nobody, 10).await.is_empty());
    let by_event = Filter {
        event_id: Some("evt_5".into()),
        ..Filter::default()
    };
    assert_eq!(all(by_event, 10).await, [ids[5]]);
}

pub(super) async fn figures_are_those_of_the_rows(harness: &mut impl Harness) {
    let inbox = harness.fresh(Policy::default()).await;
    for n in 0..7_i64 {
        let endpoint = ["billing", "orders"][usize::try_from(n % 2).unwrap()];
        let received = Event {
            received_at: UnixMs(n * 100),
            ..event(endpoint, &format!("evt_{n}"), b"{}")
        };
        let id = append(&inbox, received).await;
        if n == 2 || n == 3 {
            settle(&inbox, id, dead(10_000), 10_000).await;
        }
    }
    let before = inbox.stats().await.unwrap();
    let (inbox, _) = harness.again(inbox, Policy::default()).await;
    let stats = inbox.stats().await.unwrap();
    let of = |endpoint: &str, standing| {
        let mut of = stats.endpoints.iter();
        of.find(|s| &*s.endpoint == endpoint && s.standing == standing)
            .map(|s| (s.entries, s.oldest.unwrap().0))
    };
    assert_eq!(of("billing", Standing::Pending), Some((3, 0)));
    assert_eq!(of("orders", Standing::Pending), Some((2, 100)));
    assert_eq!(of("orders", Standing::Dead), Some((1, 300)));
    assert_eq!(of("orders", Standing::Delivered), None);
    assert_eq!(stats.endpoints, before.endpoints, "counted anew");
}

pub(super) async fn redelivery_by_filter_is_spread_and_planned(harness: &mut impl Harness) {
    let inbox = harness.fresh(Policy::default()).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(append(&inbox, event("billing", &format!("evt_{n}"), b"{}")).await);
    }
    claim(&inbox, 1_000).await;
    for id in &ids[1..] {
        settle(&inbox, *id, dead(1_000), 1_000).await;
    }
    let dead = Selection::Matching(Filter {
        standing: Some(Standing::Dead),
        ..Filter::default()
    });
    let plan = inbox.plan(dead.clone()).await.unwrap();
    assert_eq!(plan.entries, 4);
    assert_eq!(plan, inbox.stats().await.unwrap().total(Standing::Dead));
    assert_eq!(
        entries(&inbox, Standing::Dead).await,
        4,
        "a plan touches nothing"
    );

    let two_a_second = Spread::PerSecond(NonZeroU32::new(2).unwrap());
    let touched = inbox
        .redeliver(dead.clone(), two_a_second, UnixMs(2_000))
        .await;
    assert_eq!(touched, Ok(4));
    assert_eq!(claimed_ids(&inbox, 2_499).await, ids[1..2]);
    assert_eq!(claimed_ids(&inbox, 2_500).await, ids[2..3]);
    assert_eq!(claimed_ids(&inbox, 3_500).await, ids[3..]);
    assert_eq!(inbox.plan(dead).await.unwrap().entries, 0);
    let everything = Selection::Matching(Filter::default());
    assert_eq!(inbox.discard(everything, UnixMs(4_000)).await, Ok(5));
    let stats = inbox.stats().await.unwrap();
    assert_eq!(stats.endpoints, []);
}
