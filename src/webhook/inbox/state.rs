//! What each command does to the rows: a state machine without I/O. A [`Desk`] takes the commands of
//! one batch one after the other, each sees what the ones before it changed, and gives back one
//! [`Change`] to write as a whole.

use super::Policy;
use super::event::{EntryId, Event, Memory, Settlement, Unwritable};
use super::key;
use super::ledger::{Ledger, Totals};
use super::operator::Standing;
use super::record::{Record, StateRecord, encode_event};
use super::rows::{RowError, Rows, Table, View, Writes};
use super::step::Step;
use crate::kernel::clock::UnixMs;

/// Rows that one step of expiry looks at, of each kind.
const EXPIRE_STEP: usize = 2_000;
/// Entries within their time that a step of expiry looks past.
const KEPT_MAX: usize = 64;

/// What a batch changes.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) writes: Writes,
    pub(super) moves: Vec<Move>,
    /// Claims that end.
    pub(super) settled: Vec<EntryId>,
    /// Prefixes, and the first live row that was found of each.
    pub(super) floors: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An entry comes, goes or stands elsewhere.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Move {
    pub(super) endpoint: String,
    pub(super) bytes: u64,
    pub(super) from: Option<Standing>,
    pub(super) to: Option<Standing>,
}

/// Takes the commands of one batch.
pub(super) struct Desk<'a> {
    stored: &'a dyn Rows,
    policy: &'a Policy,
    totals: Totals,
    next_id: u64,
    memories_floor: Vec<u8>,
    floor_of: &'a dyn Fn(&[u8]) -> Vec<u8>,
    endpoints: Vec<String>,
    change: Change,
}

impl<'a> Desk<'a> {
    /// `floor_of` tells where the rows of a prefix begin.
    pub(super) fn new(
        stored: &'a dyn Rows,
        policy: &'a Policy,
        ledger: &Ledger,
        floor_of: &'a dyn Fn(&[u8]) -> Vec<u8>,
    ) -> Self {
        Self {
            stored,
            policy,
            totals: ledger.totals(),
            next_id: ledger.next_id(),
            memories_floor: ledger.memories_floor(),
            floor_of,
            endpoints: ledger.endpoints().map(str::to_owned).collect(),
            change: Change::default(),
        }
    }

    /// What all commands together change.
    pub(super) fn close(self) -> Change {
        self.change
    }

    pub(super) fn append(
        &mut self,
        event: &Event,
        memories: &[Memory],
    ) -> Result<EntryId, Unwritable> {
        let id = EntryId(self.next_id);
        let body = encode_event(event).map_err(failed)?;
        let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
        self.room_for(bytes)?;
        let mut step = self.step();
        step.view.put(Table::Bodies, key::entry(id), body);
        let endpoint = &event.endpoint;
        let listed = key::listed(Standing::Pending, endpoint, id);
        step.view.put(Table::Index, listed, Vec::new());
        let by_event = key::event(&event.event_id, id);
        step.view.put(Table::Index, by_event, Vec::new());
        let next = (id.0 + 1).to_be_bytes().to_vec();
        step.view.put(Table::Index, key::next_id(), next);
        step.remember(memories);
        let lane = key::lane_of(event);
        let mut record = Record::new(event, bytes, lane);
        if step.may_go(lane, id).map_err(failed)? {
            step.set_due(id, &mut record, Some(event.received_at));
        }
        step.write(id, &record).map_err(failed)?;
        step.moves.push(Move {
            endpoint: record.endpoint,
            bytes,
            from: None,
            to: Some(Standing::Pending),
        });
        let done = step.done();
        self.take(done);
        self.next_id += 1;
        Ok(id)
    }

    pub(super) fn remember(&mut self, memories: &[Memory]) {
        let mut step = self.step();
        step.remember(memories);
        let done = step.done();
        self.take(done);
    }

    /// Settles one claim. An entry that was discarded meanwhile stays gone.
    pub(super) fn settle(
        &mut self,
        id: EntryId,
        settlement: &Settlement,
        now: UnixMs,
    ) -> Result<(), RowError> {
        self.change.settled.push(id);
        let mut step = self.step();
        step.settle(id, settlement, now)?;
        let done = step.done();
        self.take(done);
        Ok(())
    }

    /// Makes an entry due at `due`; false where there is none, or where it waits for its turn.
    pub(super) fn redeliver(
        &mut self,
        id: EntryId,
        due: UnixMs,
        now: UnixMs,
    ) -> Result<bool, RowError> {
        let mut step = self.step();
        let touched = step.redeliver(id, due, now)?;
        let done = step.done();
        self.take(done);
        Ok(touched)
    }

    /// Removes an entry for good; false where there is none.
    pub(super) fn discard(&mut self, id: EntryId, now: UnixMs) -> Result<bool, RowError> {
        let mut step = self.step();
        let found = match step.read(id)? {
            Some(record) => {
                step.erase(id, record, now)?;
                true
            }
            None => false,
        };
        let done = step.done();
        self.take(done);
        Ok(found)
    }

    /// Forgets what is past its time, a bounded number of rows; true = there may be more.
    pub(super) fn expire(&mut self, now: UnixMs) -> Result<bool, RowError> {
        let mut more = self.expire_memories(now)?;
        for (standing, keep_s) in [
            (Standing::Delivered, self.policy.delivered_keep_s),
            (Standing::Dead, self.policy.dead_keep_s),
        ] {
            let ended_before = UnixMs(now.0.saturating_sub(i64::from(keep_s) * 1_000));
            for endpoint in self.endpoints.clone() {
                more |= self.expire_ended(standing, &endpoint, ended_before, now)?;
            }
        }
        more |= self.shrink_delivered(now)?;
        Ok(more)
    }

    fn expire_memories(&mut self, now: UnixMs) -> Result<bool, RowError> {
        let mut step = self.step();
        let floor = &self.memories_floor;
        let to = key::memories_after(now);
        let expired = step.keys(Table::Memories, floor, &to, EXPIRE_STEP)?;
        let more = expired.len() == EXPIRE_STEP;
        for key in expired {
            step.view.remove(Table::Memories, key);
        }
        let done = step.done();
        self.take(done);
        Ok(more)
    }

    fn expire_ended(
        &mut self,
        standing: Standing,
        endpoint: &str,
        ended_before: UnixMs,
        now: UnixMs,
    ) -> Result<bool, RowError> {
        let listed = self.oldest(standing, endpoint)?;
        let mut step = self.step();
        let (mut removed, mut kept) = (0, 0);
        let looked_at = listed.len();
        for id in listed {
            let Some(record) = step.read(id)? else {
                continue;
            };
            let ended_at = match record.state {
                StateRecord::Pending(_) => continue,
                StateRecord::Dead(_, at) | StateRecord::Delivered(at) => at,
            };
            if ended_at < ended_before.0 {
                step.erase(id, record, now)?;
                removed += 1;
            } else {
                kept += 1;
            }
            // They ended in nearly this order, so those behind are not past their time either.
            if kept == KEPT_MAX {
                break;
            }
        }
        let done = step.done();
        self.take(done);
        Ok(removed > 0 && looked_at == EXPIRE_STEP)
    }

    /// Whether delivered entries take more than they may.
    pub(super) fn delivered_is_over(&self) -> bool {
        self.totals.delivered_bytes > self.policy.delivered_bytes_max
    }

    /// Delivered entries beyond their bytes go, oldest first, and a few more, so that it is not to be
    /// done again with the next one.
    pub(super) fn shrink_delivered(&mut self, now: UnixMs) -> Result<bool, RowError> {
        if !self.delivered_is_over() {
            return Ok(false);
        }
        let enough = self.policy.delivered_bytes_max / 16 * 15;
        let mut oldest = Vec::new();
        for endpoint in self.endpoints.clone() {
            oldest.extend(self.oldest(Standing::Delivered, &endpoint)?);
        }
        oldest.sort_unstable();
        oldest.truncate(EXPIRE_STEP);
        let mut removed = false;
        for id in oldest {
            if self.totals.delivered_bytes <= enough {
                return Ok(false);
            }
            removed |= self.discard(id, now)?;
        }
        Ok(removed && self.delivered_is_over())
    }

    /// The first entries of a list. What was removed before them is not walked over again.
    fn oldest(&mut self, standing: Standing, endpoint: &str) -> Result<Vec<EntryId>, RowError> {
        let prefix = key::listed_prefix(standing, endpoint);
        let (from, to) = ((self.floor_of)(&prefix), key::end_of(&prefix));
        let listed = self.step().keys(Table::Index, &from, &to, EXPIRE_STEP)?;
        let ids = listed.iter().filter_map(|key| key::id_of(key)).collect();
        let floor = listed.into_iter().next().unwrap_or(to);
        self.change.floors.push((prefix, floor));
        Ok(ids)
    }

    fn room_for(&self, bytes: u64) -> Result<(), Unwritable> {
        let limit = if self.totals.held_entries >= self.policy.entries_max {
            "inbox.entries_max"
        } else if self.totals.held_bytes.saturating_add(bytes) > self.policy.bytes_max {
            "inbox.bytes_max"
        } else {
            return Ok(());
        };
        Err(Unwritable::Full { limit })
    }

    fn step(&self) -> Step<'_> {
        Step {
            view: View {
                stored: self.stored,
                batch: &self.change.writes,
                own: Writes::default(),
            },
            moves: Vec::new(),
        }
    }

    fn take(&mut self, (writes, moves): (Writes, Vec<Move>)) {
        self.change.writes.extend(writes);
        for moved in &moves {
            self.totals.count(moved.bytes, moved.from, moved.to);
        }
        self.change.moves.extend(moves);
    }
}

fn failed(error: RowError) -> Unwritable {
    Unwritable::Failed(error.to_string())
}
