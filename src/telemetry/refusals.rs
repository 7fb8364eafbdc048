//! The latest refusals with their precise reasons, for the operator. Bounded; never holds a body, a
//! signature or a credential.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::kernel::clock::UnixMs;
use crate::kernel::reject::Reject;

/// Entries kept; the oldest goes first.
const ENTRIES_MAX: usize = 256;

/// One refusal as the admin listener shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    pub at_unix_ms: i64,
    pub request_id: String,
    pub route: String,
    pub status: u16,
    pub code: &'static str,
    pub label: &'static str,
    pub reason: String,
}

/// A ring of the latest entries.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<Entry>>);

impl Recent {
    /// Remembers one more.
    pub fn push(&self, reject: &Reject, request_id: &str, route: &str, now: UnixMs) {
        let entry = Entry {
            at_unix_ms: now.0,
            request_id: request_id.to_owned(),
            route: route.to_owned(),
            status: reject.status().as_u16(),
            code: reject.code.row().slug,
            label: reject.label,
            reason: reject.reason.clone().into_owned(),
        };
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == ENTRIES_MAX {
            ring.pop_front();
        }
        ring.push_back(entry);
    }

    /// All entries, newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Entry> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{ENTRIES_MAX, Recent};
    use crate::kernel::clock::UnixMs;
    use crate::kernel::reject::{Code, Reject};

    #[test]
    fn the_list_is_bounded_and_newest_first() {
        let recent = Recent::default();
        let reject = Reject::new(Code::NotFound, "path", "no route");
        for i in 0..ENTRIES_MAX as i64 + 10 {
            recent.push(&reject, &i.to_string(), "-", UnixMs(i));
        }
        let list = recent.list();
        assert_eq!(list.len(), ENTRIES_MAX);
        assert_eq!(list[0].at_unix_ms, ENTRIES_MAX as i64 + 9);
    }
}
