//! Counts how many entries may carry a name, so that an invalidation of something that is not stored
//! need not look at every entry. May say "some" where there are none; never the other way round.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cache::groups::{Label, Selector, Which, Whose};

/// Counters shared by all names that hash alike.
#[derive(Debug)]
pub(super) struct Presence {
    slots: Box<[AtomicU32]>,
    hasher: RandomState,
}

impl Presence {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Whether an entry may exist that `selector` matches.
    pub(super) fn may_match(&self, selector: &Selector) -> bool {
        let owned = match &selector.whose {
            Whose::Org(org) => self.may_have(org),
            Whose::Anyone | Whose::NoOrg => true,
        };
        owned
            && match &selector.which {
                Which::Target(target) => self.may_have(target),
                // Groups are few and long-lived: counting them would hardly ever say "none".
                Which::Everything | Which::Groups(_) => true,
            }
    }

    fn may_have(&self, name: &str) -> bool {
        // Relaxed: whoever asks has passed the fences' lock after whoever inserted.
        self.slot(name)
            .is_none_or(|slot| slot.load(Ordering::Relaxed) > 0)
    }

    fn slot(&self, name: &str) -> Option<&AtomicU32> {
        let hash = self.hasher.hash_one(name);
        let at = usize::try_from(hash % u64::try_from(self.slots.len()).ok()?).ok()?;
        self.slots.get(at)
    }

    fn names(label: &Label) -> impl Iterator<Item = &str> {
        let orgs = label.orgs.iter().map(|o| &**o);
        orgs.chain(std::iter::once(&*label.target))
    }
}

/// One entry's share in the counts, for as long as the entry lives.
#[derive(Debug)]
pub(super) struct Present {
    presence: Arc<Presence>,
    label: Arc<Label>,
}

impl Present {
    pub(super) fn new(presence: Arc<Presence>, label: Arc<Label>) -> Self {
        for name in Presence::names(&label) {
            if let Some(slot) = presence.slot(name) {
                slot.fetch_add(1, Ordering::Relaxed);
            }
        }
        Self { presence, label }
    }

    pub(super) fn label(&self) -> &Arc<Label> {
        &self.label
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        for name in Presence::names(&self.label) {
            if let Some(slot) = self.presence.slot(name) {
                slot.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

const SLOTS: usize = 4_096;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Presence, Present};
    use crate::cache::groups::{Label, Selector, Which, Whose};

    #[test]
    fn an_entry_is_present_for_as_long_as_it_lives() {
        let presence = Arc::new(Presence::new());
        let target = Selector {
            whose: Whose::Org("a".into()),
            which: Which::Target("h/x".into()),
        };
        assert!(!presence.may_match(&target));
        let label = Arc::new(Label {
            orgs: ["a".into()].into(),
            groups: [].into(),
            target: "h/x".into(),
        });
        let first = Present::new(presence.clone(), label.clone());
        let second = Present::new(presence.clone(), label);
        drop(first);
        assert!(presence.may_match(&target));
        drop(second);
        assert!(!presence.may_match(&target));
    }
}
