//! Goes through a selection a bounded number of entries at a time. A verb that changes what its own
//! filter matches still sees each entry once: it goes by id, and new ones are not looked at.

use super::event::{EntryId, Unwritable};
use super::operator::{Filter, Order, Selection};
use super::{Inbox, Unreadable};

/// Entries of one step.
const STEP: usize = 1_000;

pub(super) struct Walk {
    left: Left,
}

enum Left {
    Ids(std::vec::IntoIter<EntryId>),
    Matching {
        filter: Filter,
        cursor: Option<EntryId>,
        /// The newest entry when the walk began, once known.
        until: Option<EntryId>,
    },
    Nothing,
}

impl Walk {
    pub(super) fn new(selection: Selection) -> Self {
        Self {
            left: match selection {
                Selection::Ids(ids) => Left::Ids(ids.into_iter()),
                Selection::Matching(filter) => Left::Matching {
                    filter: Filter {
                        order: Order::OldestFirst,
                        ..filter
                    },
                    cursor: None,
                    until: None,
                },
            },
        }
    }

    /// The next entries and what they take; `None` at the end. May be empty on the way.
    pub(super) async fn step(
        &mut self,
        inbox: &Inbox,
    ) -> Result<Option<Vec<(EntryId, u64)>>, Unreadable> {
        match &mut self.left {
            Left::Nothing => Ok(None),
            Left::Ids(ids) => {
                let mut step = Vec::new();
                for id in ids.by_ref().take(STEP) {
                    if let Some(shown) = inbox.show(id).await? {
                        step.push((id, shown.summary.bytes));
                    }
                }
                if ids.len() == 0 {
                    self.left = Left::Nothing;
                }
                Ok(Some(step))
            }
            Left::Matching {
                filter,
                cursor,
                until,
            } => {
                let until = match *until {
                    Some(until) => until,
                    None => {
                        let newest = inbox.list(Filter::default(), None, 1).await?;
                        let newest = newest.entries.first().map_or(EntryId(0), |e| e.id);
                        *until.insert(newest)
                    }
                };
                let page = inbox.list(filter.clone(), *cursor, STEP).await?;
                let within = page.entries.into_iter().filter(|entry| entry.id <= until);
                let step = within.map(|entry| (entry.id, entry.bytes)).collect();
                match page.next.filter(|next| *next <= until) {
                    Some(next) => *cursor = Some(next),
                    None => self.left = Left::Nothing,
                }
                Ok(Some(step))
            }
        }
    }
}

impl From<Unreadable> for Unwritable {
    fn from(error: Unreadable) -> Self {
        Self::Failed(error.0)
    }
}
