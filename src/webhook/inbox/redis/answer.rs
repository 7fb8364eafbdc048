//! What the scripts answer, as the nouns of the inbox. A field that cannot be read is an error, never a
//! guess.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::kernel::clock::UnixMs;
use crate::webhook::inbox::Unreadable;
use crate::webhook::inbox::event::{Attempt, Claimed, DeadReason, EntryId, Outcome};
use crate::webhook::inbox::operator::{
    EndpointStats, Page, Shown, Standing, State, Stats, Summary,
};
use crate::webhook::inbox::record::decode_event;

/// One string of an answer, which may be any bytes.
pub(super) type Bulk = Vec<u8>;

/// Longest words kept of an attempt without an answer.
const WORDS_BYTES_MAX: usize = 200;

/// Named here, so that both directions are in one place.
const REASONS: [(DeadReason, &str); 3] = [
    (DeadReason::Refused, "refused"),
    (DeadReason::AttemptsExhausted, "attempts_exhausted"),
    (DeadReason::TooOld, "too_old"),
];

/// As the scripts write it.
pub(super) fn name(id: EntryId) -> String {
    format!("{:016x}", id.0)
}

pub(super) fn id(name: &str) -> Option<EntryId> {
    u64::from_str_radix(name, 16).ok().map(EntryId)
}

pub(super) fn reason_name(reason: DeadReason) -> &'static str {
    let named = REASONS.iter().find(|(known, _)| *known == reason);
    named.map_or("", |(_, name)| name)
}

#[derive(Deserialize, Serialize)]
struct AttemptText {
    at: i64,
    took_ms: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    no_answer: String,
}

pub(super) fn attempt_text(attempt: &Attempt) -> String {
    let (status, no_answer) = match &attempt.outcome {
        Outcome::Status(status) => (Some(*status), String::new()),
        Outcome::NoAnswer(words) => {
            let end = words.floor_char_boundary(WORDS_BYTES_MAX);
            (None, words.get(..end).unwrap_or_default().to_owned())
        }
    };
    let text = AttemptText {
        at: attempt.at.0,
        took_ms: attempt.took_ms,
        status,
        no_answer,
    };
    serde_json::to_string(&text).unwrap_or_default()
}

fn attempt(text: &[u8]) -> Result<Attempt, Unreadable> {
    let text: AttemptText = serde_json::from_slice(text).map_err(|_| garbled("an attempt"))?;
    Ok(Attempt {
        at: UnixMs(text.at),
        took_ms: text.took_ms,
        outcome: match text.status {
            Some(status) => Outcome::Status(status),
            None => Outcome::NoAnswer(text.no_answer),
        },
    })
}

fn garbled(what: &str) -> Unreadable {
    Unreadable(format!(
        "{what} is not as this version of maitred writes it; look at the keys under the prefix of the \
         inbox, or start the version that wrote them"
    ))
}

/// Fields of one answer, read one after the other.
struct Fields<'a>(std::slice::Iter<'a, Bulk>);

impl<'a> Fields<'a> {
    fn of(row: &'a [Bulk]) -> Self {
        Self(row.iter())
    }

    fn bytes(&mut self, what: &str) -> Result<&'a [u8], Unreadable> {
        self.0
            .next()
            .map(Vec::as_slice)
            .ok_or_else(|| garbled(what))
    }

    fn text(&mut self, what: &str) -> Result<&'a str, Unreadable> {
        std::str::from_utf8(self.bytes(what)?).map_err(|_| garbled(what))
    }

    fn number<N: std::str::FromStr>(&mut self, what: &str) -> Result<N, Unreadable> {
        self.text(what)?.parse().map_err(|_| garbled(what))
    }

    fn time(&mut self, what: &str) -> Result<Option<UnixMs>, Unreadable> {
        match self.text(what)? {
            "" => Ok(None),
            text => text
                .parse()
                .map(|ms| Some(UnixMs(ms)))
                .map_err(|_| garbled(what)),
        }
    }

    fn id(&mut self) -> Result<EntryId, Unreadable> {
        id(self.text("an id")?).ok_or_else(|| garbled("an id"))
    }
}

/// A claim and its place in the stream.
pub(super) fn claimed(row: &[Bulk]) -> Result<(Claimed, String), Unreadable> {
    let mut fields = Fields::of(row);
    let id = fields.id()?;
    let at = fields.text("a place in the stream")?.to_owned();
    let attempts = fields.number("a count of attempts")?;
    let first_failed_at = fields.time("a time of failure")?;
    let redelivered_at = fields.time("a time of redelivery")?;
    let event = decode_event(fields.bytes("an event")?.to_vec());
    let event = event.map_err(|error| Unreadable(error.to_string()))?;
    let claimed = Claimed {
        id,
        patience_from: redelivered_at.unwrap_or(event.received_at),
        event: Arc::new(event),
        attempts,
        first_failed_at,
    };
    Ok((claimed, at))
}

fn standing(name: &str) -> Result<Standing, Unreadable> {
    let known = Standing::ALL.into_iter().find(|s| s.name() == name);
    known.ok_or_else(|| garbled("a standing"))
}

fn summary(row: &[Bulk]) -> Result<Summary, Unreadable> {
    let mut fields = Fields::of(row);
    let id = fields.id()?;
    let standing = standing(fields.text("a standing")?)?;
    let endpoint = fields.text("an endpoint")?.into();
    let destination = fields.text("a destination")?.into();
    let event_id = fields.text("an event id")?.into();
    let received_at = UnixMs(fields.number("a time of receipt")?);
    let bytes = fields.number("a size")?;
    let due = fields.time("a due time")?;
    let reason = fields.text("a reason")?;
    let ended_at = fields.time("an end")?;
    let ended = || ended_at.ok_or_else(|| garbled("an end"));
    let state = match standing {
        Standing::Pending => State::Pending { due },
        Standing::Delivered => State::Delivered { at: ended()? },
        Standing::Dead => {
            let known = REASONS.iter().find(|(_, name)| *name == reason);
            let (reason, _) = known.ok_or_else(|| garbled("a reason"))?;
            State::Dead {
                reason: *reason,
                at: ended()?,
            }
        }
    };
    Ok(Summary {
        id,
        endpoint,
        destination,
        event_id,
        received_at,
        bytes,
        state,
        attempts: fields.number("a count of attempts")?,
        first_failed_at: fields.time("a time of failure")?,
        redelivered_at: fields.time("a time of redelivery")?,
        history: fields
            .0
            .map(|text| attempt(text))
            .collect::<Result<_, _>>()?,
    })
}

/// The cursor of the next page, then a row for each entry.
pub(super) fn page(rows: ::redis::Value) -> Result<Page, Unreadable> {
    let bad = |_| garbled("a page");
    let ::redis::Value::Array(rows) = rows else {
        return Err(garbled("a page"));
    };
    let mut rows = rows.into_iter();
    let next = rows.next().ok_or_else(|| garbled("a page"))?;
    let next: String = ::redis::from_redis_value(next).map_err(bad)?;
    let mut entries = Vec::new();
    for row in rows {
        let row: Vec<Bulk> = ::redis::from_redis_value(row).map_err(bad)?;
        entries.push(summary(&row)?);
    }
    Ok(Page {
        entries,
        next: id(&next),
    })
}

/// The event, then as in a page; empty where there is no such entry.
pub(super) fn shown(row: &[Bulk]) -> Result<Option<Shown>, Unreadable> {
    let Some((event, row)) = row.split_first() else {
        return Ok(None);
    };
    let event = decode_event(event.clone()).map_err(|error| Unreadable(error.to_string()))?;
    Ok(Some(Shown {
        summary: summary(row)?,
        event,
    }))
}

pub(super) fn stats(rows: &[Vec<Bulk>]) -> Result<Stats, Unreadable> {
    let (totals, rows) = rows.split_first().ok_or_else(|| garbled("the figures"))?;
    let mut totals = Fields::of(totals);
    let mut stats = Stats {
        claimed: totals.number("a count of claims")?,
        disk_bytes: totals.number("a size")?,
        endpoints: Vec::new(),
    };
    for row in rows {
        let mut fields = Fields::of(row);
        stats.endpoints.push(EndpointStats {
            endpoint: fields.text("an endpoint")?.into(),
            standing: standing(fields.text("a standing")?)?,
            entries: fields.number("a count")?,
            bytes: fields.number("a size")?,
            oldest: fields.time("a time of receipt")?,
        });
    }
    stats
        .endpoints
        .sort_by(|a, b| (&a.endpoint, a.standing).cmp(&(&b.endpoint, b.standing)));
    Ok(stats)
}
