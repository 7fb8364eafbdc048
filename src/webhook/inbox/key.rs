//! Keys of the rows. Numbers are big-endian, so that the order of keys is the order of what they name.
//!
//! Index: `due` (destination, time, id), `lane` (order key, id), `head` (order key → the id that may
//! go), `listed` (standing, endpoint, id), `event` (event id, id), `mark` (name).

use sha2::{Digest, Sha256};

use super::event::{EntryId, Event, Memory, MemoryOf};
use super::operator::Standing;
use crate::kernel::clock::UnixMs;
use crate::webhook::replay::ReplayKey;

const DUE: u8 = 1;
const LANE: u8 = 2;
const HEAD: u8 = 3;
const LISTED: u8 = 4;
const EVENT: u8 = 5;
const MARK: u8 = 6;

/// Names the order that an entry must keep: endpoint and order key.
pub(super) type Lane = [u8; 16];

pub(super) fn entry(id: EntryId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

/// The id at the end of a key, or in a value.
pub(super) fn id_of(key: &[u8]) -> Option<EntryId> {
    key.last_chunk()
        .map(|bytes| EntryId(u64::from_be_bytes(*bytes)))
}

pub(super) fn due_prefix(destination: &str) -> Vec<u8> {
    named(vec![DUE], destination)
}

pub(super) fn due(destination: &str, at: UnixMs, id: EntryId) -> Vec<u8> {
    let mut key = due_prefix(destination);
    key.extend(time(at));
    key.extend(id.0.to_be_bytes());
    key
}

/// The first key that is due later than `now`.
pub(super) fn due_after(destination: &str, now: UnixMs) -> Vec<u8> {
    due(destination, UnixMs(now.0.saturating_add(1)), EntryId(0))
}

pub(super) fn is_due(key: &[u8]) -> bool {
    key.first() == Some(&DUE)
}

/// When the entry of a due row is due.
pub(super) fn due_at(key: &[u8]) -> Option<UnixMs> {
    let at = key
        .len()
        .checked_sub(16)
        .and_then(|at| key.get(at..at + 8))?;
    at.try_into()
        .ok()
        .map(|bytes| UnixMs(i64::try_from(u64::from_be_bytes(bytes)).unwrap_or(i64::MAX)))
}

pub(super) fn lane_of(event: &Event) -> Option<Lane> {
    let order_key = event.order_key.as_ref()?;
    let mut hash = Sha256::new();
    hash.update(named(Vec::new(), &event.endpoint));
    hash.update(order_key.as_bytes());
    hash.finalize().first_chunk().copied()
}

pub(super) fn lane(lane: &Lane, id: EntryId) -> Vec<u8> {
    let mut key = vec![LANE];
    key.extend(lane);
    key.extend(id.0.to_be_bytes());
    key
}

pub(super) fn head(lane: &Lane) -> Vec<u8> {
    let mut key = vec![HEAD];
    key.extend(lane);
    key
}

pub(super) fn listed_prefix(standing: Standing, endpoint: &str) -> Vec<u8> {
    named(vec![LISTED, standing_tag(standing)], endpoint)
}

pub(super) fn listed(standing: Standing, endpoint: &str, id: EntryId) -> Vec<u8> {
    let mut key = listed_prefix(standing, endpoint);
    key.extend(id.0.to_be_bytes());
    key
}

pub(super) fn event_prefix(event_id: &str) -> Vec<u8> {
    let mut key = vec![EVENT];
    key.extend(Sha256::digest(event_id.as_bytes()).iter().take(8));
    key
}

pub(super) fn event(event_id: &str, id: EntryId) -> Vec<u8> {
    let mut key = event_prefix(event_id);
    key.extend(id.0.to_be_bytes());
    key
}

/// The id that the next entry gets.
pub(super) fn next_id() -> Vec<u8> {
    [&[MARK], b"next_id".as_slice()].concat()
}

/// Written to see whether writing works.
pub(super) fn probe() -> Vec<u8> {
    [&[MARK], b"probe".as_slice()].concat()
}

pub(super) fn memory(memory: &Memory) -> Vec<u8> {
    let mut key = time(memory.until).to_vec();
    key.push(match memory.of {
        MemoryOf::Message => 1,
        MemoryOf::Event => 2,
    });
    key.extend(memory.key.0);
    key
}

/// The first key of what must still be remembered at `now`.
pub(super) fn memories_after(now: UnixMs) -> Vec<u8> {
    time(UnixMs(now.0.saturating_add(1))).to_vec()
}

pub(super) fn memory_of(key: &[u8]) -> Option<Memory> {
    let (until, rest) = key.split_first_chunk()?;
    let (of, digest) = rest.split_first()?;
    Some(Memory {
        of: match of {
            1 => MemoryOf::Message,
            2 => MemoryOf::Event,
            _ => return None,
        },
        key: ReplayKey(digest.try_into().ok()?),
        until: UnixMs(i64::try_from(u64::from_be_bytes(*until)).ok()?),
    })
}

/// The first key after all that begin with `prefix`, which ends with no run of 0xff.
pub(super) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    end.extend([0xff; 17]);
    end
}

/// A row of the index whose prefix has a floor: the prefix, told by the key's own form.
pub(super) fn floored_prefix(key: &[u8]) -> Option<&[u8]> {
    let tail = match *key.first()? {
        DUE => 16,
        LISTED => 8,
        _ => return None,
    };
    key.get(..key.len().checked_sub(tail)?)
}

/// Times before 1970 count as 1970.
fn time(at: UnixMs) -> [u8; 8] {
    at.0.max(0).unsigned_abs().to_be_bytes()
}

/// Length and text, so that no name is the beginning of another.
fn named(mut key: Vec<u8>, name: &str) -> Vec<u8> {
    // Names are checked where they enter and are far shorter.
    let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
    key.extend(length.to_be_bytes());
    key.extend(name.as_bytes().iter().take(usize::from(length)));
    key
}

fn standing_tag(standing: Standing) -> u8 {
    match standing {
        Standing::Pending => 1,
        Standing::Dead => 2,
        Standing::Delivered => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_rows_are_in_order_of_time_within_their_destination() {
        let rows = [
            due("api", UnixMs(1), EntryId(9)),
            due("api", UnixMs(256), EntryId(1)),
            due("api", UnixMs(256), EntryId(2)),
            due("apii", UnixMs(0), EntryId(0)),
        ];
        assert!(rows.is_sorted());
        assert!(rows[2] < due_after("api", UnixMs(256)));
        assert!(due_after("api", UnixMs(256)) < end_of(&due_prefix("api")));
        assert!(end_of(&due_prefix("api")) < rows[3]);
        assert_eq!(due_at(&rows[1]), Some(UnixMs(256)));
        assert_eq!(id_of(&rows[1]), Some(EntryId(1)));
        assert_eq!(floored_prefix(&rows[1]), Some(&*due_prefix("api")));
        let latest = due("api", UnixMs(i64::MAX), EntryId(u64::MAX));
        assert!(latest < end_of(&due_prefix("api")));
    }

    #[test]
    fn a_memory_is_its_key() {
        let kept = Memory {
            of: MemoryOf::Event,
            key: ReplayKey([7; 32]),
            until: UnixMs(1_000),
        };
        assert_eq!(memory_of(&memory(&kept)), Some(kept));
        assert!(memory(&kept) < memories_after(UnixMs(1_000)));
        assert!(memory(&kept) > memories_after(UnixMs(999)));
        assert_eq!(memory_of(b"short"), None);
    }
}
