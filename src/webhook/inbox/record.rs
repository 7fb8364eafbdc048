//! Values of the rows: a format byte, then postcard. A format this version does not know is an error
//! that says what to do, never a guess.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::event::{Attempt, DeadReason, EntryId, Event, Outcome};
use super::key::Lane;
use super::operator::{Standing, State, Summary};
use super::rows::{RowError, Table};
use crate::kernel::clock::UnixMs;

const FORMAT: u8 = 1;
/// Attempts that an entry remembers; the latest count.
pub(super) const HISTORY_MAX: usize = 16;
/// Of the words about an attempt without an answer.
const WORDS_BYTES_MAX: usize = 200;

/// The small row of an entry.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Record {
    pub(super) endpoint: String,
    pub(super) destination: String,
    pub(super) event_id: String,
    pub(super) received_at: i64,
    pub(super) bytes: u64,
    /// `None` once it no longer keeps an order.
    pub(super) lane: Option<Lane>,
    pub(super) state: StateRecord,
    pub(super) attempts: u32,
    pub(super) first_failed_at: Option<i64>,
    pub(super) redelivered_at: Option<i64>,
    history: Vec<AttemptRecord>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) enum StateRecord {
    /// `None`: behind the head of its lane, without a due row.
    Pending(Option<i64>),
    Dead(ReasonRecord, i64),
    Delivered(i64),
}

impl StateRecord {
    fn standing(self) -> Standing {
        match self {
            Self::Pending(_) => Standing::Pending,
            Self::Dead(..) => Standing::Dead,
            Self::Delivered(_) => Standing::Delivered,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) enum ReasonRecord {
    Refused,
    AttemptsExhausted,
    TooOld,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct AttemptRecord {
    at: i64,
    took_ms: u32,
    outcome: OutcomeRecord,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
enum OutcomeRecord {
    Status(u16),
    NoAnswer(String),
}

/// The first fields of a [`Record`], read without a copy: a start reads all of them.
#[derive(Deserialize)]
struct RecordHead<'a> {
    endpoint: &'a str,
    _destination: &'a str,
    _event_id: &'a str,
    _received_at: i64,
    bytes: u64,
    _lane: Option<Lane>,
    state: StateRecord,
}

/// Endpoint, bytes and standing of a record.
pub(super) fn tally(row: &[u8]) -> Result<(&str, u64, Standing), RowError> {
    let rest = formatted(row, Table::Entries)?;
    let (head, _): (RecordHead<'_>, &[u8]) =
        postcard::take_from_bytes(rest).map_err(|_| RowError::Garbled(Table::Entries))?;
    Ok((head.endpoint, head.bytes, head.state.standing()))
}

/// All of an event but its body, which follows as it is.
#[derive(Debug, Deserialize, Serialize)]
struct EventRecord<'a> {
    endpoint: &'a str,
    provider: &'a str,
    destination: &'a str,
    event_id: &'a str,
    received_at: i64,
    content_type: Option<&'a [u8]>,
    #[serde(borrow)]
    headers: Vec<(&'a str, &'a str)>,
    traceparent: Option<&'a str>,
    order_key: Option<&'a str>,
}

impl Record {
    /// Of an event that was just received; `bytes` as it is kept.
    pub(super) fn new(event: &Event, bytes: u64, lane: Option<Lane>) -> Self {
        Self {
            endpoint: event.endpoint.to_string(),
            destination: event.destination.to_string(),
            event_id: event.event_id.to_string(),
            received_at: event.received_at.0,
            bytes,
            lane,
            state: StateRecord::Pending(None),
            attempts: 0,
            first_failed_at: None,
            redelivered_at: None,
            history: Vec::new(),
        }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, RowError> {
        encode(self, Table::Entries)
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, RowError> {
        let rest = formatted(row, Table::Entries)?;
        postcard::from_bytes(rest).map_err(|_| RowError::Garbled(Table::Entries))
    }

    /// Counts an attempt; the oldest is forgotten when there are too many.
    pub(super) fn attempted(&mut self, attempt: &Attempt) {
        self.attempts = self.attempts.saturating_add(1);
        if self.history.len() >= HISTORY_MAX {
            self.history.remove(0);
        }
        self.history.push(AttemptRecord {
            at: attempt.at.0,
            took_ms: attempt.took_ms,
            outcome: match &attempt.outcome {
                Outcome::Status(status) => OutcomeRecord::Status(*status),
                Outcome::NoAnswer(words) => OutcomeRecord::NoAnswer(shortened(words)),
            },
        });
    }

    pub(super) fn state(&self) -> State {
        match self.state {
            StateRecord::Pending(due) => State::Pending {
                due: due.map(UnixMs),
            },
            StateRecord::Dead(reason, at) => State::Dead {
                reason: reason.into(),
                at: UnixMs(at),
            },
            StateRecord::Delivered(at) => State::Delivered { at: UnixMs(at) },
        }
    }

    pub(super) fn summary(self, id: EntryId) -> Summary {
        let state = self.state();
        Summary {
            id,
            endpoint: self.endpoint.into(),
            destination: self.destination.into(),
            event_id: self.event_id.into(),
            received_at: UnixMs(self.received_at),
            bytes: self.bytes,
            state,
            attempts: self.attempts,
            first_failed_at: self.first_failed_at.map(UnixMs),
            redelivered_at: self.redelivered_at.map(UnixMs),
            history: self.history.into_iter().map(Attempt::from).collect(),
        }
    }
}

impl From<AttemptRecord> for Attempt {
    fn from(record: AttemptRecord) -> Self {
        Self {
            at: UnixMs(record.at),
            took_ms: record.took_ms,
            outcome: match record.outcome {
                OutcomeRecord::Status(status) => Outcome::Status(status),
                OutcomeRecord::NoAnswer(words) => Outcome::NoAnswer(words),
            },
        }
    }
}

impl From<ReasonRecord> for DeadReason {
    fn from(record: ReasonRecord) -> Self {
        match record {
            ReasonRecord::Refused => Self::Refused,
            ReasonRecord::AttemptsExhausted => Self::AttemptsExhausted,
            ReasonRecord::TooOld => Self::TooOld,
        }
    }
}

impl From<DeadReason> for ReasonRecord {
    fn from(reason: DeadReason) -> Self {
        match reason {
            DeadReason::Refused => Self::Refused,
            DeadReason::AttemptsExhausted => Self::AttemptsExhausted,
            DeadReason::TooOld => Self::TooOld,
        }
    }
}

pub(super) fn encode_event(event: &Event) -> Result<Vec<u8>, RowError> {
    let headers = event.headers.iter();
    let record = EventRecord {
        endpoint: &event.endpoint,
        provider: &event.provider,
        destination: &event.destination,
        event_id: &event.event_id,
        received_at: event.received_at.0,
        content_type: event.content_type.as_deref(),
        headers: headers.map(|(n, v)| (n.as_str(), v.as_str())).collect(),
        traceparent: event.traceparent.as_deref(),
        order_key: event.order_key.as_deref(),
    };
    let mut row = encode(&record, Table::Bodies)?;
    row.extend_from_slice(&event.body);
    Ok(row)
}

pub(super) fn decode_event(row: Vec<u8>) -> Result<Event, RowError> {
    let row = Bytes::from(row);
    let rest = formatted(&row, Table::Bodies)?;
    let (record, body): (EventRecord<'_>, &[u8]) =
        postcard::take_from_bytes(rest).map_err(|_| RowError::Garbled(Table::Bodies))?;
    let headers = record.headers.into_iter();
    Ok(Event {
        endpoint: Arc::from(record.endpoint),
        provider: Arc::from(record.provider),
        destination: Arc::from(record.destination),
        event_id: Arc::from(record.event_id),
        received_at: UnixMs(record.received_at),
        content_type: record.content_type.map(|bytes| row.slice_ref(bytes)),
        headers: headers.map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        traceparent: record.traceparent.map(str::to_owned),
        order_key: record.order_key.map(Arc::from),
        body: row.slice_ref(body),
    })
}

fn encode<T: Serialize>(value: &T, table: Table) -> Result<Vec<u8>, RowError> {
    postcard::to_extend(value, vec![FORMAT]).map_err(|_| RowError::Garbled(table))
}

fn formatted(row: &[u8], table: Table) -> Result<&[u8], RowError> {
    match row.split_first() {
        Some((&FORMAT, rest)) => Ok(rest),
        Some((&found, _)) => Err(RowError::Format {
            table,
            found,
            known: FORMAT,
        }),
        None => Err(RowError::Garbled(table)),
    }
}

fn shortened(words: &str) -> String {
    let end = words.floor_char_boundary(WORDS_BYTES_MAX);
    words.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::inbox::conformance::event;

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let mut full = event("billing", "evt_1", b"{\"a\":1}");
        full.content_type = Some(Bytes::from_static(b"application/json"));
        full.headers = vec![("a".into(), "b".into()), ("c".into(), String::new())];
        full.traceparent = Some("00-1-2-01".into());
        full.order_key = Some("tenant-7".into());
        let bare = event("billing", "evt_2", b"");
        for event in [full, bare] {
            let row = encode_event(&event).unwrap();
            assert_eq!(decode_event(row).unwrap(), event);
        }
    }

    #[test]
    fn another_format_is_refused_with_a_way_out() {
        let mut row = encode_event(&event("billing", "evt_1", b"{}")).unwrap();
        row[0] = 2;
        let error = decode_event(row).unwrap_err().to_string();
        assert!(error.contains("format 2"), "{error}");
        assert!(error.contains("start the version that wrote"), "{error}");
        assert_eq!(
            Record::decode(&[]).unwrap_err(),
            RowError::Garbled(Table::Entries)
        );
        assert!(Record::decode(&[FORMAT, 1]).is_err());
    }

    #[test]
    fn history_is_bounded_and_the_count_goes_on() {
        let mut record = Record::new(&event("billing", "evt_1", b""), 10, None);
        let long = "é".repeat(500);
        for at in 0..20 {
            record.attempted(&Attempt {
                at: UnixMs(at),
                took_ms: 1,
                outcome: Outcome::NoAnswer(long.clone()),
            });
        }
        let record = Record::decode(&record.encode().unwrap()).unwrap();
        let row = record.encode().unwrap();
        assert_eq!(tally(&row).unwrap(), ("billing", 10, Standing::Pending));
        let summary = record.summary(EntryId(1));
        assert_eq!((summary.attempts, summary.history.len()), (20, HISTORY_MAX));
        assert_eq!(summary.history[0].at, UnixMs(4));
        let Outcome::NoAnswer(words) = &summary.history[0].outcome else {
            panic!("{:?}", summary.history[0]);
        };
        assert_eq!(words.len(), WORDS_BYTES_MAX);
    }
}
