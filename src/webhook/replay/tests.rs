use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::{Arrival, OnReplay, Policy, ReplayKey, Reservation, Store};
use crate::kernel::clock::UnixMs;
use crate::webhook::inbox::Memory;
use crate::webhook::refusal::Refusal;
use crate::webhook::verify::{EventId, Verified};

const NOW: UnixMs = UnixMs(1_700_000_000_000);
const EXPIRES: UnixMs = UnixMs(NOW.0 + 305_000);

fn store(entries_max: usize) -> Store {
    Store::local(policy(entries_max), &[])
}

fn policy(entries_max: usize) -> Policy {
    Policy {
        entries_max,
        lease_ms: 30_000,
        event_dedupe_s: 86_400,
    }
}

fn message(bytes: u64, event: Option<&str>) -> Verified {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&bytes.to_le_bytes());
    Verified {
        replay_key: ReplayKey(key),
        signed_at: Some(NOW),
        expires_at: Some(EXPIRES),
        event_id: event.map_or_else(
            || EventId::Derived(format!("evt_{bytes}")),
            |id| EventId::Signed(id.into()),
        ),
        claimed_id: None,
        secret_name: "current".into(),
        covers: crate::webhook::Covers::Body,
    }
}

fn reserve(store: &Store, message: &Verified, now: UnixMs) -> Result<Arrival, Refusal> {
    reserve_at(store, "billing", message, OnReplay::Reject, now)
}

fn reserve_at(
    store: &Store,
    endpoint: &str,
    message: &Verified,
    on_replay: OnReplay,
    now: UnixMs,
) -> Result<Arrival, Refusal> {
    let reserve = store.reserve(endpoint, message, on_replay, now);
    reserve.now_or_never().expect("nobody is waited for")
}

fn commit(reservation: Reservation, now: UnixMs) {
    let committed = reservation.commit(now).now_or_never();
    assert_eq!(committed, Some(Ok(())));
}

fn fresh(store: &Store, message: &Verified, now: UnixMs) -> Reservation {
    match reserve(store, message, now) {
        Ok(Arrival::Fresh(reservation)) => reservation,
        other => panic!("not fresh: {other:?}"),
    }
}

fn later(ms: i64) -> UnixMs {
    UnixMs(NOW.0 + ms)
}

#[test]
fn the_same_bytes_again_are_a_replay_once_accepted() {
    let (store, first) = (store(10), message(1, None));
    let reservation = fresh(&store, &first, NOW);
    assert_eq!(
        reserve(&store, &first, NOW).unwrap_err(),
        Refusal::InProgress
    );
    commit(reservation, NOW);
    assert_eq!(
        reserve(&store, &first, later(1)).unwrap_err(),
        Refusal::Replay
    );
    let acked = reserve_at(&store, "billing", &first, OnReplay::Ack, later(1));
    assert!(matches!(acked, Ok(Arrival::Duplicate)));
}

#[test]
fn a_failed_delivery_may_come_again() {
    let (store, first) = (store(10), message(1, Some("evt_1")));
    drop(fresh(&store, &first, NOW));
    assert_eq!(store.remembered(), Some(0));
    fresh(&store, &first, NOW).release();
    commit(fresh(&store, &message(2, Some("evt_1")), NOW), NOW);
}

#[test]
fn an_event_signed_anew_is_a_duplicate_and_not_a_replay() {
    let store = store(10);
    let reservation = fresh(&store, &message(1, Some("evt_1")), NOW);
    let again = message(2, Some("evt_1"));
    assert_eq!(
        reserve(&store, &again, NOW).unwrap_err(),
        Refusal::InProgress
    );
    commit(reservation, NOW);
    assert!(matches!(
        reserve(&store, &again, later(1)),
        Ok(Arrival::Duplicate)
    ));
    let copied = reserve(&store, &again, later(2)).unwrap_err();
    assert_eq!(copied, Refusal::Replay, "these bytes were answered once");
    let retried = message(3, Some("evt_1"));
    assert!(matches!(
        reserve(&store, &retried, later(23 * 3_600_000)),
        Ok(Arrival::Duplicate)
    ));
    fresh(&store, &message(4, Some("evt_1")), later(25 * 3_600_000)).release();
}

#[test]
fn an_id_without_a_signature_suppresses_nothing() {
    let store = store(10);
    let mut first = message(1, None);
    first.claimed_id = Some("same".into());
    let mut second = message(2, None);
    second.claimed_id = Some("same".into());
    commit(fresh(&store, &first, NOW), NOW);
    commit(fresh(&store, &second, NOW), NOW);
}

#[test]
fn endpoints_do_not_share_event_ids() {
    let store = store(10);
    commit(fresh(&store, &message(1, Some("evt_1")), NOW), NOW);
    let other = reserve_at(
        &store,
        "marketplace",
        &message(2, Some("evt_1")),
        OnReplay::Reject,
        NOW,
    );
    assert!(matches!(other, Ok(Arrival::Fresh(_))));
}

#[test]
fn a_full_store_refuses_and_forgets_nothing_that_counts() {
    let store = store(2);
    commit(fresh(&store, &message(1, None), NOW), NOW);
    let held = fresh(&store, &message(2, None), NOW);
    assert_eq!(
        reserve(&store, &message(3, None), NOW).unwrap_err(),
        Refusal::StoreFull
    );
    assert_eq!(
        reserve(&store, &message(1, None), NOW).unwrap_err(),
        Refusal::Replay
    );
    held.release();
    commit(fresh(&store, &message(3, None), NOW), NOW);
    let after = UnixMs(EXPIRES.0);
    fresh(&store, &message(4, None), after).release();
    assert_eq!(store.remembered(), Some(0));
}

#[test]
fn event_ids_make_room_and_messages_do_not() {
    let store = store(2);
    for (bytes, event) in [(1, "evt_1"), (2, "evt_2")] {
        commit(fresh(&store, &message(bytes, Some(event)), NOW), NOW);
    }
    // The messages are past their time, their events are remembered for a day.
    let after = UnixMs(EXPIRES.0);
    let third = fresh(&store, &message(3, Some("evt_3")), after);
    assert!(matches!(
        reserve(&store, &message(4, Some("evt_3")), after),
        Err(Refusal::InProgress)
    ));
    commit(third, after);
    let known = reserve(&store, &message(4, Some("evt_3")), after);
    assert!(matches!(known, Ok(Arrival::Duplicate)));
}

#[test]
fn a_message_counts_until_its_own_timestamp_would_refuse_it() {
    let (store, first) = (store(10), message(1, None));
    commit(fresh(&store, &first, NOW), NOW);
    let last = UnixMs(EXPIRES.0 - 1);
    assert_eq!(reserve(&store, &first, last).unwrap_err(), Refusal::Replay);
}

#[test]
fn a_scheme_without_timestamps_remembers_for_the_dedupe_time() {
    let store = store(10);
    let mut first = message(1, None);
    first.expires_at = None;
    commit(fresh(&store, &first, NOW), NOW);
    assert_eq!(
        reserve(&store, &first, later(86_399_999)).unwrap_err(),
        Refusal::Replay
    );
    fresh(&store, &first, later(86_400_000)).release();
}

#[test]
fn a_lost_task_frees_its_message_when_the_lease_ends() {
    let (store, first) = (store(10), message(1, Some("evt_1")));
    let lost = fresh(&store, &first, NOW);
    assert_eq!(
        reserve(&store, &first, later(29_999)).unwrap_err(),
        Refusal::InProgress
    );
    let second = fresh(&store, &first, later(30_000));
    // The first comes back to life: its failure must not free what the second holds.
    drop(lost);
    assert_eq!(
        reserve(&store, &first, later(30_001)).unwrap_err(),
        Refusal::InProgress
    );
    commit(second, later(30_002));
    assert_eq!(
        reserve(&store, &first, later(30_003)).unwrap_err(),
        Refusal::Replay
    );
}

#[test]
fn what_is_not_swept_yet_does_not_count_either() {
    let store = store(1000);
    for bytes in 0..200 {
        commit(fresh(&store, &message(bytes, None), NOW), NOW);
    }
    for bytes in (0..200).rev() {
        commit(fresh(&store, &message(bytes, None), EXPIRES), EXPIRES);
    }
}

#[test]
fn a_late_success_still_counts() {
    let (store, first) = (store(10), message(1, None));
    let late = fresh(&store, &first, NOW);
    let second = fresh(&store, &first, later(30_000));
    commit(late, later(30_001));
    drop(second);
    assert_eq!(
        reserve(&store, &first, later(30_002)).unwrap_err(),
        Refusal::Replay
    );
}

#[test]
fn of_64_copies_at_once_exactly_one_is_delivered() {
    for round in 0..50u64 {
        let store = store(100_000);
        let (wins, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let gate = Barrier::new(64);
        std::thread::scope(|scope| {
            for copy in 0..64u64 {
                let (store, gate, wins, refused) = (&store, &gate, &wins, &refused);
                scope.spawn(move || {
                    // Half of them are the same bytes, half the same event signed anew.
                    let bytes = round * 1000 + if copy % 2 == 0 { 0 } else { copy };
                    let message = message(bytes, Some("evt_1"));
                    gate.wait();
                    match reserve(store, &message, NOW) {
                        Ok(Arrival::Fresh(reservation)) => {
                            wins.fetch_add(1, Ordering::Relaxed);
                            commit(reservation, NOW);
                        }
                        Ok(Arrival::Duplicate) | Err(Refusal::Replay | Refusal::InProgress) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(other) => panic!("{other}"),
                    }
                });
            }
        });
        assert_eq!((wins.into_inner(), refused.into_inner()), (1, 63));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Reserve(u64),
    Commit(u64),
    Release(u64),
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..6).prop_map(Step::Reserve),
        2 => (0u64..6).prop_map(Step::Commit),
        2 => (0u64..6).prop_map(Step::Release),
        1 => (1i64..40_000).prop_map(Step::Wait),
    ]
}

#[test]
fn what_was_remembered_before_a_restart_counts_after_it() {
    let before = store(10);
    let message = message(1, Some("evt_1"));
    let reservation = fresh(&before, &message, NOW);
    let rows = reservation.memory(NOW);
    commit(reservation, NOW);
    let rows: Vec<_> = rows.into_iter().chain(another_events_rows()).collect();

    // Smaller than what it has to remember: it refuses what is new and forgets nothing.
    let after = Store::local(policy(1), &rows);
    assert_eq!(
        reserve(&after, &message, later(1)).unwrap_err(),
        Refusal::Replay
    );
    let signed_anew = self::message(2, Some("evt_1"));
    assert!(matches!(
        reserve(&after, &signed_anew, later(1)),
        Ok(Arrival::Duplicate)
    ));
    let new = self::message(3, None);
    assert_eq!(
        reserve(&after, &new, later(1)).unwrap_err(),
        Refusal::StoreFull
    );
}

fn another_events_rows() -> Vec<Memory> {
    let elsewhere = store(10);
    fresh(&elsewhere, &message(9, Some("evt_9")), NOW).memory(NOW)
}

proptest! {
    /// Against a model: within its window a message is accepted at most once, whatever happens, and
    /// the store never holds more than its limit.
    #[test]
    fn no_message_is_accepted_twice(steps in proptest::collection::vec(step(), 1..200)) {
        let store = store(4);
        let mut now = NOW;
        let mut held = std::collections::HashMap::new();
        let mut accepted_until = std::collections::HashMap::new();
        for step in steps {
            match step {
                Step::Wait(ms) => now = UnixMs(now.0 + ms),
                Step::Reserve(key) => {
                    let mut message = message(key, None);
                    message.expires_at = Some(UnixMs(now.0 + 100_000));
                    let counts = accepted_until.get(&key).is_some_and(|until| *until > now);
                    match reserve(&store, &message, now) {
                        Ok(Arrival::Fresh(reservation)) => {
                            prop_assert!(!counts, "accepted twice");
                            held.insert(key, (reservation, UnixMs(now.0 + 100_000)));
                        }
                        Ok(Arrival::Duplicate) => prop_assert!(false, "reject was asked for"),
                        Err(Refusal::Replay) => prop_assert!(counts),
                        Err(_) => {}
                    }
                }
                Step::Commit(key) => if let Some((reservation, until)) = held.remove(&key) {
                    commit(reservation, now);
                    if until > now {
                        accepted_until.insert(key, until);
                    }
                },
                Step::Release(key) => drop(held.remove(&key)),
            }
            prop_assert!(store.remembered() <= Some(6), "more than messages there are");
        }
    }
}
