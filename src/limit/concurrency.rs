//! Decides how many things somebody may hold at the same time, e.g. streams. Counts permits in this
//! process; a permit gives itself back when it is dropped, whatever way that happens.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::key::Key;

/// The permits that are out, by class and key. Holds nothing for those who hold none.
#[derive(Clone, Debug, Default)]
pub struct Slots(Arc<DashMap<(Arc<str>, Key), u32>>);

/// All permits of this key are out.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{max} at the same time are allowed and taken")]
pub struct Full {
    pub max: u32,
}

impl Slots {
    /// No permits are out.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One of `max` permits of `key`.
    ///
    /// # Errors
    /// [`Full`] when they are all out, and always when `max` is 0.
    pub fn acquire(&self, class: &Arc<str>, key: Key, max: u32) -> Result<Permit, Full> {
        if max == 0 {
            return Err(Full { max });
        }
        let key = (class.clone(), key);
        match self.0.entry(key.clone()) {
            Entry::Occupied(held) if *held.get() >= max => return Err(Full { max }),
            Entry::Occupied(mut held) => *held.get_mut() += 1,
            Entry::Vacant(none) => {
                none.insert(1);
            }
        }
        Ok(Permit {
            slots: self.clone(),
            key,
        })
    }

    /// Permits that `key` holds.
    #[must_use]
    pub fn held(&self, class: &Arc<str>, key: Key) -> u32 {
        self.0.get(&(class.clone(), key)).map_or(0, |held| *held)
    }

    /// Keys that hold a permit, for the metric and for leak checks.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.0.len()
    }
}

/// One permit. Dropping it gives it back.
#[derive(Debug)]
#[must_use = "dropping a permit gives it back"]
pub struct Permit {
    slots: Slots,
    key: (Arc<str>, Key),
}

impl Drop for Permit {
    fn drop(&mut self) {
        match self.slots.0.entry(self.key.clone()) {
            Entry::Occupied(held) if *held.get() <= 1 => {
                held.remove();
            }
            Entry::Occupied(mut held) => *held.get_mut() -= 1,
            Entry::Vacant(_) => debug_assert!(false, "a permit that nobody gave out"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::{Full, Slots};
    use crate::limit::key::Key;

    fn class() -> Arc<str> {
        "streams".into()
    }

    #[test]
    fn the_third_of_two_is_refused_until_one_ends() {
        let (slots, class, key) = (Slots::new(), class(), Key::subject("usr_1"));
        let first = slots.acquire(&class, key, 2).unwrap();
        let second = slots.acquire(&class, key, 2).unwrap();
        assert_eq!(slots.acquire(&class, key, 2).unwrap_err(), Full { max: 2 });
        let other = slots.acquire(&class, Key::subject("usr_2"), 2).unwrap();
        drop(first);
        let third = slots.acquire(&class, key, 2).unwrap();
        assert_eq!(slots.held(&class, key), 2);
        drop((second, third, other));
        assert_eq!(slots.keys(), 0);
        assert!(slots.acquire(&class, key, 0).is_err());
    }

    #[test]
    fn a_panic_gives_the_permit_back() {
        let (slots, class, key) = (Slots::new(), class(), Key::subject("usr_1"));
        let inner = slots.clone();
        let panicked = std::thread::spawn(move || {
            let _permit = inner.acquire(&class, key, 1).unwrap();
            panic!("a handler died");
        });
        assert!(panicked.join().is_err());
        assert_eq!(slots.keys(), 0);
    }

    #[tokio::test]
    async fn a_cancelled_task_gives_the_permit_back() {
        let (slots, class, key) = (Slots::new(), class(), Key::subject("usr_1"));
        let permit = slots.acquire(&class, key, 1).unwrap();
        let task = tokio::spawn(async move {
            let _permit = permit;
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(slots.keys(), 0);
    }

    #[test]
    fn nobody_gets_one_too_many_and_nothing_leaks() {
        let (slots, class, key) = (Slots::new(), class(), Key::subject("usr_1"));
        let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        if let Ok(_permit) = slots.acquire(&class, key, 3) {
                            most.fetch_max(
                                inside.fetch_add(1, Ordering::SeqCst) + 1,
                                Ordering::SeqCst,
                            );
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        assert_eq!(slots.keys(), 0);
    }
}
