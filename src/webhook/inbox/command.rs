//! Everything that changes rows, as one type, so that a batch can hold any mixture of it.

use super::event::{EntryId, Event, Memory, Settlement, Unwritable};
use super::rows::RowError;
use super::state::Desk;
use crate::kernel::clock::UnixMs;

#[derive(Clone, Debug)]
pub(super) enum Command {
    Append {
        event: Box<Event>,
        memories: Vec<Memory>,
    },
    Remember(Vec<Memory>),
    Settle {
        settled: Vec<(EntryId, Settlement)>,
        now: UnixMs,
    },
    /// Each entry with the time it is due.
    Redeliver {
        entries: Vec<(EntryId, UnixMs)>,
        now: UnixMs,
    },
    Discard {
        ids: Vec<EntryId>,
        now: UnixMs,
    },
    Expire {
        now: UnixMs,
    },
}

impl Command {
    /// Its result: the id that was given, entries touched, or (of `Expire`) 1 if there is more to do.
    pub(super) fn run(&self, desk: &mut Desk<'_>) -> Result<u64, Unwritable> {
        let failed = |error: RowError| Unwritable::Failed(error.to_string());
        match self {
            Self::Append { event, memories } => desk.append(event, memories).map(|id| id.0),
            Self::Remember(memories) => {
                desk.remember(memories);
                Ok(0)
            }
            Self::Settle { settled, now } => {
                for (id, settlement) in settled {
                    if let Err(error) = desk.settle(*id, settlement, *now) {
                        // The others must not be attempted again for its sake.
                        tracing::error!(inbox.entry = %id, %error, "an entry cannot be settled");
                    }
                }
                Ok(0)
            }
            Self::Redeliver { entries, now } => {
                let mut touched = 0;
                for (id, due) in entries {
                    touched += u64::from(desk.redeliver(*id, *due, *now).map_err(failed)?);
                }
                Ok(touched)
            }
            Self::Discard { ids, now } => {
                let mut touched = 0;
                for id in ids {
                    touched += u64::from(desk.discard(*id, *now).map_err(failed)?);
                }
                Ok(touched)
            }
            Self::Expire { now } => desk.expire(*now).map(u64::from).map_err(failed),
        }
    }

    /// Whether its result may only be told once it would outlast a power cut. A settlement that is
    /// lost means one more delivery, and what has expired expires again.
    pub(super) fn durable(&self) -> bool {
        match self {
            Self::Append { .. }
            | Self::Remember(_)
            | Self::Redeliver { .. }
            | Self::Discard { .. } => true,
            Self::Settle { .. } | Self::Expire { .. } => false,
        }
    }

    /// Whether it makes the inbox larger.
    pub(super) fn grows(&self) -> bool {
        match self {
            Self::Append { .. } | Self::Remember(_) => true,
            Self::Redeliver { .. }
            | Self::Discard { .. }
            | Self::Settle { .. }
            | Self::Expire { .. } => false,
        }
    }

    /// About what it holds in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append { event, memories } => event.body.len() + 64 * memories.len() + 512,
            Self::Remember(memories) => 64 * memories.len(),
            Self::Settle { settled, .. } => 256 * settled.len(),
            Self::Redeliver { entries, .. } => 256 * entries.len(),
            Self::Discard { ids, .. } => 256 * ids.len(),
            Self::Expire { .. } => 64,
        }
    }
}
