//! The one thread that writes. It takes whatever has arrived while the last commit ran, writes it as
//! one commit, with an fsync where anybody waits for one, and then answers all of it. No timer.
//!
//! After a failed write or fsync nobody knows what is on disk, so nothing of that batch is confirmed
//! and nothing more is accepted until the folder was opened anew, its journal written anew, and a
//! probe was written and fsynced.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::command::Command;
use super::disk::{Disk, Sync};
use super::event::{EntryId, Unwritable};
use super::journal::Cut;
use super::key;
use super::ledger::Ledger;
use super::read::locked;
use super::rows::{Table, Writes};
use super::state::{Change, Desk};
use super::{Commit, Health, Memory, Observer, OpenError, Policy};
use crate::kernel::clock::Clock;

/// Commands waiting for the writer.
pub(super) const QUEUE_MAX: usize = 4_096;
/// Commands in one commit, and what they may hold.
const BATCH_MAX: usize = 1_024;
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Pauses between two attempts to open the folder anew.
const REOPEN_FIRST: Duration = Duration::from_millis(100);
const REOPEN_MAX: Duration = Duration::from_secs(5);
/// How often a writer without a folder answers those who wait.
const ANSWER_EVERY: Duration = Duration::from_millis(10);
/// How often the file system is asked for its free space.
const LOOK_AT_SPACE_EVERY: Duration = Duration::from_secs(1);

pub(super) type Answer = Result<u64, Unwritable>;

/// A command, and who waits for its result.
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What is sent to the writer.
pub(super) enum Message {
    Do(Box<Request>),
    /// Close the folder; answered when another process can open it.
    Release(oneshot::Sender<()>),
    /// Open it again.
    Resume(oneshot::Sender<Result<(), OpenError>>),
}

/// What readers and the writer share.
pub(super) struct Shared {
    pub(super) policy: Policy,
    /// `None` while the folder is closed. The writer takes it away and waits for readers by it.
    pub(super) disk: RwLock<Option<Disk>>,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) health: watch::Sender<Health>,
    /// Counts whenever something may have become due.
    pub(super) changed: watch::Sender<u64>,
}

/// A folder as it was opened.
pub(super) struct Loaded {
    pub(super) disk: Disk,
    pub(super) ledger: Ledger,
    pub(super) memories: Vec<Memory>,
    pub(super) cut: Option<Cut>,
}

pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) observer: Observer,
    pub(super) queue: mpsc::Receiver<Message>,
    mode: Mode,
    /// Claims whose settlement was not written; they end when the folder is open again.
    unsettled: HashSet<EntryId>,
    space: Option<(Instant, bool)>,
}

enum Mode {
    Open,
    Released,
    /// Until this moment nothing is tried; the next pause is longer.
    Broken {
        until: Instant,
        pause: Duration,
    },
}

/// Opens the folder, proves that it can be written, and counts what is there.
pub(super) fn load(path: &std::path::Path, clock: &Clock) -> Result<Loaded, OpenError> {
    let (disk, cut) = Disk::open(path)?;
    let unusable = |error: &dyn std::fmt::Display| OpenError::Unusable {
        path: path.to_owned(),
        error: error.to_string(),
    };
    let mut probe = Writes::default();
    let now = clock.unix();
    probe.put(Table::Index, key::probe(), now.0.to_be_bytes().to_vec());
    disk.write(&probe, Sync::Durable)
        .map_err(|e| unusable(&e))?;
    let mut memories = Vec::new();
    let ledger =
        Ledger::load(&disk, now, &mut |memory| memories.push(memory)).map_err(|e| unusable(&e))?;
    Ok(Loaded {
        disk,
        ledger,
        memories,
        cut,
    })
}

impl Writer {
    pub(super) fn new(
        path: PathBuf,
        shared: Arc<Shared>,
        clock: Clock,
        observer: Observer,
        queue: mpsc::Receiver<Message>,
    ) -> Self {
        Self {
            path,
            shared,
            clock,
            observer,
            queue,
            mode: Mode::Open,
            unsettled: HashSet::new(),
            space: None,
        }
    }

    /// Works until every handle of the inbox is gone.
    pub(super) fn run(mut self) {
        let worked = catch_unwind(AssertUnwindSafe(|| self.work()));
        // The panic itself was reported by its hook; its message may hold anything.
        if worked.is_err() {
            tracing::error!(
                "the writer of the inbox has panicked; no webhook is accepted any more"
            );
            let reason = "its writer has panicked; restart maitred".into();
            self.shared.health.send_replace(Health::Stopped(reason));
        }
        self.take_disk();
    }

    fn work(&mut self) {
        while let Some(message) = self.next() {
            match message {
                Message::Release(done) => self.release(done),
                Message::Resume(done) => self.resume(done),
                Message::Do(request) => match self.mode {
                    Mode::Open => self.batch(*request),
                    Mode::Released | Mode::Broken { .. } => self.refuse(*request),
                },
            }
        }
    }

    /// The next message; while the folder is broken, tries to mend it meanwhile.
    fn next(&mut self) -> Option<Message> {
        loop {
            let Mode::Broken { until, pause } = self.mode else {
                return self.queue.blocking_recv();
            };
            match self.queue.try_recv() {
                Ok(message) => return Some(message),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
                Err(mpsc::error::TryRecvError::Empty) => {}
            }
            if self.clock.instant() < until {
                std::thread::sleep(ANSWER_EVERY);
            } else if let Err(error) = self.reopen() {
                self.broken(error.to_string(), (pause * 2).min(REOPEN_MAX));
            }
        }
    }

    fn batch(&mut self, first: Request) {
        let mut bytes = first.command.bytes();
        let mut batch = vec![first];
        let mut then = None;
        while batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            match self.queue.try_recv() {
                Ok(Message::Do(request)) => {
                    bytes += request.command.bytes();
                    batch.push(*request);
                }
                Ok(other) => {
                    then = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        self.commit(batch, bytes);
        match then {
            Some(Message::Release(done)) => self.release(done),
            Some(Message::Resume(done)) => self.resume(done),
            Some(Message::Do(_)) | None => {}
        }
    }

    fn commit(&mut self, batch: Vec<Request>, bytes: usize) {
        let before = self.clock.instant();
        let full = self.short_of_space(before);
        let shared = self.shared.clone();
        let guard = shared.disk.read().unwrap_or_else(PoisonError::into_inner);
        let Some(disk) = guard.as_ref() else {
            return;
        };
        let mut durable = false;
        let (change, answers) = self.decide(disk, &batch, full, &mut durable);
        let sync = match durable {
            true => Sync::Durable,
            false => Sync::Buffered,
        };
        let written = disk.write(&change.writes, sync);
        drop(guard);
        if let Err(error) = written {
            self.fail(&error.to_string(), batch);
            return;
        }
        let due = locked(&shared.ledger).absorb(&change);
        if due {
            shared
                .changed
                .send_modify(|count| *count = count.wrapping_add(1));
        }
        // Observed before anybody is answered, so that who was answered can count on it.
        (self.observer)(&Commit {
            commands: batch.len(),
            bytes,
            durable,
            took: self.clock.instant().saturating_duration_since(before),
        });
        for (request, result) in batch.into_iter().zip(answers) {
            // Who no longer waits will hear of it by its provider's retry.
            let _ = request.answer.send(result);
        }
    }

    fn decide(
        &self,
        disk: &Disk,
        batch: &[Request],
        full: bool,
        durable: &mut bool,
    ) -> (Change, Vec<Answer>) {
        let floor_of = |prefix: &[u8]| locked(&self.shared.ledger).floor(prefix);
        let mut desk = {
            let ledger = locked(&self.shared.ledger);
            Desk::new(disk, &self.shared.policy, &ledger, &floor_of)
        };
        let mut answers = Vec::with_capacity(batch.len());
        for Request { command, .. } in batch {
            let answer = match full && command.grows() {
                true => Err(Unwritable::Full {
                    limit: "inbox.disk_free_bytes_min",
                }),
                false => command.run(&mut desk),
            };
            *durable |= answer.is_ok() && command.durable();
            answers.push(answer);
        }
        if let Err(error) = desk.shrink_delivered(self.clock.unix()) {
            tracing::warn!(%error, "delivered entries of the inbox cannot be removed");
        }
        (desk.close(), answers)
    }

    /// Settlements and compaction need room as well, so growth stops before the disk is full.
    fn short_of_space(&mut self, now: Instant) -> bool {
        if let Some((looked_at, short)) = self.space
            && now.saturating_duration_since(looked_at) < LOOK_AT_SPACE_EVERY
        {
            return short;
        }
        let guard = self
            .shared
            .disk
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let free = guard.as_ref().map(Disk::free_bytes);
        // A file system that cannot tell is found full by the write.
        let short = matches!(free, Some(Ok(free)) if free < self.shared.policy.disk_free_bytes_min);
        self.space = Some((now, short));
        short
    }

    // === without a folder ===

    fn fail(&mut self, error: &str, batch: Vec<Request>) {
        tracing::error!(%error, "the inbox cannot write; webhooks are answered with 503");
        self.broken(error.to_owned(), REOPEN_FIRST);
        for request in batch {
            self.refuse(request);
        }
        self.take_disk();
    }

    fn broken(&mut self, error: String, pause: Duration) {
        let health = Health::Unwritable(error);
        self.shared.health.send_replace(health);
        self.mode = Mode::Broken {
            until: self.clock.instant() + pause,
            pause,
        };
    }

    fn refuse(&mut self, request: Request) {
        if let Command::Settle { settled, .. } = request.command {
            self.unsettled.extend(settled.into_iter().map(|(id, _)| id));
        }
        let reason = self.shared.health.borrow().to_string();
        let _ = request.answer.send(Err(Unwritable::Failed(reason)));
    }

    fn release(&mut self, done: oneshot::Sender<()>) {
        self.mode = Mode::Released;
        self.shared.health.send_replace(Health::Released);
        self.take_disk();
        let _ = done.send(());
    }

    fn resume(&mut self, done: oneshot::Sender<Result<(), OpenError>>) {
        let result = match self.mode {
            Mode::Open => Ok(()),
            Mode::Released | Mode::Broken { .. } => self.reopen(),
        };
        if let Err(error) = &result {
            self.broken(error.to_string(), REOPEN_FIRST);
        }
        let _ = done.send(result);
    }

    fn reopen(&mut self) -> Result<(), OpenError> {
        let Loaded {
            disk,
            mut ledger,
            cut,
            ..
        } = load(&self.path, &self.clock)?;
        report(cut.as_ref());
        {
            let mut before = locked(&self.shared.ledger);
            ledger.adopt_claims(&before, &self.unsettled);
            *before = ledger;
        }
        self.unsettled.clear();
        self.space = None;
        *self
            .shared
            .disk
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(disk);
        self.mode = Mode::Open;
        self.shared.health.send_replace(Health::Ready);
        self.shared
            .changed
            .send_modify(|count| *count = count.wrapping_add(1));
        tracing::info!("the inbox can write again");
        Ok(())
    }

    /// Waits for readers.
    fn take_disk(&self) {
        let mut disk = self
            .shared
            .disk
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *disk = None;
    }
}

pub(super) fn report(cut: Option<&Cut>) {
    if let Some(cut) = cut {
        tracing::warn!(
            inbox.cut_bytes = cut.bytes,
            inbox.kept_at = %cut.kept_at.display(),
            "the end of the inbox's journal was torn and has been cut off: writes that were not \
             confirmed, unless the disk loses what it confirms"
        );
    }
}
