//! Rows on disk, in fjall: a folder with a lock file, and a database below it. Decides nothing about
//! events.
//!
//! Invariant: what [`Disk::write`] with [`Sync::Durable`] has confirmed is there after any crash.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fjall::{Database, Iter, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::OpenError;
use super::journal::{self, Cut, JournalError};
use super::rows::{RowError, Rows, StoredRows, Table, Visit, Writes};

/// Our lock file; the database has one of its own.
const LOCK: &str = "lock";
const DATABASE: &str = "rows";
/// Blocks of the tables kept in memory.
const CACHE_BYTES: u64 = 32 << 20;
/// Of all journals; beyond it the oldest rows in memory are written out.
const JOURNALS_BYTES_MAX: u64 = 256 << 20;
/// Flushing goes on while another worker compacts.
const WORKERS: usize = 2;
/// Full tables in memory and tables on the first level that we wait for; the database itself would
/// wait a little later, and for ever when its worker died.
const SEALED_MAX: usize = 3;
const FIRST_LEVEL_MAX: usize = 20;
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Whether a write must outlast a power cut when it is confirmed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sync {
    Durable,
    /// It outlasts the process, not the power.
    Buffered,
}

/// An open folder.
pub(super) struct Disk {
    // Fields are dropped in this order: the lock goes last.
    database: Database,
    bodies: Keyspace,
    entries: Keyspace,
    index: Keyspace,
    memories: Keyspace,
    path: PathBuf,
    _lock: File,
}

impl Disk {
    /// Opens or creates the folder; what is left of a torn last commit is cut off.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<Cut>), OpenError> {
        let lock = lock(path)?;
        let rows = path.join(DATABASE);
        let unusable = |error: &dyn std::fmt::Display| OpenError::Unusable {
            path: path.to_owned(),
            error: error.to_string(),
        };
        let cut = journal::settle(&rows, path).map_err(|error| match error {
            JournalError::Damaged { journal, position } => OpenError::Damaged { journal, position },
            JournalError::Io(error) => unusable(&error),
        })?;
        let database = Database::builder(&rows)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNALS_BYTES_MAX)
            .worker_threads(WORKERS)
            .open()
            .map_err(|error| unusable(&error))?;
        let keyspace = |name: &str, memtable_bytes: u64| {
            let options = || KeyspaceCreateOptions::default().max_memtable_size(memtable_bytes);
            database.keyspace(name, options).map_err(|e| unusable(&e))
        };
        let disk = Self {
            bodies: keyspace("bodies", 32 << 20)?,
            entries: keyspace("entries", 16 << 20)?,
            index: keyspace("index", 16 << 20)?,
            memories: keyspace("memories", 8 << 20)?,
            database,
            path: path.to_owned(),
            _lock: lock,
        };
        Ok((disk, cut))
    }

    /// All of `writes`, or none.
    pub(super) fn write(&self, writes: &Writes, sync: Sync) -> Result<(), RowError> {
        self.wait_for_workers()?;
        let mut batch = self.database.batch().durability(Some(match sync {
            Sync::Durable => PersistMode::SyncData,
            Sync::Buffered => PersistMode::Buffer,
        }));
        for ((table, key), value) in writes.iter() {
            match value {
                Some(value) => {
                    batch.insert(self.keyspace(*table), key.as_slice(), value.as_slice())
                }
                None => batch.remove(self.keyspace(*table), key.as_slice()),
            }
        }
        batch.commit().map_err(stored)
    }

    /// The database makes a writer wait while its workers are behind, without a look at whether they
    /// still live; we wait a little earlier and do look.
    fn wait_for_workers(&self) -> Result<(), RowError> {
        let behind = |keyspace: &Keyspace| {
            keyspace.sealed_memtable_count() >= SEALED_MAX
                || keyspace.l0_table_count() >= FIRST_LEVEL_MAX
        };
        while self.keyspaces().into_iter().any(behind) {
            // Fails when a worker has failed, and writes nothing.
            self.database.persist(PersistMode::Buffer).map_err(stored)?;
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Of the file system.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Gives the space of removed rows back to the file system. Takes seconds; writes go on.
    pub(super) fn compact(&self) -> Result<(), RowError> {
        for keyspace in self.keyspaces() {
            keyspace.rotate_memtable().map_err(stored)?;
            while keyspace.sealed_memtable_count() > 0 {
                self.database.persist(PersistMode::Buffer).map_err(stored)?;
                std::thread::sleep(LOOK_EVERY);
            }
            keyspace.major_compact().map_err(stored)?;
        }
        Ok(())
    }

    fn keyspaces(&self) -> [&Keyspace; 4] {
        [&self.bodies, &self.entries, &self.index, &self.memories]
    }

    fn keyspace(&self, table: Table) -> &Keyspace {
        match table {
            Table::Bodies => &self.bodies,
            Table::Entries => &self.entries,
            Table::Index => &self.index,
            Table::Memories => &self.memories,
        }
    }

    fn range(&self, table: Table, from: &[u8], to: &[u8]) -> Iter {
        self.keyspace(table).range(from..to)
    }
}

impl Rows for Disk {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowError> {
        let value = self.keyspace(table).get(key).map_err(stored)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), RowError> {
        if from >= to {
            return Ok(());
        }
        for row in self.range(table, from, to) {
            let (key, value) = row.into_inner().map_err(stored)?;
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl StoredRows for Disk {
    fn disk_bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }

    fn scan_back(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), RowError> {
        if from >= to {
            return Ok(());
        }
        for row in self.range(table, from, to).rev() {
            let (key, value) = row.into_inner().map_err(stored)?;
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn stored(error: fjall::Error) -> RowError {
    RowError::Store(if let fjall::Error::Io(error) = error {
        error.to_string()
    } else if matches!(error, fjall::Error::Poisoned) {
        "an earlier write or fsync has failed".into()
    } else {
        format!("{error:?}")
    })
}

/// Two processes in one folder would destroy it. The lock goes with the process, however it ends.
fn lock(path: &Path) -> Result<File, OpenError> {
    let unusable = |error: io::Error| OpenError::Unusable {
        path: path.to_owned(),
        error: error.to_string(),
    };
    // Bodies and headers are nobody else's business.
    let mut folder = DirBuilder::new();
    folder.recursive(true).mode(0o700);
    folder.create(path).map_err(unusable)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(path.join(LOCK)).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {
            let mine = std::process::id().to_string();
            file.set_len(0).map_err(unusable)?;
            file.rewind().map_err(unusable)?;
            file.write_all(mine.as_bytes()).map_err(unusable)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message.
            let _ = file.read_to_string(&mut holder);
            Err(OpenError::Locked {
                path: path.to_owned(),
                holder,
            })
        }
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}
