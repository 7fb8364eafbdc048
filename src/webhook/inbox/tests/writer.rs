//! The writer and its folder: group commit, one owner at a time, health, claims.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;

use super::settings;
use crate::kernel::clock::{Clock, UnixMs};
use crate::webhook::inbox::conformance::event;
use crate::webhook::inbox::{
    Attempt, Commit, EntryId, Health, Inbox, OpenError, Outcome, Policy, Settings, Settlement,
    Standing, Unwritable,
};

fn delivered(at: i64) -> Settlement {
    Settlement::Delivered(Attempt {
        at: UnixMs(at),
        took_ms: 1,
        outcome: Outcome::Status(200),
    })
}

#[derive(Default)]
struct Counted {
    durable: AtomicU64,
    buffered: AtomicU64,
    commands: AtomicU64,
}

impl Counted {
    fn observe(&self, commit: &Commit) {
        let commits = if commit.durable {
            &self.durable
        } else {
            &self.buffered
        };
        commits.fetch_add(1, Ordering::SeqCst);
        let commands = u64::try_from(commit.commands).unwrap();
        self.commands.fetch_add(commands, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn what_arrives_during_an_fsync_shares_the_next_one() {
    const APPENDS: u64 = 500;
    let scratch = tempfile::tempdir().unwrap();
    let counted = Arc::new(Counted::default());
    let seen = counted.clone();
    let opened = Inbox::open(Settings {
        observer: Arc::new(move |commit| seen.observe(commit)),
        ..settings(scratch.path(), Policy::default())
    });
    let inbox = opened.await.unwrap().inbox;
    let appends = (0..APPENDS).map(|n| {
        let inbox = inbox.clone();
        tokio::spawn(async move {
            let kept = event("billing", &format!("evt_{n}"), &[b'x'; 1024]);
            inbox.append(kept, Vec::new()).await.unwrap()
        })
    });
    let mut ids = Vec::new();
    for append in appends.collect::<Vec<_>>() {
        ids.push(append.await.unwrap());
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(u64::try_from(ids.len()).unwrap(), APPENDS);
    assert_eq!(counted.commands.load(Ordering::SeqCst), APPENDS);
    let fsyncs = counted.durable.load(Ordering::SeqCst);
    assert!(fsyncs <= APPENDS / 5, "{fsyncs} fsyncs");

    // Settlements do not wait for the disk.
    let claimed = inbox.claim("api", 100, UnixMs(1_000)).await;
    let settled = claimed.iter().map(|c| (c.id, delivered(1_000))).collect();
    inbox.settle(settled, UnixMs(1_000)).await.unwrap();
    assert_eq!(counted.durable.load(Ordering::SeqCst), fsyncs);
    assert_eq!(counted.buffered.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn one_process_has_the_folder_and_hands_it_over_in_time() {
    let scratch = tempfile::tempdir().unwrap();
    let first = Inbox::open(settings(scratch.path(), Policy::default()));
    let first = first.await.unwrap().inbox;
    let id = first.append(event("billing", "evt_1", b"{}"), Vec::new());
    let id = id.await.unwrap();

    let impatient = Settings::new(
        scratch.path().to_owned(),
        Policy::default(),
        Clock::system(),
    );
    let refused = Inbox::open(impatient).await.unwrap_err();
    let me = std::process::id().to_string();
    assert!(
        matches!(&refused, OpenError::Locked { holder, .. } if *holder == me),
        "{refused}"
    );
    assert!(
        refused.to_string().contains("stop that process"),
        "{refused}"
    );

    // The successor waits for the folder, the predecessor gives it up.
    let second = tokio::spawn(Inbox::open(settings(scratch.path(), Policy::default())));
    first.release().await;
    let second = second.await.unwrap().unwrap().inbox;
    assert_eq!(*first.health().borrow(), Health::Released);
    let refused = first.append(event("billing", "evt_2", b"{}"), Vec::new());
    let refused = refused.await.unwrap_err();
    assert!(refused.to_string().contains("handed over"), "{refused}");
    assert!(first.claim("api", 9, UnixMs(1_000)).await.is_empty());
    assert!(first.stats().await.is_err());
    assert_eq!(second.claim("api", 9, UnixMs(1_000)).await[0].id, id);

    // The successor fails, and the predecessor takes the folder back.
    assert!(matches!(
        first.resume().await,
        Err(OpenError::Locked { .. })
    ));
    second.release().await;
    let mut health = first.health();
    let ready = health.wait_for(|health| *health == Health::Ready);
    tokio::time::timeout(super::PATIENCE, ready)
        .await
        .unwrap()
        .unwrap();
    let claimed = first.claim("api", 9, UnixMs(1_000)).await;
    assert_eq!(claimed[0].id, id);
}

#[tokio::test]
async fn claims_outlive_a_folder_that_was_opened_anew() {
    let scratch = tempfile::tempdir().unwrap();
    let inbox = Inbox::open(settings(scratch.path(), Policy::default()));
    let inbox = inbox.await.unwrap().inbox;
    let mut ids = Vec::new();
    for n in 0..3 {
        let kept = event("billing", &format!("evt_{n}"), b"{}");
        ids.push(inbox.append(kept, Vec::new()).await.unwrap());
    }
    assert_eq!(inbox.claim("api", 2, UnixMs(1_000)).await.len(), 2);
    inbox.release().await;
    // This attempt was made, but its settlement is lost: it is to be made once more.
    let lost = inbox.settle(vec![(ids[0], delivered(1_000))], UnixMs(1_000));
    assert!(matches!(lost.await, Err(Unwritable::Failed(_))));
    inbox.resume().await.unwrap();
    let claimed: Vec<EntryId> = inbox
        .claim("api", 9, UnixMs(1_000))
        .await
        .iter()
        .map(|c| c.id)
        .collect();
    assert_eq!(claimed, [ids[0], ids[2]], "the second is in flight still");
}

#[tokio::test]
async fn before_the_disk_is_full_nothing_new_is_taken_and_the_old_is_settled() {
    let scratch = tempfile::tempdir().unwrap();
    let roomy = Inbox::open(settings(scratch.path(), Policy::default()));
    let roomy = roomy.await.unwrap().inbox;
    let id = roomy.append(event("billing", "evt_1", b"{}"), Vec::new());
    let id = id.await.unwrap();
    drop(roomy);
    let tight = Policy {
        disk_free_bytes_min: u64::MAX,
        ..Policy::default()
    };
    let tight = Inbox::open(settings(scratch.path(), tight));
    let tight = tight.await.unwrap().inbox;
    let refused = tight.append(event("billing", "evt_2", b"{}"), Vec::new());
    let full = Unwritable::Full {
        limit: "inbox.disk_free_bytes_min",
    };
    assert_eq!(refused.await, Err(full));
    assert_eq!(tight.claim("api", 9, UnixMs(1_000)).await.len(), 1);
    let settled = vec![(id, delivered(1_000))];
    tight.settle(settled, UnixMs(1_000)).await.unwrap();
    let stats = tight.stats().await.unwrap();
    assert_eq!(stats.total(Standing::Delivered).entries, 1);
}

#[tokio::test]
async fn a_writer_that_panics_is_loud_and_confirms_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let inbox = Inbox::open(Settings {
        observer: Arc::new(|_| panic!("a test's own panic")),
        ..settings(scratch.path(), Policy::default())
    });
    let inbox = inbox.await.unwrap().inbox;
    let health = inbox.health();
    let refused = inbox.append(event("billing", "evt_1", b"{}"), Vec::new());
    let refused = refused.await.unwrap_err().to_string();
    assert!(refused.contains("restart maitred"), "{refused}");
    tokio::time::timeout(super::PATIENCE, async {
        while !matches!(*health.borrow(), Health::Stopped(_)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    let next = inbox.append(event("billing", "evt_2", b"{}"), Vec::new());
    assert!(matches!(next.await, Err(Unwritable::Failed(_))));
    assert!(inbox.claim("api", 9, UnixMs(1_000)).await.is_empty());
}

#[tokio::test]
async fn a_claim_that_nobody_took_does_not_last() {
    let scratch = tempfile::tempdir().unwrap();
    let inbox = Inbox::open(settings(scratch.path(), Policy::default()));
    let inbox = inbox.await.unwrap().inbox;
    let kept = inbox.append(event("billing", "evt_1", b"{}"), Vec::new());
    kept.await.unwrap();
    let mut changes = inbox.subscribe();
    for _ in 0..20 {
        changes.mark_unchanged();
        // Polled once, which sends it off, and given up. It may be done by then, and is taken.
        match inbox.claim("api", 1, UnixMs(1_000)).now_or_never() {
            Some(taken) => {
                let unclaim = taken.iter().map(|c| (c.id, Settlement::Unclaim));
                inbox
                    .settle(unclaim.collect(), UnixMs(1_000))
                    .await
                    .unwrap();
            }
            None => {
                tokio::time::timeout(super::PATIENCE, changes.changed())
                    .await
                    .unwrap()
                    .unwrap();
            }
        }
        assert_eq!(inbox.stats().await.unwrap().claimed, 0);
    }
    assert_eq!(inbox.claim("api", 1, UnixMs(1_000)).await.len(), 1);
}
