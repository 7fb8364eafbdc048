//! Keeps verified webhooks until they are delivered. Decides what is due, what waits behind another
//! event of its order key, what is dead; does not verify and does not send.
//!
//! Invariant: an event whose [`Inbox::append`] returned is on disk (fsync) and is claimed again and
//! again until it is settled as delivered, dead or discarded, whatever dies in between.
//!
//! Order of steps: `append` (one atomic write with what replay protection must remember) → `claim`
//! what is due → `settle` each claim → `list`, `show`, `redeliver`, `discard` for the operator.
//!
//! Layout: `state` says what a command does to the `rows` and `read` what is read from them, both
//! without I/O; `disk` keeps the rows, `writer` commits them, `local` joins the two; `ledger` is what
//! is counted in memory; `key` and `record` are the forms of the rows.

mod command;
#[cfg(test)]
pub(crate) mod conformance;
mod disk;
mod event;
mod journal;
mod key;
mod ledger;
mod local;
#[cfg(test)]
mod memory;
mod operator;
mod policy;
mod read;
mod record;
pub mod redis;
mod rows;
mod state;
mod step;
mod walk;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::kernel::clock::{Clock, UnixMs};
use command::Command;
pub use event::{
    Attempt, Claimed, DeadReason, EntryId, Event, Memory, MemoryOf, Outcome, Settlement, Unwritable,
};
pub use journal::Cut;
pub use local::Local;
pub use operator::{
    EndpointStats, Filter, Order, Page, Plan, Selection, Shown, Spread, Standing, State, Stats,
    Summary,
};
pub use policy::Policy;
use walk::Walk;

/// What an inbox on disk is opened with.
#[derive(Clone)]
pub struct Settings {
    pub path: PathBuf,
    pub policy: Policy,
    pub clock: Clock,
    /// Called by the writer after each commit, before anybody is answered.
    pub observer: Observer,
    /// How long to wait for another process to let go of the folder.
    pub lock_wait: Duration,
}

impl Settings {
    /// Nobody observes, and nobody is waited for.
    #[must_use]
    pub fn new(path: PathBuf, policy: Policy, clock: Clock) -> Self {
        Self {
            path,
            policy,
            clock,
            observer: Arc::new(|_| {}),
            lock_wait: Duration::ZERO,
        }
    }
}

/// Is told of each commit.
pub type Observer = Arc<dyn Fn(&Commit) + Send + Sync>;

/// One commit of the writer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Commit {
    /// Commands in it.
    pub commands: usize,
    pub bytes: usize,
    /// Whether it was fsynced.
    pub durable: bool,
    pub took: Duration,
}

/// An inbox and what was found in it.
#[derive(Debug)]
pub struct Opened {
    pub inbox: Inbox,
    /// What replay protection still has to know.
    pub memories: Vec<Memory>,
    /// What was torn off the end of the journal, if anything was.
    pub cut: Option<Cut>,
}

/// Whether webhooks can be kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Health {
    Ready,
    /// A write or fsync has failed; the writer tries to mend it.
    Unwritable(String),
    /// Closed by [`Inbox::release`].
    Released,
    /// For good.
    Stopped(String),
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Unwritable(reason) | Self::Stopped(reason) => f.write_str(reason),
            Self::Released => f.write_str("it was handed over to another process"),
        }
    }
}

/// Why there is no inbox.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the inbox in {} is in use by process {holder}; stop that process, or give this one a folder \
         of its own with inbox.path", path.display()
    )]
    Locked { path: PathBuf, holder: String },
    #[error(
        "the inbox's journal {journal} is damaged at byte {position}: the disk has lost what it had \
         confirmed. Restore the folder from a backup. To go on without the events behind that byte: \
         truncate -s {position} {journal}", journal = journal.display()
    )]
    Damaged { journal: PathBuf, position: u64 },
    #[error(
        "the inbox in {} cannot be opened: {error}. Check the folder's owner, its disk and the space \
         on it", path.display()
    )]
    Unusable { path: PathBuf, error: String },
    #[error("opening the inbox has panicked; its folder is damaged: restore it from a backup")]
    Panicked,
}

/// Rows cannot be read now.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the inbox cannot be read: {0}")]
pub struct Unreadable(pub String);

/// The inbox. Its engines are these and no others; all do the same (see `conformance`).
#[derive(Clone, Debug)]
pub enum Inbox {
    /// On this machine's disk.
    Local(Local),
    /// Shared by several nodes.
    Redis(redis::OnRedis),
    /// Without a disk, for tests.
    #[cfg(test)]
    Memory(memory::InMemory),
}

impl Inbox {
    /// Opens or creates the folder, waiting for its lock as long as the settings say. Needs a Tokio
    /// runtime.
    ///
    /// # Errors
    /// [`OpenError`] says what to do.
    pub async fn open(settings: Settings) -> Result<Opened, OpenError> {
        Local::open(settings).await
    }

    /// The inbox that all nodes with the same server, database and prefix share. Needs a Tokio
    /// runtime; the server may be away.
    #[must_use]
    pub fn on_redis(settings: redis::Settings) -> Self {
        Self::Redis(redis::OnRedis::open(settings))
    }

    /// An empty inbox without a disk.
    #[cfg(test)]
    #[must_use]
    pub fn in_memory(policy: Policy) -> Self {
        Self::Memory(memory::InMemory::new(policy))
    }

    /// The rows as they are now, of which [`Self::reopened`] makes an inbox.
    #[cfg(test)]
    #[must_use]
    pub fn image(&self) -> Self {
        match self {
            Self::Local(_) | Self::Redis(_) => unreachable!("not a map in memory"),
            Self::Memory(memory) => Self::Memory(memory.image()),
        }
    }

    /// What a process finds that is started on these rows: no claims.
    #[cfg(test)]
    #[must_use]
    pub fn reopened(&self, policy: Policy, now: UnixMs) -> Self {
        match self {
            Self::Local(_) | Self::Redis(_) => unreachable!("not a map in memory"),
            Self::Memory(memory) => Self::Memory(memory.restarted(policy, now).0),
        }
    }

    /// Keeps `event` and what replay protection must remember of it, both or neither. On disk when
    /// it returns.
    ///
    /// # Errors
    /// [`Unwritable`]: nothing is promised, the provider must try again. It may be kept all the same.
    pub async fn append(&self, event: Event, memories: Vec<Memory>) -> Result<EntryId, Unwritable> {
        let event = Box::new(event);
        let id = self.offer(Command::Append { event, memories }).await;
        id.map(EntryId)
    }

    /// Keeps what replay protection must remember of an event that is not kept here.
    ///
    /// # Errors
    /// As for [`Self::append`].
    pub async fn remember(&self, memories: Vec<Memory>) -> Result<(), Unwritable> {
        self.offer(Command::Remember(memories)).await.map(drop)
    }

    /// Up to `max` entries for `destination` that are due at `now`, those due first before others.
    /// None while they could not be settled.
    pub async fn claim(&self, destination: &str, max: usize, now: UnixMs) -> Vec<Claimed> {
        match self {
            Self::Local(local) => local.claim(destination, max, now).await,
            Self::Redis(redis) => redis.claim(destination, max, now).await,
            #[cfg(test)]
            Self::Memory(memory) => memory.claim(destination, max, now),
        }
    }

    /// When the first unclaimed entry for `destination` is due.
    pub async fn next_due(&self, destination: &str) -> Option<UnixMs> {
        if let Self::Redis(redis) = self {
            return redis.next_due(destination).await;
        }
        let destination = destination.to_owned();
        let work = move |rows: &dyn rows::StoredRows, ledger: &_| {
            read::next_due(rows, ledger, &destination)
        };
        self.read(work).await.ok().flatten()
    }

    /// Counts up whenever something may have become due earlier than [`Self::next_due`] said.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        match self {
            Self::Local(local) => local.subscribe(),
            Self::Redis(redis) => redis.subscribe(),
            #[cfg(test)]
            Self::Memory(memory) => memory.subscribe(),
        }
    }

    /// Ends claims. What is not claimed (any more) is settled all the same; what was discarded stays
    /// gone.
    ///
    /// # Errors
    /// [`Unwritable`]: nothing was settled, and each entry will be claimed once more.
    pub async fn settle(
        &self,
        settled: Vec<(EntryId, Settlement)>,
        now: UnixMs,
    ) -> Result<(), Unwritable> {
        self.run(Command::Settle { settled, now }).await.map(drop)
    }

    /// Forgets what is past its time and gives space back. To be called every few seconds.
    ///
    /// # Errors
    /// [`Unwritable::Failed`].
    pub async fn expire(&self, now: UnixMs) -> Result<(), Unwritable> {
        while self.run(Command::Expire { now }).await? > 0 {}
        match self {
            Self::Local(local) => local.compact_if_wasteful().await,
            Self::Redis(_) => {}
            #[cfg(test)]
            Self::Memory(_) => {}
        }
        Ok(())
    }

    // === for the operator ===

    /// Entries that match, `limit` at most, from `cursor` (a page's `next`) on.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub async fn list(
        &self,
        filter: Filter,
        cursor: Option<EntryId>,
        limit: usize,
    ) -> Result<Page, Unreadable> {
        if let Self::Redis(redis) = self {
            return redis.list(&filter, cursor, limit).await;
        }
        self.read(move |rows, ledger| read::list(rows, ledger, &filter, cursor, limit))
            .await
    }

    /// One entry with its event.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub async fn show(&self, id: EntryId) -> Result<Option<Shown>, Unreadable> {
        if let Self::Redis(redis) = self {
            return redis.show(id).await;
        }
        self.read(move |rows, _| read::show(rows, id)).await
    }

    /// How much a verb would touch.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub async fn plan(&self, selection: Selection) -> Result<Plan, Unreadable> {
        let mut plan = Plan::default();
        let mut walk = Walk::new(selection);
        while let Some(step) = walk.step(self).await? {
            plan.entries += u64::try_from(step.len()).unwrap_or(u64::MAX);
            plan.bytes += step.iter().map(|(_, bytes)| bytes).sum::<u64>();
        }
        Ok(plan)
    }

    /// Makes entries due again, oldest first, as fast as `spread` says; says how many. Dead and
    /// delivered ones keep no order any more. One that waits behind another of its order key is left
    /// alone.
    ///
    /// # Errors
    /// [`Unwritable`]; some may have been touched.
    pub async fn redeliver(
        &self,
        selection: Selection,
        spread: Spread,
        now: UnixMs,
    ) -> Result<u64, Unwritable> {
        let (mut touched, mut number) = (0, 0);
        let mut walk = Walk::new(selection);
        while let Some(step) = walk.step(self).await? {
            let due = |(id, _)| {
                let due = spread.due(now, number);
                number += 1;
                (id, due)
            };
            let entries = step.into_iter().map(due).collect();
            touched += self.run(Command::Redeliver { entries, now }).await?;
        }
        Ok(touched)
    }

    /// Removes entries for good, whatever becomes of an attempt in flight; says how many.
    ///
    /// # Errors
    /// [`Unwritable`]; some may have been removed.
    pub async fn discard(&self, selection: Selection, now: UnixMs) -> Result<u64, Unwritable> {
        let mut touched = 0;
        let mut walk = Walk::new(selection);
        while let Some(step) = walk.step(self).await? {
            let ids = step.into_iter().map(|(id, _)| id).collect();
            touched += self.run(Command::Discard { ids, now }).await?;
        }
        Ok(touched)
    }

    /// How much there is and how old.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub async fn stats(&self) -> Result<Stats, Unreadable> {
        if let Self::Redis(redis) = self {
            return redis.stats().await;
        }
        self.read(|rows, ledger| {
            Ok(Stats {
                endpoints: read::stats(rows, ledger)?,
                disk_bytes: rows.disk_bytes(),
                claimed: read::locked(ledger).claimed(),
            })
        })
        .await
    }

    // === beginning and end ===

    /// Whether webhooks can be kept, and changes of it.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        match self {
            Self::Local(local) => local.health(),
            Self::Redis(redis) => redis.health(),
            #[cfg(test)]
            Self::Memory(_) => watch::Sender::new(Health::Ready).subscribe(),
        }
    }

    /// Writes what is queued and closes the folder, so that another process can open it. From then
    /// on nothing can be kept, claimed or settled. Claims that are not settled before are claimed
    /// anew by whoever opens it.
    pub async fn release(&self) {
        match self {
            Self::Local(local) => local.release().await,
            Self::Redis(redis) => redis.release().await,
            #[cfg(test)]
            Self::Memory(_) => {}
        }
    }

    /// Opens the folder again after [`Self::release`], because the other process did not come up.
    ///
    /// # Errors
    /// [`OpenError`]; it is tried again until it works or `release` is called.
    pub async fn resume(&self) -> Result<(), OpenError> {
        match self {
            Self::Local(local) => local.resume().await,
            Self::Redis(redis) => {
                redis.resume();
                Ok(())
            }
            #[cfg(test)]
            Self::Memory(_) => Ok(()),
        }
    }

    /// For what must not wait in a queue.
    async fn offer(&self, command: Command) -> Result<u64, Unwritable> {
        match self {
            Self::Local(local) => local.offer(command).await,
            Self::Redis(redis) => redis.run(command).await,
            #[cfg(test)]
            Self::Memory(memory) => memory.run(&command),
        }
    }

    async fn run(&self, command: Command) -> Result<u64, Unwritable> {
        match self {
            Self::Local(local) => local.run(command).await,
            Self::Redis(redis) => redis.run(command).await,
            #[cfg(test)]
            Self::Memory(memory) => memory.run(&command),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(
            &dyn rows::StoredRows,
            &std::sync::Mutex<ledger::Ledger>,
        ) -> Result<T, rows::RowError>
        + Send
        + 'static,
    ) -> Result<T, Unreadable> {
        match self {
            Self::Local(local) => local.read(move |disk, ledger| work(disk, ledger)).await,
            Self::Redis(_) => Err(Unreadable("Redis has no rows".into())),
            #[cfg(test)]
            Self::Memory(memory) => memory.read(work),
        }
    }
}

#[cfg(test)]
mod tests;
