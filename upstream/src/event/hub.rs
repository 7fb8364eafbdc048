//! Wakes the streams of this process when a topic's head moves. It carries no events: a woken stream
//! reads the outbox, so a lost or doubled wake-up costs a query and nothing else.
//!
//! Writers announce after commit; the poller announces what other replicas wrote.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

#[derive(Default)]
pub(crate) struct Hub {
    heads: Mutex<HashMap<String, watch::Sender<i64>>>,
}

impl Hub {
    pub(crate) fn subscribe(&self, topic: &str) -> watch::Receiver<i64> {
        let mut heads = self.lock();
        heads
            .entry(topic.to_owned())
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe()
    }

    pub(crate) fn announce(&self, topic: &str, id: i64) {
        if let Some(head) = self.lock().get(topic) {
            head.send_if_modified(|last| {
                let newer = id > *last;
                if newer {
                    *last = id;
                }
                newer
            });
        }
    }

    /// Topics that somebody listens to; the others are forgotten.
    pub(crate) fn listened(&self) -> Vec<String> {
        let mut heads = self.lock();
        heads.retain(|_, head| head.receiver_count() > 0);
        heads.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<i64>>> {
        // A panic while holding the lock cannot leave the map half-changed.
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_only_move_forward_and_unheard_topics_are_forgotten() {
        let hub = Hub::default();
        let receiver = hub.subscribe("org_a");
        hub.announce("org_a", 5);
        hub.announce("org_a", 3);
        assert_eq!(*receiver.borrow(), 5);
        assert_eq!(hub.listened(), ["org_a"]);
        drop(receiver);
        assert!(hub.listened().is_empty());
    }
}
