//! Nouns every context shares: clock, ids, secrets, roles, the faults of a request body. No I/O and
//! no knowledge of any context.

pub(crate) mod clock;
pub(crate) mod id;
pub(crate) mod input;
pub(crate) mod role;
pub(crate) mod secret;
