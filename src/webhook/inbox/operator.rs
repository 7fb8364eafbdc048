//! What an operator asks of the inbox and gets to see: filters, pages, plans, figures.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::event::{Attempt, DeadReason, EntryId, Event};
use crate::kernel::clock::UnixMs;

/// Where an entry stands.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Standing {
    /// It is still to be delivered: due, waiting for its time or behind another of its order key.
    Pending,
    /// It is no longer attempted.
    Dead,
    /// Kept for a while to be looked at.
    Delivered,
}

impl Standing {
    /// In the order of the figures.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Dead, Self::Delivered];

    /// As metrics and the operator's window write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Dead => "dead",
            Self::Delivered => "delivered",
        }
    }
}

/// What exactly became of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Due at this time, or waiting behind another of its order key.
    Pending {
        due: Option<UnixMs>,
    },
    Dead {
        reason: DeadReason,
        at: UnixMs,
    },
    Delivered {
        at: UnixMs,
    },
}

impl State {
    /// Without the details.
    #[must_use]
    pub fn standing(self) -> Standing {
        match self {
            Self::Pending { .. } => Standing::Pending,
            Self::Dead { .. } => Standing::Dead,
            Self::Delivered { .. } => Standing::Delivered,
        }
    }
}

/// Which entries are meant; what is `None` does not matter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filter {
    pub endpoint: Option<Arc<str>>,
    pub standing: Option<Standing>,
    pub event_id: Option<String>,
    /// Received at this time or later.
    pub from: Option<UnixMs>,
    /// Received before this time.
    pub to: Option<UnixMs>,
    pub order: Order,
}

/// By the order of their append.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Order {
    #[default]
    NewestFirst,
    OldestFirst,
}

/// Entries by name or by filter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Selection {
    Ids(Vec<EntryId>),
    /// Every entry that matches when the verb begins.
    Matching(Filter),
}

/// How fast redelivered entries become due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spread {
    AtOnce,
    PerSecond(NonZeroU32),
}

impl Spread {
    /// When the entry with this number (0, 1, …) is due.
    #[must_use]
    pub fn due(self, now: UnixMs, number: u64) -> UnixMs {
        let after_ms = match self {
            Self::AtOnce => 0,
            Self::PerSecond(rate) => number.saturating_mul(1_000) / u64::from(rate.get()),
        };
        UnixMs(
            now.0
                .saturating_add(i64::try_from(after_ms).unwrap_or(i64::MAX)),
        )
    }
}

/// An entry without its body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Summary {
    pub id: EntryId,
    pub endpoint: Arc<str>,
    pub destination: Arc<str>,
    pub event_id: Arc<str>,
    pub received_at: UnixMs,
    /// As kept: body, headers and names.
    pub bytes: u64,
    pub state: State,
    /// Since it was received, or redelivered.
    pub attempts: u32,
    pub first_failed_at: Option<UnixMs>,
    /// When an operator last had it delivered again.
    pub redelivered_at: Option<UnixMs>,
    /// The latest ones, oldest first; redelivery does not forget them.
    pub history: Vec<Attempt>,
}

/// One page of a list.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Page {
    pub entries: Vec<Summary>,
    /// Where the next page begins; a page may be short, or empty, and still have a next one.
    pub next: Option<EntryId>,
}

/// One entry whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shown {
    pub summary: Summary,
    pub event: Event,
}

/// How much a verb would touch.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    pub entries: u64,
    pub bytes: u64,
}

/// Figures of the whole inbox.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Endpoints in order, each with what it has.
    pub endpoints: Vec<EndpointStats>,
    /// What the folder takes on disk.
    pub disk_bytes: u64,
    /// Claimed now and not settled.
    pub claimed: u64,
}

/// Figures of one endpoint in one standing; none where there is no entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointStats {
    pub endpoint: Arc<str>,
    pub standing: Standing,
    pub entries: u64,
    pub bytes: u64,
    /// When the oldest of them was received.
    pub oldest: Option<UnixMs>,
}

impl Stats {
    /// All endpoints together.
    #[must_use]
    pub fn total(&self, standing: Standing) -> Plan {
        let of = self.endpoints.iter().filter(|e| e.standing == standing);
        of.fold(Plan::default(), |sum, e| Plan {
            entries: sum.entries + e.entries,
            bytes: sum.bytes + e.bytes,
        })
    }
}
