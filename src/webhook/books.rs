//! What accepting webhooks needs once it is open: the inbox and the memory of what was accepted. They
//! open after the listeners do (an upgrade waits for its predecessor to let go of the folder), so a
//! webhook that comes before waits for them, and one that comes after the end is refused.
//!
//! Invariant: while a webhook holds [`Lent`] books, whoever closes them can see it and wait.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::inbox::{Health, Inbox};
use super::replay;

/// The inbox, and the memory that its journal keeps over a restart.
#[derive(Debug)]
pub struct Books {
    pub inbox: Inbox,
    pub replay: replay::Store,
}

/// Where the books lie; clones share it.
#[derive(Clone, Debug)]
pub struct Shelf(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: watch::Sender<State>,
    lent: AtomicUsize,
}

#[derive(Clone, Debug)]
enum State {
    Opening,
    Open(Arc<Books>),
    Closed,
}

/// There are no books: 503.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Away {
    #[error("the inbox is not open yet")]
    Opening,
    #[error("the inbox is closed: this process is on its way out")]
    Closed,
}

impl Shelf {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            state: watch::Sender::new(State::Opening),
            lent: AtomicUsize::new(0),
        }))
    }

    /// Puts the books there; everybody who waits gets them.
    pub fn open(&self, books: Arc<Books>) {
        self.0.state.send_replace(State::Open(books));
    }

    /// Takes the books away. Who has them keeps them until it is done.
    pub fn close(&self) {
        self.0.state.send_replace(State::Closed);
    }

    /// Counts in a webhook that will ask for the books, so that who closes them waits for it.
    pub fn enter(&self) -> Seat {
        self.0.lent.fetch_add(1, Ordering::SeqCst);
        Seat(self.0.clone())
    }

    /// The books for one webhook, waiting for them if they are not open yet.
    ///
    /// # Errors
    /// [`Away`] when they do not come within the time or were taken away.
    pub async fn lend(&self, within: Duration) -> Result<Lent, Away> {
        let seat = self.enter();
        let mut state = self.0.state.subscribe();
        let opened = state.wait_for(|state| !matches!(state, State::Opening));
        let state = match tokio::time::timeout(within, opened).await {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) | Err(_) => return Err(Away::Opening),
        };
        match state {
            State::Open(books) => Ok(Lent { books, _seat: seat }),
            State::Opening => Err(Away::Opening),
            State::Closed => Err(Away::Closed),
        }
    }

    /// The books for a look, if they are open.
    #[must_use]
    pub fn look(&self) -> Option<Arc<Books>> {
        match &*self.0.state.borrow() {
            State::Open(books) => Some(books.clone()),
            State::Opening | State::Closed => None,
        }
    }

    /// What keeps webhooks from being accepted, in words; `None` = nothing.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        match &*self.0.state.borrow() {
            State::Opening => Some(Away::Opening.to_string()),
            State::Closed => Some(Away::Closed.to_string()),
            State::Open(books) => match &*books.inbox.health().borrow() {
                Health::Ready => None,
                health @ (Health::Unwritable(_) | Health::Released | Health::Stopped(_)) => {
                    Some(format!("the journal is not writable: {health}"))
                }
            },
        }
    }

    /// Webhooks that wait for the books or have them.
    #[must_use]
    pub fn lent(&self) -> usize {
        self.0.lent.load(Ordering::SeqCst)
    }
}

impl Default for Shelf {
    fn default() -> Self {
        Self::new()
    }
}

/// The books, as one webhook has them.
#[derive(Debug)]
pub struct Lent {
    books: Arc<Books>,
    _seat: Seat,
}

impl Deref for Lent {
    type Target = Books;

    fn deref(&self) -> &Books {
        &self.books
    }
}

/// A webhook that is counted in until this is dropped.
#[derive(Debug)]
#[must_use = "counts for as long as it is held"]
pub struct Seat(Arc<Shared>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.lent.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Away, Books, Shelf};
    use crate::webhook::inbox::{self, Inbox};
    use crate::webhook::replay;

    fn books() -> Arc<Books> {
        Arc::new(Books {
            inbox: Inbox::in_memory(inbox::Policy::default()),
            replay: replay::Store::local(replay::Policy::default(), &[]),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_early_waits_and_who_comes_late_is_refused() {
        let shelf = Shelf::new();
        let early = tokio::spawn({
            let shelf = shelf.clone();
            async move { shelf.lend(Duration::from_secs(60)).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert_eq!(shelf.lent(), 1);
        assert!(shelf.trouble().is_some());
        shelf.open(books());
        assert_eq!(early.await.unwrap(), Ok(()));
        assert_eq!((shelf.lent(), shelf.trouble()), (0, None));

        let held = shelf.lend(Duration::ZERO).await.unwrap();
        shelf.close();
        assert_eq!(shelf.lent(), 1, "who closes can wait for it");
        assert_eq!(shelf.lend(Duration::ZERO).await.err(), Some(Away::Closed));
        drop(held);
        assert_eq!(shelf.lent(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_it_said() {
        let shelf = Shelf::new();
        let waited = shelf.lend(Duration::from_secs(2)).await;
        assert_eq!(waited.err(), Some(Away::Opening));
        assert_eq!(shelf.lent(), 0);
    }
}
