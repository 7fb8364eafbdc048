//! What is read from the rows: claims, lists, figures. Changes no row.
//!
//! A claim and the end of one exclude each other by the ledger's lock: a scan under the lock that
//! still sees an entry's due row also sees its claim, because a claim ends only after the row went.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::event::{Claimed, EntryId};
use super::key;
use super::ledger::Ledger;
use super::operator::{EndpointStats, Filter, Order, Page, Shown, Standing};
use super::record::{Record, decode_event};
use super::rows::{RowError, StoredRows, Table};
use crate::kernel::clock::UnixMs;

/// Entries that one page looks at, whether they match or not.
const LOOK_MAX: usize = 10_000;
/// Ids fetched at a time.
const FETCH: usize = 256;

pub(super) fn locked(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    // Every change of the ledger is whole before anything in it can panic.
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Up to `max` entries that are due, oldest due time first.
pub(super) fn claim(
    rows: &dyn StoredRows,
    ledger: &Mutex<Ledger>,
    destination: &str,
    max: usize,
    now: UnixMs,
) -> Result<Vec<Claimed>, RowError> {
    let ids = take_due(rows, &mut locked(ledger), destination, max, now)?;
    let mut claimed = Vec::with_capacity(ids.len());
    for id in ids {
        match load(rows, id) {
            Ok(Some(entry)) => claimed.push(entry),
            // Its claim stays, so that it is said once and does not hold the others up.
            Ok(None) => tracing::error!(inbox.entry = %id, "an entry of the inbox has no body"),
            Err(error) => {
                tracing::error!(inbox.entry = %id, %error, "an entry of the inbox cannot be read");
            }
        }
    }
    Ok(claimed)
}

fn take_due(
    rows: &dyn StoredRows,
    ledger: &mut Ledger,
    destination: &str,
    max: usize,
    now: UnixMs,
) -> Result<Vec<EntryId>, RowError> {
    if max == 0 {
        return Ok(Vec::new());
    }
    let prefix = key::due_prefix(destination);
    let (from, to) = (ledger.floor(&prefix), key::due_after(destination, now));
    let mut ids = Vec::new();
    let mut first = None;
    if from < to {
        rows.scan(Table::Index, &from, &to, &mut |at, _| {
            first.get_or_insert_with(|| at.to_vec());
            if let Some(id) = key::id_of(at).filter(|id| !ledger.is_claimed(*id)) {
                ids.push(id);
            }
            match ids.len() >= max {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        ledger.raise_floor(&prefix, first.unwrap_or(to));
    }
    for id in &ids {
        ledger.claim(*id);
    }
    Ok(ids)
}

fn load(rows: &dyn StoredRows, id: EntryId) -> Result<Option<Claimed>, RowError> {
    let at = key::entry(id);
    let (Some(record), Some(body)) = (
        rows.get(Table::Entries, &at)?,
        rows.get(Table::Bodies, &at)?,
    ) else {
        return Ok(None);
    };
    let record = Record::decode(&record)?;
    let event = decode_event(body)?;
    Ok(Some(Claimed {
        id,
        patience_from: record.redelivered_at.map_or(event.received_at, UnixMs),
        event: Arc::new(event),
        attempts: record.attempts,
        first_failed_at: record.first_failed_at.map(UnixMs),
    }))
}

/// When the first unclaimed entry is due; in the past if one is due already.
pub(super) fn next_due(
    rows: &dyn StoredRows,
    ledger: &Mutex<Ledger>,
    destination: &str,
) -> Result<Option<UnixMs>, RowError> {
    let ledger = locked(ledger);
    let prefix = key::due_prefix(destination);
    let mut next = None;
    let to = key::end_of(&prefix);
    rows.scan(
        Table::Index,
        &ledger.floor(&prefix),
        &to,
        &mut |at, _| match key::id_of(at).filter(|id| !ledger.is_claimed(*id)) {
            Some(_) => {
                next = key::due_at(at);
                ControlFlow::Break(())
            }
            None => ControlFlow::Continue(()),
        },
    )?;
    Ok(next)
}

/// Figures with the age of the oldest; lifts the floors on its way.
pub(super) fn stats(
    rows: &dyn StoredRows,
    ledger: &Mutex<Ledger>,
) -> Result<Vec<EndpointStats>, RowError> {
    let mut stats = locked(ledger).stats();
    for figures in &mut stats {
        let prefix = key::listed_prefix(figures.standing, &figures.endpoint);
        let to = key::end_of(&prefix);
        let oldest = {
            let mut ledger = locked(ledger);
            let mut first = None;
            rows.scan(Table::Index, &ledger.floor(&prefix), &to, &mut |at, _| {
                first = Some(at.to_vec());
                ControlFlow::Break(())
            })?;
            if let Some(first) = &first {
                ledger.raise_floor(&prefix, first.clone());
            }
            first.as_deref().and_then(key::id_of)
        };
        if let Some(id) = oldest
            && let Some(row) = rows.get(Table::Entries, &key::entry(id))?
        {
            figures.oldest = Some(UnixMs(Record::decode(&row)?.received_at));
        }
    }
    Ok(stats)
}

/// Entries that match, from `cursor` on.
pub(super) fn list(
    rows: &dyn StoredRows,
    ledger: &Mutex<Ledger>,
    filter: &Filter,
    cursor: Option<EntryId>,
    limit: usize,
) -> Result<Page, RowError> {
    let mut page = Page::default();
    let (mut cursor, mut looked_at) = (cursor, 0);
    loop {
        let ids = candidates(rows, ledger, filter, cursor)?;
        if ids.is_empty() {
            return Ok(page);
        }
        for id in ids {
            if page.entries.len() >= limit || looked_at >= LOOK_MAX {
                page.next = Some(id);
                return Ok(page);
            }
            looked_at += 1;
            cursor = after(id, filter.order);
            if let Some(row) = rows.get(Table::Entries, &key::entry(id))? {
                let record = Record::decode(&row)?;
                if matches(filter, &record) {
                    page.entries.push(record.summary(id));
                }
            }
            if cursor.is_none() {
                return Ok(page);
            }
        }
    }
}

pub(super) fn show(rows: &dyn StoredRows, id: EntryId) -> Result<Option<Shown>, RowError> {
    let at = key::entry(id);
    let (Some(record), Some(body)) = (
        rows.get(Table::Entries, &at)?,
        rows.get(Table::Bodies, &at)?,
    ) else {
        return Ok(None);
    };
    Ok(Some(Shown {
        summary: Record::decode(&record)?.summary(id),
        event: decode_event(body)?,
    }))
}

fn matches(filter: &Filter, record: &Record) -> bool {
    let at = UnixMs(record.received_at);
    let standing = record.state().standing();
    filter
        .endpoint
        .as_ref()
        .is_none_or(|e| **e == *record.endpoint)
        && filter.standing.is_none_or(|s| s == standing)
        && filter
            .event_id
            .as_ref()
            .is_none_or(|e| *e == record.event_id)
        && filter.from.is_none_or(|from| at >= from)
        && filter.to.is_none_or(|to| at < to)
}

/// Some ids that may match, in order, from `cursor` on; none when there are no more.
fn candidates(
    rows: &dyn StoredRows,
    ledger: &Mutex<Ledger>,
    filter: &Filter,
    cursor: Option<EntryId>,
) -> Result<Vec<EntryId>, RowError> {
    let mut ids = Vec::new();
    if let Some(event_id) = &filter.event_id {
        let prefix = key::event_prefix(event_id);
        fetch(rows, Table::Index, &prefix, filter.order, cursor, &mut ids)?;
    } else if filter.endpoint.is_none() && filter.standing.is_none() {
        fetch(rows, Table::Entries, &[], filter.order, cursor, &mut ids)?;
    } else {
        let endpoints: Vec<String> = match &filter.endpoint {
            Some(endpoint) => vec![endpoint.to_string()],
            None => locked(ledger).endpoints().map(str::to_owned).collect(),
        };
        for standing in Standing::ALL {
            if filter.standing.is_some_and(|wanted| wanted != standing) {
                continue;
            }
            for endpoint in &endpoints {
                let prefix = key::listed_prefix(standing, endpoint);
                fetch(rows, Table::Index, &prefix, filter.order, cursor, &mut ids)?;
            }
        }
        match filter.order {
            Order::NewestFirst => ids.sort_unstable_by(|a, b| b.cmp(a)),
            Order::OldestFirst => ids.sort_unstable(),
        }
        // Beyond these, one of the lists may have others in between.
        ids.truncate(FETCH);
    }
    Ok(ids)
}

fn fetch(
    rows: &dyn StoredRows,
    table: Table,
    prefix: &[u8],
    order: Order,
    cursor: Option<EntryId>,
    ids: &mut Vec<EntryId>,
) -> Result<(), RowError> {
    let at = |id: EntryId| [prefix, id.0.to_be_bytes().as_slice()].concat();
    let before = ids.len();
    let mut take = |key: &[u8], _: &[u8]| {
        ids.extend(key::id_of(key));
        match ids.len() - before >= FETCH {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    match order {
        Order::OldestFirst => {
            let from = cursor.map_or(prefix.to_vec(), at);
            rows.scan(table, &from, &key::end_of(prefix), &mut take)
        }
        Order::NewestFirst => {
            let to = match cursor.and_then(|id| id.0.checked_add(1)) {
                Some(next) => at(EntryId(next)),
                None => key::end_of(prefix),
            };
            rows.scan_back(table, prefix, &to, &mut take)
        }
    }
}

/// The next id to look at; `None` at the end of all ids.
fn after(id: EntryId, order: Order) -> Option<EntryId> {
    match order {
        Order::NewestFirst => id.0.checked_sub(1),
        Order::OldestFirst => id.0.checked_add(1),
    }
    .map(EntryId)
}
