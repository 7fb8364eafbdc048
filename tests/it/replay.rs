//! One suite for every backend of the replay store: in this process, and on a real Redis with two
//! nodes. What differs is listed in [`Rig`] and nowhere else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use maitred::kernel::clock::UnixMs;
use maitred::webhook::replay::{Policy, ReplayKey, Store};
use maitred::webhook::scheme::OnReplay;
use maitred::webhook::verify::{EventId, Verified};
use maitred::webhook::{Arrival, Refusal, Reservation};

use crate::harness::redis::{Node, RedisServer};
use crate::harness::until;

const NOW: UnixMs = UnixMs(1_700_000_000_000);
const EXPIRES: UnixMs = UnixMs(NOW.0 + 305_000);

/// What a test of the suite needs: two nodes' handles of one store. A lease ends by the backend's own
/// clock, which for Redis is real time.
struct Rig {
    nodes: [Store; 2],
    lease_is_real: bool,
    // Kept alive.
    _server: Option<(RedisServer, [Node; 2])>,
}

const LEASE_MS: u32 = 500;

fn policy() -> Policy {
    Policy {
        entries_max: 100_000,
        lease_ms: LEASE_MS,
        event_dedupe_s: 86_400,
    }
}

impl Rig {
    async fn local(policy: Policy) -> Self {
        let store = Store::local(policy, &[]);
        Self {
            nodes: [store.clone(), store],
            lease_is_real: false,
            _server: None,
        }
    }

    async fn redis(policy: Policy) -> Self {
        let server = RedisServer::start(&[]).await;
        let nodes = [server.node().await, server.node().await];
        let store = |node: &Node| Store::redis(policy, node.redis.clone(), "test");
        Self {
            nodes: [store(&nodes[0]), store(&nodes[1])],
            lease_is_real: true,
            _server: Some((server, nodes)),
        }
    }
}

macro_rules! suite {
    ($($name:ident $(with $policy:expr)?;)*) => {
        mod local {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Rig::local(super::or_else!(super::policy() $(, $policy)?)).await).await;
            })*
        }
        mod on_redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Rig::redis(super::or_else!(super::policy() $(, $policy)?)).await).await;
            })*
        }
    };
}

macro_rules! or_else {
    ($default:expr) => {
        $default
    };
    ($default:expr, $given:expr) => {
        $given
    };
}
use or_else;

suite! {
    of_fifty_copies_at_two_nodes_one_is_fresh with super::long_lease();
    the_same_bytes_again_are_a_replay_once_accepted with super::long_lease();
    a_failed_delivery_may_come_again with super::long_lease();
    an_event_signed_anew_is_a_duplicate with super::long_lease();
    a_message_from_the_future_counts_until_it_is_too_old with super::long_lease();
    a_scheme_without_timestamps_remembers_for_the_dedupe_time with super::long_lease();
    nothing_is_evicted with super::long_lease();
    a_lost_task_frees_its_message_when_the_lease_ends;
    a_late_success_counts_and_a_late_failure_does_not;
    a_cancelled_reservation_is_released with super::long_lease();
}

fn long_lease() -> Policy {
    Policy {
        lease_ms: 600_000,
        ..policy()
    }
}

fn message(bytes: u64, event: Option<&str>) -> Verified {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&bytes.to_le_bytes());
    Verified {
        covers: maitred::webhook::Covers::Body,
        replay_key: ReplayKey(key),
        signed_at: Some(NOW),
        expires_at: Some(EXPIRES),
        event_id: event.map_or_else(
            || EventId::Derived(format!("evt_{bytes}")),
            |id| EventId::Signed(id.into()),
        ),
        claimed_id: None,
        secret_name: "current".into(),
    }
}

fn later(ms: i64) -> UnixMs {
    UnixMs(NOW.0 + ms)
}

async fn reserve(store: &Store, message: &Verified, now: UnixMs) -> Result<Arrival, Refusal> {
    store
        .reserve("billing", message, OnReplay::Reject, now)
        .await
}

async fn fresh(store: &Store, message: &Verified, now: UnixMs) -> Reservation {
    match reserve(store, message, now).await {
        Ok(Arrival::Fresh(reservation)) => reservation,
        other => panic!("not fresh: {other:?}"),
    }
}

async fn refused(store: &Store, message: &Verified, now: UnixMs) -> Refusal {
    reserve(store, message, now).await.unwrap_err()
}

/// A release is said in the background; until it has arrived a copy is refused as in progress.
async fn fresh_at_last(store: &Store, message: &Verified, now: UnixMs) -> Reservation {
    until("it is free again", async || {
        match reserve(store, message, now).await {
            Ok(Arrival::Fresh(reservation)) => Some(reservation),
            Err(Refusal::InProgress) => None,
            other => panic!("neither fresh nor in progress: {other:?}"),
        }
    })
    .await
}

async fn of_fifty_copies_at_two_nodes_one_is_fresh(rig: Rig) {
    let nodes = Arc::new(rig.nodes.clone());
    for round in 0..20u64 {
        let copies = (0..50u64).map(|copy| {
            let nodes = nodes.clone();
            tokio::spawn(async move {
                // Half of them are the same bytes, half the same event signed anew.
                let bytes = round * 1000 + if copy % 2 == 0 { 0 } else { copy };
                let event = format!("evt_{round}");
                let node = usize::try_from(copy / 2 % 2).unwrap();
                reserve(&nodes[node], &message(bytes, Some(&event)), NOW).await
            })
        });
        let mut outcomes = HashMap::new();
        let mut held = Vec::new();
        for copy in copies.collect::<Vec<_>>() {
            let outcome = match copy.await.unwrap() {
                Ok(Arrival::Fresh(reservation)) => {
                    held.push(reservation);
                    "fresh"
                }
                Err(Refusal::InProgress) => "in progress",
                other => panic!("{other:?}"),
            };
            *outcomes.entry(outcome).or_insert(0) += 1;
        }
        assert_eq!(outcomes, HashMap::from([("fresh", 1), ("in progress", 49)]));
        held.pop().unwrap().commit(NOW).await.unwrap();
    }
}

async fn the_same_bytes_again_are_a_replay_once_accepted(rig: Rig) {
    let [here, there] = &rig.nodes;
    let first = message(1, None);
    let reservation = fresh(here, &first, NOW).await;
    assert_eq!(refused(there, &first, NOW).await, Refusal::InProgress);
    reservation.commit(NOW).await.unwrap();
    assert_eq!(refused(there, &first, later(1)).await, Refusal::Replay);
    let acked = there.reserve("billing", &first, OnReplay::Ack, later(1));
    assert!(matches!(acked.await, Ok(Arrival::Duplicate)));
    // The same again at another endpoint has another replay key; an event id is told apart here.
    fresh(here, &message(2, Some("evt")), NOW)
        .await
        .commit(NOW)
        .await
        .unwrap();
    let elsewhere = message(3, Some("evt"));
    let other = there.reserve("marketplace", &elsewhere, OnReplay::Reject, NOW);
    assert!(matches!(other.await, Ok(Arrival::Fresh(_))));
}

async fn a_failed_delivery_may_come_again(rig: Rig) {
    let [here, there] = &rig.nodes;
    let first = message(1, Some("evt_1"));
    fresh(here, &first, NOW).await.release();
    drop(fresh_at_last(there, &first, NOW).await);
    let signed_anew = message(2, Some("evt_1"));
    let again = fresh_at_last(here, &signed_anew, NOW).await;
    again.commit(NOW).await.unwrap();
    assert_eq!(
        refused(there, &signed_anew, later(1)).await,
        Refusal::Replay
    );
}

async fn an_event_signed_anew_is_a_duplicate(rig: Rig) {
    let [here, there] = &rig.nodes;
    let reservation = fresh(here, &message(1, Some("evt_1")), NOW).await;
    let again = message(2, Some("evt_1"));
    assert_eq!(refused(there, &again, NOW).await, Refusal::InProgress);
    reservation.commit(NOW).await.unwrap();
    assert!(matches!(
        reserve(there, &again, later(1)).await,
        Ok(Arrival::Duplicate)
    ));
    assert_eq!(refused(here, &again, later(2)).await, Refusal::Replay);
    let retried = message(3, Some("evt_1"));
    assert!(matches!(
        reserve(here, &retried, later(23 * 3_600_000)).await,
        Ok(Arrival::Duplicate)
    ));
    let next_day = message(4, Some("evt_1"));
    fresh(there, &next_day, later(25 * 3_600_000))
        .await
        .release();
}

async fn a_message_from_the_future_counts_until_it_is_too_old(rig: Rig) {
    let [here, there] = &rig.nodes;
    // Signed 300 s ahead of us, tolerance 300 s and 5 s of slack: refused from +605 s on, not before.
    let mut ahead = message(1, None);
    ahead.signed_at = Some(later(300_000));
    ahead.expires_at = Some(later(605_000));
    fresh(here, &ahead, NOW).await.commit(NOW).await.unwrap();
    for ms in [1, 300_001, 604_999] {
        assert_eq!(refused(there, &ahead, later(ms)).await, Refusal::Replay);
    }
    fresh(there, &ahead, later(605_000)).await.release();
}

async fn a_scheme_without_timestamps_remembers_for_the_dedupe_time(rig: Rig) {
    let [here, there] = &rig.nodes;
    let mut first = message(1, None);
    first.expires_at = None;
    fresh(here, &first, NOW).await.commit(NOW).await.unwrap();
    assert_eq!(
        refused(there, &first, later(86_399_999)).await,
        Refusal::Replay
    );
    fresh(there, &first, later(86_400_000)).await.release();
}

async fn nothing_is_evicted(rig: Rig) {
    const MESSAGES: u64 = 20_000;
    let nodes = Arc::new(rig.nodes.clone());
    let writers = (0..32u64).map(|writer| {
        let nodes = nodes.clone();
        tokio::spawn(async move {
            let node = usize::try_from(writer % 2).unwrap();
            for bytes in (writer..MESSAGES).step_by(32) {
                let at = later(i64::try_from(bytes * 60_000 / MESSAGES).unwrap());
                let reservation = fresh(&nodes[node], &message(bytes, None), at).await;
                reservation.commit(at).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let readers = (0..32u64).map(|reader| {
        let nodes = nodes.clone();
        tokio::spawn(async move {
            let node = usize::try_from((reader + 1) % 2).unwrap();
            for bytes in (reader..MESSAGES).step_by(32) {
                let again = refused(&nodes[node], &message(bytes, None), later(60_000)).await;
                assert_eq!(again, Refusal::Replay, "message {bytes}");
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
}

/// After the lease of `lost`, whose holder says nothing any more.
async fn after_the_lease(rig: &Rig, first: &Verified) -> (Reservation, UnixMs) {
    if rig.lease_is_real {
        (fresh_at_last(&rig.nodes[1], first, NOW).await, NOW)
    } else {
        let end = later(i64::from(LEASE_MS));
        let before = refused(&rig.nodes[1], first, UnixMs(end.0 - 1)).await;
        assert_eq!(before, Refusal::InProgress);
        (fresh(&rig.nodes[1], first, end).await, end)
    }
}

async fn a_lost_task_frees_its_message_when_the_lease_ends(rig: Rig) {
    let first = message(1, Some("evt_1"));
    let lost = fresh(&rig.nodes[0], &first, NOW).await;
    let (second, now) = after_the_lease(&rig, &first).await;
    // The first comes back to life: its failure must not free what the second holds.
    drop(lost);
    second.commit(now).await.unwrap();
    assert_eq!(refused(&rig.nodes[0], &first, now).await, Refusal::Replay);
}

async fn a_late_success_counts_and_a_late_failure_does_not(rig: Rig) {
    let first = message(1, Some("evt_1"));
    let late = fresh(&rig.nodes[0], &first, NOW).await;
    let (second, now) = after_the_lease(&rig, &first).await;
    late.commit(now).await.unwrap();
    drop(second);
    let signed_anew = message(2, Some("evt_1"));
    assert_eq!(refused(&rig.nodes[0], &first, now).await, Refusal::Replay);
    assert!(matches!(
        reserve(&rig.nodes[0], &signed_anew, now).await,
        Ok(Arrival::Duplicate)
    ));
}

async fn a_cancelled_reservation_is_released(rig: Rig) {
    let [here, there] = &rig.nodes;
    for bytes in 0..50 {
        let first = message(bytes, None);
        // The client is gone before the answer is there.
        let asked = reserve(here, &first, NOW);
        let _ = tokio::time::timeout(Duration::from_micros(bytes * 20), asked).await;
        fresh_at_last(there, &first, NOW)
            .await
            .commit(NOW)
            .await
            .unwrap();
    }
}
