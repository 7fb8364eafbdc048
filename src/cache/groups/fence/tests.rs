//! Fences by themselves; races with the store are in `storage/tests.rs`.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Fences, Refused, Ticket};
use crate::cache::groups::{Label, Selector, Which, Whose};
use crate::kernel::clock::{Clock, UnixMs};

const FETCH_MAX: Duration = Duration::from_secs(60);

fn start() -> Instant {
    Clock::manual(UnixMs(0)).0.instant()
}

fn label(org: &str, group: &str) -> Label {
    Label {
        orgs: [org.into()].into(),
        groups: [group.into()].into(),
        target: "host/path".into(),
    }
}

fn selector(org: &str, group: &str) -> Selector {
    Selector {
        whose: Whose::Org(org.into()),
        which: Which::Groups(vec![group.into()]),
    }
}

fn admitted(fences: &Fences, ticket: &Ticket, label: &Label, now: Instant) -> Result<(), Refused> {
    fences.admit(label, ticket, now, || ())
}

#[test]
fn a_fetch_that_started_before_the_invalidation_is_refused_and_a_later_one_is_not() {
    let now = start();
    let fences = Fences::new(FETCH_MAX, 8, now);
    let (early, late) = (Ticket::default(), Ticket::default());
    fences.stamp(&early, now);
    fences.raise(selector("a", "overview"), now);
    fences.stamp(&late, now);
    let label = label("a", "overview");
    assert_eq!(admitted(&fences, &early, &label, now), Err(Refused::Fenced));
    assert_eq!(admitted(&fences, &late, &label, now), Ok(()));
}

#[test]
fn an_invalidation_of_another_organisation_or_group_does_not_matter() {
    let now = start();
    let fences = Fences::new(FETCH_MAX, 8, now);
    let ticket = Ticket::default();
    fences.stamp(&ticket, now);
    fences.raise(selector("b", "overview"), now);
    fences.raise(selector("a", "rankings"), now);
    assert_eq!(
        admitted(&fences, &ticket, &label("a", "overview"), now),
        Ok(())
    );
}

#[test]
fn a_retry_counts_from_its_own_start() {
    let now = start();
    let fences = Fences::new(FETCH_MAX, 8, now);
    let ticket = Ticket::default();
    fences.stamp(&ticket, now);
    fences.raise(selector("a", "overview"), now);
    fences.stamp(&ticket, now);
    assert_eq!(
        admitted(&fences, &ticket, &label("a", "overview"), now),
        Ok(())
    );
}

#[test]
fn a_fetch_that_outlives_the_memory_of_fences_is_refused() {
    let now = start();
    let fences = Fences::new(FETCH_MAX, 8, now);
    let ticket = Ticket::default();
    fences.stamp(&ticket, now);
    let label = label("a", "overview");
    assert_eq!(admitted(&fences, &ticket, &label, now + FETCH_MAX), Ok(()));
    let late = now + FETCH_MAX + Duration::from_millis(2);
    assert_eq!(
        admitted(&fences, &ticket, &label, late),
        Err(Refused::TooLate)
    );
}

#[test]
fn old_fences_are_forgotten_and_repeated_ones_take_one_place() {
    let now = start();
    let fences = Fences::new(FETCH_MAX, 8, now);
    for _ in 0..100 {
        fences.raise(selector("a", "overview"), now);
    }
    assert_eq!(fences.len(), 1);
    let later = now + FETCH_MAX * 3;
    fences.raise(selector("b", "overview"), later);
    assert_eq!(fences.len(), 1);
}

#[test]
fn beyond_the_cap_the_oldest_apply_to_everything() {
    let now = start();
    let fences = Fences::new(FETCH_MAX, 4, now);
    let ticket = Ticket::default();
    fences.stamp(&ticket, now);
    for i in 0..5 {
        fences.raise(selector(&format!("org_{i}"), "overview"), now);
    }
    assert_eq!(fences.len(), 4);
    let unrelated = label("z", "z");
    assert_eq!(
        admitted(&fences, &ticket, &unrelated, now),
        Err(Refused::Fenced)
    );
    fences.stamp(&ticket, now);
    assert_eq!(admitted(&fences, &ticket, &unrelated, now), Ok(()));
}

/// What may happen to fences.
#[derive(Clone, Debug)]
enum Step {
    Stamp(usize),
    Raise(u8, u8),
    Pass(u64),
    Admit(usize, u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4usize).prop_map(Step::Stamp),
        (0..3u8, 0..3u8).prop_map(|(org, group)| Step::Raise(org, group)),
        (0..50_000u64).prop_map(Step::Pass),
        (0..4usize, 0..3u8, 0..3u8).prop_map(|(t, org, group)| Step::Admit(t, org, group)),
    ]
}

proptest! {
    /// The book with its bounds never admits what one without bounds would refuse.
    #[test]
    fn never_admits_what_was_invalidated(
        steps in prop::collection::vec(step(), 1..80),
        fences_max in 1..6usize,
    ) {
        let mut now = start();
        let fences = Fences::new(FETCH_MAX, fences_max, now);
        let tickets: Vec<Ticket> = (0..4).map(|_| Ticket::default()).collect();
        let mut started = [0usize; 4];
        let mut raised: Vec<(u8, u8)> = Vec::new();
        for step in steps {
            match step {
                Step::Stamp(t) => {
                    fences.stamp(&tickets[t], now);
                    started[t] = raised.len();
                }
                Step::Raise(org, group) => {
                    fences.raise(selector(&org.to_string(), &group.to_string()), now);
                    raised.push((org, group));
                }
                Step::Pass(ms) => now += Duration::from_millis(ms),
                Step::Admit(t, org, group) => {
                    let label = label(&org.to_string(), &group.to_string());
                    let invalidated = raised[started[t]..].contains(&(org, group));
                    let admitted = admitted(&fences, &tickets[t], &label, now);
                    prop_assert!(!(invalidated && admitted.is_ok()));
                }
            }
            prop_assert!(fences.len() <= fences_max);
        }
    }
}
