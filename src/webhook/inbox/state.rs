//! What each command does to the rows: a state machine without I/O. A [`Desk`] takes the commands of
//! one batch one after the other, each sees what the ones before it changed, and gives back one
//! [`Change`] to write as a whole.
//!
//! Lanes: of the entries with one order key only the head has a due row. When the head is delivered,
//! dead, discarded or gives its order up, the next one becomes head and is due at once. An entry
//! that an operator redelivers keeps no order: its turn has passed.

use std::ops::ControlFlow;

use super::Policy;
use super::event::{EntryId, Event, Memory, Settlement, Unwritable};
use super::key::{self, Lane};
use super::ledger::{Ledger, Totals};
use super::operator::Standing;
use super::record::{Record, StateRecord, encode_event};
use super::rows::{RowError, Rows, Table, View, Writes};
use crate::kernel::clock::UnixMs;

/// Rows that one step of expiry looks at, of each kind.
pub(super) const EXPIRE_STEP: usize = 2_000;
/// Entries within their time that a step of expiry looks past.
const KEPT_MAX: usize = 64;

/// What a batch changes.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) writes: Writes,
    pub(super) moves: Vec<Move>,
    /// Claims that end.
    pub(super) settled: Vec<EntryId>,
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

/// One command at work.
struct Step<'a> {
    view: View<'a>,
    moves: Vec<Move>,
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
        let mut step = self.step();
        let prefix = key::listed_prefix(standing, endpoint);
        let from = (self.floor_of)(&prefix);
        let listed = step.keys(Table::Index, &from, &key::end_of(&prefix), EXPIRE_STEP)?;
        let (mut removed, mut kept) = (0, 0);
        let looked_at = listed.len();
        for id in listed.iter().filter_map(|key| key::id_of(key)) {
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
        for endpoint in &self.endpoints {
            let prefix = key::listed_prefix(Standing::Delivered, endpoint);
            let from = (self.floor_of)(&prefix);
            let step = self.step();
            let listed = step.keys(Table::Index, &from, &key::end_of(&prefix), EXPIRE_STEP)?;
            oldest.extend(listed.iter().filter_map(|key| key::id_of(key)));
        }
        oldest.sort_unstable();
        oldest.truncate(EXPIRE_STEP);
        for id in oldest {
            if self.totals.delivered_bytes <= enough {
                return Ok(false);
            }
            self.discard(id, now)?;
        }
        Ok(self.delivered_is_over())
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
            self.totals.apply(moved);
        }
        self.change.moves.extend(moves);
    }
}

fn failed(error: RowError) -> Unwritable {
    Unwritable::Failed(error.to_string())
}

impl Step<'_> {
    fn done(self) -> (Writes, Vec<Move>) {
        (self.view.own, self.moves)
    }

    fn read(&self, id: EntryId) -> Result<Option<Record>, RowError> {
        let row = self.view.get(Table::Entries, &key::entry(id))?;
        row.map(|row| Record::decode(&row)).transpose()
    }

    fn write(&mut self, id: EntryId, record: &Record) -> Result<(), RowError> {
        let row = record.encode()?;
        self.view.put(Table::Entries, key::entry(id), row);
        Ok(())
    }

    fn remember(&mut self, memories: &[Memory]) {
        for memory in memories {
            let row = key::memory(memory);
            self.view.put(Table::Memories, row, Vec::new());
        }
    }

    fn keys(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        most: usize,
    ) -> Result<Vec<Vec<u8>>, RowError> {
        let mut keys = Vec::new();
        self.view.scan(table, from, to, &mut |key, _| {
            keys.push(key.to_vec());
            match keys.len() >= most {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        Ok(keys)
    }

    /// Takes a place in the lane; whether it is the first.
    fn may_go(&mut self, lane: Option<Lane>, id: EntryId) -> Result<bool, RowError> {
        let Some(lane) = lane else {
            return Ok(true);
        };
        self.view
            .put(Table::Index, key::lane(&lane, id), Vec::new());
        let head = key::head(&lane);
        let free = self.view.get(Table::Index, &head)?.is_none();
        if free {
            self.view.put(Table::Index, head, key::entry(id));
        }
        Ok(free)
    }

    /// Gives the place in the lane up; the next entry may go when this one was the head.
    fn leave_lane(
        &mut self,
        id: EntryId,
        record: &mut Record,
        now: UnixMs,
    ) -> Result<(), RowError> {
        let Some(lane) = record.lane.take() else {
            return Ok(());
        };
        self.view.remove(Table::Index, key::lane(&lane, id));
        let head = key::head(&lane);
        let heads = self.view.get(Table::Index, &head)?;
        if heads.as_deref().and_then(key::id_of) != Some(id) {
            return Ok(());
        }
        // Whoever was before this one has left, so there is no need to look from the lane's start.
        let from = key::lane(&lane, EntryId(id.0.saturating_add(1)));
        let to = key::end_of(&key::lane(&lane, EntryId(u64::MAX)));
        let next = self.keys(Table::Index, &from, &to, 1)?;
        let Some(next) = next.first().and_then(|key| key::id_of(key)) else {
            self.view.remove(Table::Index, head);
            return Ok(());
        };
        self.view.put(Table::Index, head, key::entry(next));
        if let Some(mut record) = self.read(next)? {
            self.set_due(next, &mut record, Some(now));
            self.write(next, &record)?;
        }
        Ok(())
    }

    /// Of a pending record: moves the due row, `None` takes it away.
    fn set_due(&mut self, id: EntryId, record: &mut Record, due: Option<UnixMs>) {
        if let StateRecord::Pending(Some(was)) = record.state {
            let row = key::due(&record.destination, UnixMs(was), id);
            self.view.remove(Table::Index, row);
        }
        if let Some(due) = due {
            let row = key::due(&record.destination, due, id);
            self.view.put(Table::Index, row, Vec::new());
        }
        record.state = StateRecord::Pending(due.map(|due| due.0));
    }

    fn settle(
        &mut self,
        id: EntryId,
        settlement: &Settlement,
        now: UnixMs,
    ) -> Result<(), RowError> {
        let Some(mut record) = self.read(id)? else {
            return Ok(());
        };
        if !matches!(record.state, StateRecord::Pending(_)) {
            return Ok(());
        }
        match settlement {
            Settlement::Unclaim => return Ok(()),
            Settlement::Delivered(attempt) => {
                record.attempted(attempt);
                self.end(id, &mut record, StateRecord::Delivered(now.0), now)?;
            }
            Settlement::Dead { attempt, reason } => {
                record.attempted(attempt);
                record.first_failed_at.get_or_insert(attempt.at.0);
                let state = StateRecord::Dead((*reason).into(), now.0);
                self.end(id, &mut record, state, now)?;
            }
            Settlement::Retry {
                attempt,
                due,
                yield_order,
            } => {
                record.attempted(attempt);
                record.first_failed_at.get_or_insert(attempt.at.0);
                self.set_due(id, &mut record, Some(*due));
                if *yield_order {
                    self.leave_lane(id, &mut record, now)?;
                }
            }
        }
        self.write(id, &record)
    }

    /// From pending to dead or delivered.
    fn end(
        &mut self,
        id: EntryId,
        record: &mut Record,
        state: StateRecord,
        now: UnixMs,
    ) -> Result<(), RowError> {
        self.set_due(id, record, None);
        self.leave_lane(id, record, now)?;
        self.relist(id, record, state);
        Ok(())
    }

    fn relist(&mut self, id: EntryId, record: &mut Record, state: StateRecord) {
        let from = record.state().standing();
        record.state = state;
        let to = record.state().standing();
        let was = key::listed(from, &record.endpoint, id);
        self.view.remove(Table::Index, was);
        let is = key::listed(to, &record.endpoint, id);
        self.view.put(Table::Index, is, Vec::new());
        self.moves.push(Move {
            endpoint: record.endpoint.clone(),
            bytes: record.bytes,
            from: Some(from),
            to: Some(to),
        });
    }

    fn redeliver(&mut self, id: EntryId, due: UnixMs, now: UnixMs) -> Result<bool, RowError> {
        let Some(mut record) = self.read(id)? else {
            return Ok(false);
        };
        match record.state {
            // Behind another: it goes as soon as that one is done.
            StateRecord::Pending(None) => return Ok(false),
            StateRecord::Pending(Some(_)) => self.set_due(id, &mut record, Some(due)),
            StateRecord::Dead(..) | StateRecord::Delivered(_) => {
                self.relist(id, &mut record, StateRecord::Pending(None));
                self.set_due(id, &mut record, Some(due));
            }
        }
        // The policy's patience begins anew.
        record.attempts = 0;
        record.first_failed_at = None;
        record.redelivered_at = Some(now.0);
        self.write(id, &record)?;
        Ok(true)
    }

    fn erase(&mut self, id: EntryId, mut record: Record, now: UnixMs) -> Result<(), RowError> {
        let standing = record.state().standing();
        if standing == Standing::Pending {
            self.set_due(id, &mut record, None);
        }
        self.leave_lane(id, &mut record, now)?;
        self.view.remove(Table::Bodies, key::entry(id));
        self.view.remove(Table::Entries, key::entry(id));
        let listed = key::listed(standing, &record.endpoint, id);
        self.view.remove(Table::Index, listed);
        let by_event = key::event(&record.event_id, id);
        self.view.remove(Table::Index, by_event);
        self.moves.push(Move {
            endpoint: record.endpoint,
            bytes: record.bytes,
            from: Some(standing),
            to: None,
        });
        Ok(())
    }
}
