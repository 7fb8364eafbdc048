//! The inbox of a test: the same state machine over rows in memory. Nothing waits, nothing is lost
//! and no thread runs, so a simulation over it goes the same way each time.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::command::Command;
use super::event::{Claimed, Memory, Unwritable};
use super::ledger::Ledger;
use super::read::{self, locked};
use super::rows::{RowError, Rows, StoredRows, Table, Visit, Writes};
use super::state::Desk;
use super::{Policy, Unreadable};
use crate::kernel::clock::UnixMs;

/// Rows in a map.
#[derive(Debug, Default)]
pub(super) struct MemoryRows(Mutex<BTreeMap<At, Vec<u8>>>);

type At = (Table, Vec<u8>);

/// The engine; clones share it.
#[derive(Clone, Debug)]
pub struct InMemory(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    policy: Policy,
    rows: Arc<MemoryRows>,
    ledger: Mutex<Ledger>,
    changed: watch::Sender<u64>,
}

impl InMemory {
    /// An empty inbox.
    pub(super) fn new(policy: Policy) -> Self {
        Self::over(Arc::new(MemoryRows::default()), policy, UnixMs(0)).0
    }

    /// As after a restart: claims are forgotten, rows are not.
    pub(super) fn restarted(&self, policy: Policy, now: UnixMs) -> (Self, Vec<Memory>) {
        Self::over(self.0.rows.clone(), policy, now)
    }

    fn over(rows: Arc<MemoryRows>, policy: Policy, now: UnixMs) -> (Self, Vec<Memory>) {
        let mut memories = Vec::new();
        let ledger = Ledger::load(&*rows, now, &mut |memory| memories.push(memory)).unwrap();
        let parts = Parts {
            policy,
            rows,
            ledger: Mutex::new(ledger),
            changed: watch::Sender::new(0),
        };
        (Self(Arc::new(parts)), memories)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    pub(super) fn claim(&self, destination: &str, max: usize, now: UnixMs) -> Vec<Claimed> {
        read::claim(&*self.0.rows, &self.0.ledger, destination, max, now).unwrap()
    }

    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&dyn StoredRows, &Mutex<Ledger>) -> Result<T, RowError>,
    ) -> Result<T, Unreadable> {
        work(&*self.0.rows, &self.0.ledger).map_err(|error| Unreadable(error.to_string()))
    }

    pub(super) fn run(&self, command: &Command) -> Result<u64, Unwritable> {
        let mut ledger = locked(&self.0.ledger);
        let floor_of = |prefix: &[u8]| ledger.floor(prefix);
        let mut desk = Desk::new(&*self.0.rows, &self.0.policy, &ledger, &floor_of);
        let result = command.run(&mut desk);
        if result.is_ok() {
            desk.shrink_delivered(UnixMs(0)).unwrap();
        }
        let change = desk.close();
        self.0.rows.write(change.writes.clone());
        if ledger.absorb(&change) {
            self.0.changed.send_modify(|count| *count += 1);
        }
        result
    }
}

impl MemoryRows {
    pub(super) fn write(&self, writes: Writes) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, value) in writes {
            match value {
                Some(value) => rows.insert(at, value),
                None => rows.remove(&at),
            };
        }
    }

    fn range(&self, table: Table, from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if from >= to {
            return Vec::new();
        }
        let bounds = (
            Bound::Included((table, from.to_vec())),
            Bound::Excluded((table, to.to_vec())),
        );
        let found = rows.range(bounds);
        found.map(|((_, k), v)| (k.clone(), v.clone())).collect()
    }
}

impl Rows for MemoryRows {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowError> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(rows.get(&(table, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), RowError> {
        for (key, value) in self.range(table, from, to) {
            if visit(&key, &value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

impl StoredRows for MemoryRows {
    fn disk_bytes(&self) -> u64 {
        0
    }

    fn scan_back(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), RowError> {
        for (key, value) in self.range(table, from, to).into_iter().rev() {
            if visit(&key, &value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}
