//! What is kept in memory beside the rows and can be had from them again: how much there is, who has
//! a claim, and where reading begins. Its size does not grow with the number of entries, claims
//! excepted, which their holder bounds.
//!
//! Floors: a queue in a sorted store leaves its removed rows behind at the front until they are
//! compacted away. No live row of a prefix is below its floor, so a scan begins there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::event::{EntryId, Memory};
use super::key;
use super::operator::{EndpointStats, Standing};
use super::record;
use super::rows::{RowError, Rows, Table};
use super::state::Change;
use crate::kernel::clock::UnixMs;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    next_id: u64,
    claimed: HashSet<EntryId>,
    floors: HashMap<Vec<u8>, Vec<u8>>,
    memories_floor: Vec<u8>,
    tallies: BTreeMap<Arc<str>, [Tally; 3]>,
    totals: Totals,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    entries: u64,
    bytes: u64,
}

/// What the limits are measured against.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Totals {
    /// Pending and dead.
    pub(super) held_entries: u64,
    pub(super) held_bytes: u64,
    delivered_entries: u64,
    pub(super) delivered_bytes: u64,
}

impl Totals {
    pub(super) fn count(&mut self, size: u64, from: Option<Standing>, to: Option<Standing>) {
        if let Some(from) = from {
            let (entries, bytes) = self.of(from);
            *entries = entries.saturating_sub(1);
            *bytes = bytes.saturating_sub(size);
        }
        if let Some(to) = to {
            let (entries, bytes) = self.of(to);
            *entries += 1;
            *bytes += size;
        }
    }

    /// All that is kept.
    pub(super) fn bytes(&self) -> u64 {
        self.held_bytes.saturating_add(self.delivered_bytes)
    }

    fn of(&mut self, standing: Standing) -> (&mut u64, &mut u64) {
        match standing {
            Standing::Pending | Standing::Dead => (&mut self.held_entries, &mut self.held_bytes),
            Standing::Delivered => (&mut self.delivered_entries, &mut self.delivered_bytes),
        }
    }
}

impl Ledger {
    /// Counts all rows anew, and tells of every memory that still counts at `now`.
    pub(super) fn load(
        rows: &dyn Rows,
        now: UnixMs,
        remembered: &mut dyn FnMut(Memory),
    ) -> Result<Self, RowError> {
        let mut ledger = Self {
            next_id: 1,
            ..Self::default()
        };
        if let Some(next) = rows.get(Table::Index, &key::next_id())? {
            ledger.next_id = key::id_of(&next).map_or(1, |id| id.0);
        }
        let mut broken = None;
        rows.scan(Table::Entries, &[], &[0xff; 9], &mut |at, row| {
            let (endpoint, bytes, standing) = match record::tally(row) {
                Ok(tally) => tally,
                Err(error) => {
                    broken = Some(error);
                    return ControlFlow::Break(());
                }
            };
            let id = key::id_of(at).map_or(0, |id| id.0);
            ledger.next_id = ledger.next_id.max(id.saturating_add(1));
            ledger.count(endpoint, bytes, None, Some(standing));
            ControlFlow::Continue(())
        })?;
        if let Some(error) = broken {
            return Err(error);
        }
        let from = key::memories_after(now);
        rows.scan(Table::Memories, &from, &[0xff; 42], &mut |at, _| {
            if let Some(memory) = key::memory_of(at) {
                remembered(memory);
            }
            ControlFlow::Continue(())
        })?;
        Ok(ledger)
    }

    /// After a batch was written. Whether anything may have become due.
    pub(super) fn absorb(&mut self, change: &Change) -> bool {
        let mut due = false;
        // Rows that came after they were looked for lower them again.
        for (prefix, at) in &change.floors {
            let floor = self.floors.entry(prefix.clone()).or_default();
            if *floor < *at {
                floor.clone_from(at);
            }
        }
        for ((table, at), value) in change.writes.iter() {
            match (table, value) {
                (Table::Index, Some(value)) => {
                    if *at == key::next_id() {
                        self.next_id = key::id_of(value).map_or(self.next_id, |id| id.0);
                    }
                    due |= self.lower_floor(at);
                }
                (Table::Memories, Some(_)) if *at < self.memories_floor => {
                    self.memories_floor.clone_from(at);
                }
                (Table::Memories, None) if *at > self.memories_floor => {
                    self.memories_floor.clone_from(at);
                }
                (Table::Bodies | Table::Entries | Table::Index | Table::Memories, _) => {}
            }
        }
        for moved in &change.moves {
            self.count(&moved.endpoint, moved.bytes, moved.from, moved.to);
        }
        for id in &change.settled {
            // An unclaimed entry is due at once.
            due |= self.claimed.remove(id);
        }
        due
    }

    fn count(&mut self, endpoint: &str, bytes: u64, from: Option<Standing>, to: Option<Standing>) {
        self.totals.count(bytes, from, to);
        if !self.tallies.contains_key(endpoint) {
            self.tallies.insert(endpoint.into(), Default::default());
        }
        let Some([pending, dead, delivered]) = self.tallies.get_mut(endpoint) else {
            return;
        };
        let mut of = |standing, change: fn(&mut Tally, u64)| match standing {
            Standing::Pending => change(pending, bytes),
            Standing::Dead => change(dead, bytes),
            Standing::Delivered => change(delivered, bytes),
        };
        if let Some(from) = from {
            of(from, |tally, bytes| {
                tally.entries = tally.entries.saturating_sub(1);
                tally.bytes = tally.bytes.saturating_sub(bytes);
            });
        }
        if let Some(to) = to {
            of(to, |tally, bytes| {
                tally.entries += 1;
                tally.bytes += bytes;
            });
        }
    }

    // === claims ===

    pub(super) fn claim(&mut self, id: EntryId) -> bool {
        self.claimed.insert(id)
    }

    pub(super) fn unclaim(&mut self, ids: impl Iterator<Item = EntryId>) {
        for id in ids {
            self.claimed.remove(&id);
        }
    }

    pub(super) fn is_claimed(&self, id: EntryId) -> bool {
        self.claimed.contains(&id)
    }

    pub(super) fn claimed(&self) -> u64 {
        u64::try_from(self.claimed.len()).unwrap_or(u64::MAX)
    }

    /// Claims outlive a store that was opened anew; those in `except` do not.
    pub(super) fn adopt_claims(&mut self, before: &Self, except: &HashSet<EntryId>) {
        let kept = before.claimed.iter().filter(|id| !except.contains(id));
        self.claimed = kept.copied().collect();
        self.next_id = self.next_id.max(before.next_id);
    }

    // === floors ===

    pub(super) fn floor(&self, prefix: &[u8]) -> Vec<u8> {
        self.floors
            .get(prefix)
            .cloned()
            .unwrap_or_else(|| prefix.to_vec())
    }

    /// There is no live row of `prefix` below `at`.
    pub(super) fn raise_floor(&mut self, prefix: &[u8], at: Vec<u8>) {
        self.floors.insert(prefix.to_vec(), at);
    }

    /// A row has come; whether it is a due row.
    fn lower_floor(&mut self, at: &[u8]) -> bool {
        let Some(prefix) = key::floored_prefix(at) else {
            return false;
        };
        if let Some(floor) = self.floors.get_mut(prefix)
            && floor.as_slice() > at
        {
            *floor = at.to_vec();
        }
        key::is_due(at)
    }

    pub(super) fn memories_floor(&self) -> Vec<u8> {
        self.memories_floor.clone()
    }

    // === figures ===

    pub(super) fn next_id(&self) -> u64 {
        self.next_id
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.tallies.keys().map(AsRef::as_ref)
    }

    /// Without the age of the oldest, which the rows know.
    pub(super) fn stats(&self) -> Vec<EndpointStats> {
        let figures = |(endpoint, tallies): (&Arc<str>, &[Tally; 3])| {
            let endpoint = endpoint.clone();
            Standing::ALL
                .into_iter()
                .zip(*tallies)
                .filter(|(_, tally)| tally.entries > 0)
                .map(|(standing, tally)| EndpointStats {
                    endpoint: endpoint.clone(),
                    standing,
                    entries: tally.entries,
                    bytes: tally.bytes,
                    oldest: None,
                })
                .collect::<Vec<_>>()
        };
        self.tallies.iter().flat_map(figures).collect()
    }
}
