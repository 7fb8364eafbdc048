//! Keeps verified webhooks until they are delivered. Decides what is due, what waits behind another
//! event of its order key, what is dead; does not verify and does not send.
//!
//! Invariant: an event whose [`Inbox::append`] returned is on disk (fsync) and is claimed again and
//! again until it is settled as delivered, dead or discarded, whatever dies in between.
//!
//! Order of steps: `append` (one atomic write with what replay protection must remember) → `claim`
//! what is due → `settle` each claim → `list`, `show`, `redeliver`, `discard` for the operator.

mod event;

pub use event::{
    Attempt, Claimed, DeadReason, EntryId, Event, Memory, MemoryOf, Outcome, Settlement, Unwritable,
};
