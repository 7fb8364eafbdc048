//! An inbox killed with SIGKILL at any moment, again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::child::{self, DELIVERED, KEPT};
use super::settings;
use crate::kernel::clock::UnixMs;
use crate::webhook::inbox::{EntryId, Filter, Inbox, Opened, Policy, Standing};

/// How often the process is killed; 20 when the variable is not set.
const KILLS: &str = "MAITRED_TEST_KILLS";
/// Events kept before it is killed.
const KEPT_MAX: u32 = 200;

#[derive(Default)]
struct Told {
    /// Event ids by entry.
    kept: BTreeMap<EntryId, String>,
    delivered: BTreeSet<EntryId>,
}

impl Told {
    fn note(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix(KEPT) {
            let (id, event_id) = rest.split_once(' ').unwrap();
            let before = self.kept.insert(id.parse().unwrap(), event_id.to_owned());
            assert_eq!(before, None, "the id of {line} was given before");
        } else if let Some(id) = line.strip_prefix(DELIVERED) {
            self.delivered.insert(id.parse().unwrap());
        } else {
            panic!("{line}");
        }
    }
}

#[tokio::test]
async fn killed_at_any_moment_it_loses_nothing_it_has_confirmed() {
    let kills = std::env::var(KILLS).map_or(20, |n| n.parse().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let mut moments = StdRng::seed_from_u64(7);
    let mut told = Told::default();
    for round in 0..kills {
        let mut child = child::spawn(scratch.path(), round, &[]);
        for _ in 0..moments.random_range(1..=KEPT_MAX) {
            told.note(&child.line().unwrap());
        }
        child.kill();
        while let Some(line) = child.line() {
            told.note(&line);
        }
        check(scratch.path(), &told).await;
    }
    let (kept, delivered) = (told.kept.len(), told.delivered.len());
    println!("{kills} kills, {kept} events kept, {delivered} delivered, none lost");
    assert!(delivered > 0);
}

async fn check(folder: &Path, told: &Told) {
    let opened = Inbox::open(settings(folder, Policy::default())).await;
    let Opened { inbox, .. } = opened.unwrap();
    let mut found = BTreeMap::new();
    let mut cursor = None;
    loop {
        let page = inbox.list(Filter::default(), cursor, 1_000).await.unwrap();
        for entry in page.entries {
            found.insert(
                entry.id,
                (entry.event_id.to_string(), entry.state.standing()),
            );
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    for (id, event_id) in &told.kept {
        let there = found.get(id).map(|(event_id, _)| event_id);
        assert_eq!(there, Some(event_id), "{id} was confirmed");
    }
    for id in &told.delivered {
        let there = found.get(id).map(|(_, standing)| *standing);
        assert_eq!(there, Some(Standing::Delivered), "{id} was settled");
    }
    // What was not confirmed may be there, whole; what was never sent may not.
    let events: BTreeSet<_> = found.values().map(|(event_id, _)| event_id).collect();
    assert_eq!(events.len(), found.len(), "an event is there twice");
    let pending = found
        .values()
        .filter(|(_, standing)| *standing == Standing::Pending);
    let claimed = inbox.claim("api", usize::MAX, UnixMs(1_000)).await;
    assert_eq!(claimed.len(), pending.count());
    for claimed in claimed {
        let expected = claimed.event.event_id.repeat(20);
        assert_eq!(claimed.event.body, expected.as_bytes());
        assert!(claimed.event.event_id.starts_with("evt_"));
    }
    inbox.release().await;
}
