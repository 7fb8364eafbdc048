//! One command at work on the rows of entries: what it means to settle, redeliver or erase one.
//!
//! Lanes: of the entries with one order key only the head has a due row. When the head is delivered,
//! dead, discarded or gives its order up, the next one becomes head and is due at once. An entry
//! that an operator redelivers keeps no order: its turn has passed.

use std::ops::ControlFlow;

use super::event::{EntryId, Memory, Settlement};
use super::key::{self, Lane};
use super::operator::Standing;
use super::record::{Record, StateRecord};
use super::rows::{RowError, Rows, Table, View, Writes};
use super::state::Move;
use crate::kernel::clock::UnixMs;

/// One command at work.
pub(super) struct Step<'a> {
    pub(super) view: View<'a>,
    pub(super) moves: Vec<Move>,
}

impl Step<'_> {
    pub(super) fn done(self) -> (Writes, Vec<Move>) {
        (self.view.own, self.moves)
    }

    pub(super) fn read(&self, id: EntryId) -> Result<Option<Record>, RowError> {
        let row = self.view.get(Table::Entries, &key::entry(id))?;
        row.map(|row| Record::decode(&row)).transpose()
    }

    pub(super) fn write(&mut self, id: EntryId, record: &Record) -> Result<(), RowError> {
        let row = record.encode()?;
        self.view.put(Table::Entries, key::entry(id), row);
        Ok(())
    }

    pub(super) fn remember(&mut self, memories: &[Memory]) {
        for memory in memories {
            let row = key::memory(memory);
            self.view.put(Table::Memories, row, Vec::new());
        }
    }

    pub(super) fn keys(
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
    pub(super) fn may_go(&mut self, lane: Option<Lane>, id: EntryId) -> Result<bool, RowError> {
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
    pub(super) fn leave_lane(
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
    pub(super) fn set_due(&mut self, id: EntryId, record: &mut Record, due: Option<UnixMs>) {
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

    pub(super) fn settle(
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
    pub(super) fn end(
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

    pub(super) fn relist(&mut self, id: EntryId, record: &mut Record, state: StateRecord) {
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

    pub(super) fn redeliver(
        &mut self,
        id: EntryId,
        due: UnixMs,
        now: UnixMs,
    ) -> Result<bool, RowError> {
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

    pub(super) fn erase(
        &mut self,
        id: EntryId,
        mut record: Record,
        now: UnixMs,
    ) -> Result<(), RowError> {
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
