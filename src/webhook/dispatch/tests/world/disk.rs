//! The inbox behind a disk: settling takes time, fails, and is lost in a crash unless it was synced.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use rand::Rng;
use tokio::sync::watch;

use super::{Shared, Told};
use crate::kernel::clock::UnixMs;
use crate::webhook::dispatch::Backlog;
use crate::webhook::inbox::{self, Claimed, EntryId, Inbox, Settlement, Unwritable};

/// Longest time that the disk takes to settle.
const SETTLE_MS_MAX: u64 = 4;

/// The inbox of one process.
pub(in super::super) struct Disk {
    pub(in super::super) inbox: Inbox,
    /// What a process would find that is started after a crash.
    synced: Mutex<(Inbox, Vec<Told>)>,
    pub(in super::super) shared: Shared,
}

impl Disk {
    pub(in super::super) fn new(inbox: Inbox, shared: Shared) -> Self {
        let synced = Mutex::new((inbox.clone(), Vec::new()));
        let disk = Self {
            inbox,
            synced,
            shared,
        };
        disk.sync();
        disk
    }

    fn sync(&self) {
        if !self.shared.look().weather.kills {
            return;
        }
        let told = self
            .shared
            .look()
            .known
            .iter()
            .map(|known| known.told)
            .collect();
        let inbox = self.inbox.image();
        *self.synced.lock().unwrap() = (inbox, told);
    }

    /// Says 200 to the provider only after this.
    pub(in super::super) async fn append(&self, number: u64) {
        let id = self
            .inbox
            .append(self.shared.event(number), Vec::new())
            .await
            .unwrap();
        self.shared.look().ids.insert(id, number);
        self.sync();
    }

    fn note(&self, settled: &[(EntryId, Settlement)]) {
        let mut world = self.shared.look();
        for (id, settlement) in settled {
            let number = usize::try_from(world.ids[id]).unwrap();
            let wrong = world.wrong_retry(number, settlement);
            wrong.into_iter().for_each(|breach| world.breach(breach));
            let told = &mut world.known[number].told;
            if let Settlement::Retry { attempt, .. } = settlement {
                told.first_failed_at.get_or_insert(attempt.at.0);
            }
            told.attempts += u32::from(*settlement != Settlement::Unclaim);
            match settlement {
                Settlement::Delivered(_) => told.is_delivered = true,
                Settlement::Dead { reason, .. } => told.dead = Some(*reason),
                Settlement::Retry { yield_order, .. } => told.has_yielded |= yield_order,
                Settlement::Unclaim => {}
            }
        }
    }

    /// The process was killed: what it was told after the last sync did not happen.
    pub(in super::super) fn killed(&self) -> Inbox {
        let (inbox, told) = self.synced.lock().unwrap().clone();
        let mut world = self.shared.look();
        for (known, told) in world.known.iter_mut().zip(told) {
            known.forgotten += known.told.attempts - told.attempts;
            known.told = told;
            known.not_before = 0;
        }
        inbox.reopened(inbox::Policy::default(), self.shared.clock.unix())
    }
}

impl Backlog for Disk {
    async fn claim(&self, destination: &str, max: usize, now: UnixMs) -> Vec<Claimed> {
        self.inbox.claim(destination, max, now).await
    }

    async fn settle(
        &self,
        settled: Vec<(EntryId, Settlement)>,
        now: UnixMs,
    ) -> Result<(), Unwritable> {
        let (wait, fails, syncs) = {
            let mut world = self.shared.look();
            let percent = world.weather.disk_failing;
            let wait = world.rng.random_range(0..=SETTLE_MS_MAX);
            (wait, world.chance(percent), world.chance(50))
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        if fails {
            let unclaim = |(id, _)| (id, Settlement::Unclaim);
            self.inbox
                .settle(settled.into_iter().map(unclaim).collect(), now)
                .await?;
            return Err(Unwritable::Failed("simulated".into()));
        }
        self.note(&settled);
        self.inbox.settle(settled, now).await?;
        if syncs {
            self.sync();
        }
        Ok(())
    }

    async fn next_due(&self, destination: &str) -> Option<UnixMs> {
        self.inbox.next_due(destination).await
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.inbox.subscribe()
    }
}

/// What the inbox says at the end.
pub(in super::super) async fn verdicts(inbox: &Inbox) -> HashMap<EntryId, inbox::State> {
    let page = inbox
        .list(inbox::Filter::default(), None, 10_000)
        .await
        .unwrap();
    let seen: HashSet<_> = page.entries.iter().map(|entry| entry.id).collect();
    assert_eq!(seen.len(), page.entries.len(), "an entry is listed twice");
    page.entries
        .into_iter()
        .map(|entry| (entry.id, entry.state))
        .collect()
}
