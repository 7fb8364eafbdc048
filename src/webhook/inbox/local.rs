//! The inbox of one process on its own disk: hands commands to the writer and reads beside it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::command::Command;
use super::disk::Disk;
use super::event::{Claimed, Unwritable};
use super::ledger::Ledger;
use super::read;
use super::rows::{RowError, StoredRows};
use super::writer::{Loaded, Message, QUEUE_MAX, Request, Shared, Writer, load, report};
use super::{Health, OpenError, Opened, Settings, Unreadable};
use crate::kernel::clock::UnixMs;

/// Bodies waiting for the writer, in KiB.
const QUEUE_KIB_MAX: u16 = u16::MAX;
const LOOK_AT_LOCK_EVERY: std::time::Duration = std::time::Duration::from_millis(50);
/// The folder may be this many times as large as what is in it before it is compacted, and never
/// is while it is smaller than this.
const WASTE_FACTOR: u64 = 2;
const WASTE_BYTES: u64 = 256 << 20;

/// Handle of the engine; clones share it. The last one closes the folder.
#[derive(Clone)]
pub struct Local {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    /// One compaction at a time.
    compacting: Arc<Semaphore>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Local")
    }
}

impl Local {
    pub(super) async fn open(settings: Settings) -> Result<Opened, OpenError> {
        let Settings {
            path,
            policy,
            clock,
            observer,
            lock_wait,
        } = settings;
        let started = clock.instant();
        let loaded = loop {
            let (folder, time) = (path.clone(), clock.clone());
            let opened = blocking(move || load(&folder, &time)).await;
            match opened.unwrap_or_else(|| Err(OpenError::Panicked)) {
                Err(OpenError::Locked { .. })
                    if clock.instant().saturating_duration_since(started) < lock_wait =>
                {
                    tokio::time::sleep(LOOK_AT_LOCK_EVERY).await;
                }
                result => break result?,
            }
        };
        let Loaded {
            disk,
            ledger,
            memories,
            cut,
        } = loaded;
        report(cut.as_ref());
        let shared = Arc::new(Shared {
            policy,
            disk: std::sync::RwLock::new(Some(disk)),
            ledger: Mutex::new(ledger),
            health: watch::Sender::new(Health::Ready),
            changed: watch::Sender::new(0),
        });
        let (queue, receiver) = mpsc::channel(QUEUE_MAX);
        let writer = Writer::new(path.clone(), shared.clone(), clock, observer, receiver);
        std::thread::Builder::new()
            .name("inbox writer".into())
            .spawn(move || writer.run())
            .map_err(|error| OpenError::Unusable {
                path,
                error: error.to_string(),
            })?;
        let local = Self {
            shared,
            queue,
            room: Arc::new(Semaphore::new(usize::from(QUEUE_KIB_MAX))),
            compacting: Arc::new(Semaphore::new(1)),
        };
        Ok(Opened {
            inbox: super::Inbox::Local(local),
            memories,
            cut,
        })
    }

    /// For what must not wait in a queue: refused when there are too many.
    pub(super) async fn offer(&self, command: Command) -> Result<u64, Unwritable> {
        self.able()?;
        let kib = u16::try_from(command.bytes() / 1024 + 1).unwrap_or(QUEUE_KIB_MAX);
        let full = |limit| Unwritable::Full { limit };
        // Given back when the writer has answered.
        let _room = self
            .room
            .try_acquire_many(u32::from(kib))
            .map_err(|_| full("bytes waiting for the disk"))?;
        let (answer, result) = oneshot::channel();
        let request = Request { command, answer };
        match self.queue.try_send(Message::Do(Box::new(request))) {
            Ok(()) => result.await.unwrap_or_else(|_| Err(stopped())),
            Err(mpsc::error::TrySendError::Full(_)) => Err(full("webhooks waiting for the disk")),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(stopped()),
        }
    }

    /// For what is bounded by its sender: waits for its turn.
    pub(super) async fn run(&self, command: Command) -> Result<u64, Unwritable> {
        let (answer, result) = oneshot::channel();
        let request = Request { command, answer };
        let sent = self.queue.send(Message::Do(Box::new(request))).await;
        sent.map_err(|_| stopped())?;
        result.await.unwrap_or_else(|_| Err(stopped()))
    }

    pub(super) async fn claim(&self, destination: &str, max: usize, now: UnixMs) -> Vec<Claimed> {
        // What cannot be settled would be delivered over and over.
        if self.able().is_err() {
            return Vec::new();
        }
        let (destination, shared) = (destination.to_owned(), self.shared.clone());
        let claimed = self
            .read(move |disk, ledger| {
                let claimed = read::claim(disk, ledger, &destination, max, now)?;
                Ok(Untaken { claimed, shared })
            })
            .await;
        match claimed {
            Ok(mut untaken) => std::mem::take(&mut untaken.claimed),
            Err(error) => {
                tracing::error!(%error, "nothing can be claimed from the inbox");
                Vec::new()
            }
        }
    }

    /// Runs where it may block; the folder stays open meanwhile.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk, &Mutex<Ledger>) -> Result<T, RowError> + Send + 'static,
    ) -> Result<T, Unreadable> {
        let shared = self.shared.clone();
        let closed = |shared: &Shared| Unreadable(shared.health.borrow().to_string());
        let read = blocking(move || {
            let disk = shared.disk.read().unwrap_or_else(PoisonError::into_inner);
            match disk.as_ref() {
                Some(disk) => work(disk, &shared.ledger).map_err(|e| Unreadable(e.to_string())),
                None => Err(closed(&shared)),
            }
        })
        .await;
        read.unwrap_or_else(|| Err(Unreadable("reading has panicked".into())))
    }

    /// Gives space back when much of the folder is removed rows.
    pub(super) async fn compact_if_wasteful(&self) {
        let Ok(_one) = self.compacting.try_acquire() else {
            return;
        };
        let done = self
            .read(|disk, ledger| {
                let kept = read::locked(ledger).totals().bytes();
                match disk.disk_bytes() > (kept * WASTE_FACTOR).max(WASTE_BYTES) {
                    true => disk.compact(),
                    false => Ok(()),
                }
            })
            .await;
        if let Err(error) = done {
            tracing::warn!(%error, "the inbox cannot be compacted");
        }
    }

    pub(super) async fn release(&self) {
        let (answer, done) = oneshot::channel();
        if self.queue.send(Message::Release(answer)).await.is_ok() {
            // A writer that has stopped holds no folder.
            let _ = done.await;
        }
    }

    pub(super) async fn resume(&self) -> Result<(), OpenError> {
        let (answer, done) = oneshot::channel();
        let sent = self.queue.send(Message::Resume(answer)).await;
        sent.map_err(|_| OpenError::Panicked)?;
        done.await.unwrap_or(Err(OpenError::Panicked))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    fn able(&self) -> Result<(), Unwritable> {
        match &*self.shared.health.borrow() {
            Health::Ready => Ok(()),
            other @ (Health::Unwritable(_) | Health::Released | Health::Stopped(_)) => {
                Err(Unwritable::Failed(other.to_string()))
            }
        }
    }
}

/// Claims on their way to who asked. If nobody waits for them any more, they end.
struct Untaken {
    claimed: Vec<Claimed>,
    shared: Arc<Shared>,
}

impl Drop for Untaken {
    fn drop(&mut self) {
        if self.claimed.is_empty() {
            return;
        }
        let ids = self.claimed.iter().map(|claimed| claimed.id);
        read::locked(&self.shared.ledger).unclaim(ids);
        self.shared
            .changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}

fn stopped() -> Unwritable {
    Unwritable::Failed("its writer has stopped; restart maitred".into())
}

/// `None` when `work` has panicked.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
