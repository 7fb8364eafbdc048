//! How far the process has come on its way out, and what is still under way. `server` moves the
//! phase; listeners, requests and streams read it and count themselves in. Decides nothing itself.
//!
//! Invariant: the phase only moves forward.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Exit code of a process that cannot go on (`EX_SOFTWARE`).
pub const EXIT_SOFTWARE: i32 = 70;

/// How long connections that were just accepted may take for their first request once no more are
/// accepted. Longer would let one silent client hold the process.
pub(crate) const FRESH_GRACE: Duration = Duration::from_secs(2);

/// The way out.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    Serving,
    /// Still accepting, but every HTTP/1 response is the connection's last.
    Announcing,
    /// Not accepting; HTTP/2 got GOAWAY; streams end within their window.
    Draining,
    /// Nothing is under way any more; background work writes what it still has and ends.
    Closed,
}

/// Why the process leaves; only readiness tells the two apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// Readiness is off, so that balancers look elsewhere.
    Terminate,
    /// A successor serves the same address, so readiness stays on.
    Upgrade,
}

/// Shared by all that end together; cheap to clone.
#[derive(Clone, Debug)]
pub struct DrainState(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `server` signals everybody.
    phase: watch::Sender<Phase>,
    /// `server` signals the accept loops and Pingora's sessions: `true` from `Draining` on.
    stop: watch::Sender<bool>,
    upgrade: AtomicBool,
    streams_window: Duration,
    draining_since: OnceLock<Instant>,
    requests: AtomicUsize,
    connections: AtomicUsize,
    /// Connections whose first request has not come yet.
    fresh: AtomicUsize,
    /// Background work that still has something to write after `Closed`.
    background: AtomicUsize,
}

impl DrainState {
    /// Serving. Streams will end spread over `streams_window`.
    #[must_use]
    pub fn new(streams_window: Duration) -> Self {
        Self(Arc::new(Shared {
            phase: watch::Sender::new(Phase::Serving),
            stop: watch::Sender::new(false),
            upgrade: AtomicBool::new(false),
            streams_window,
            draining_since: OnceLock::new(),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            fresh: AtomicUsize::new(0),
            background: AtomicUsize::new(0),
        }))
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// Whether a readiness probe may be told that this address serves.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase() == Phase::Serving || self.0.upgrade.load(Ordering::Relaxed)
    }

    /// Whether the process leaves because a successor serves.
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        self.0.upgrade.load(Ordering::Relaxed)
    }

    /// Whether an HTTP/1 response may leave its connection open; `Connection: close` otherwise.
    #[must_use]
    pub fn may_keep_alive(&self) -> bool {
        self.phase() == Phase::Serving
    }

    /// Phases as they come.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.0.phase.subscribe()
    }

    /// Waits until `phase` or a later one.
    pub fn reached(&self, phase: Phase) -> impl Future<Output = ()> + Send + use<> {
        let mut phases = self.subscribe();
        async move {
            // An error means that the sender is gone, and with it the process's main loop.
            let _ = phases.wait_for(|now| *now >= phase).await.map(drop);
        }
    }

    /// Waits for the moment at which a stream should end. `share` in `[0, 1)` is the stream's own
    /// place in the window, so that clients do not all reconnect at once.
    pub fn stream_end(&self, share: f64) -> impl Future<Output = ()> + Send + use<> {
        let reached = self.reached(Phase::Draining);
        let wait = self.0.streams_window.mul_f64(share.clamp(0.0, 1.0));
        let shared = self.0.clone();
        async move {
            reached.await;
            // Counted from the phase and not from here: who looks up late still ends in the window.
            let since = shared.draining_since.get().copied();
            tokio::time::sleep_until(since.unwrap_or_else(Instant::now) + wait).await;
        }
    }

    /// Counts a request or a stream in; it is under way until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> InFlight {
        InFlight::of(self, |shared| &shared.requests)
    }

    /// Requests and streams under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.requests.load(Ordering::Acquire)
    }

    /// Open connections of all listeners.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Acquire)
    }

    /// Connections on which a first request may still be on its way.
    #[must_use]
    pub fn fresh(&self) -> usize {
        self.0.fresh.load(Ordering::Acquire)
    }

    /// Background work that is not done.
    #[must_use]
    pub fn background(&self) -> usize {
        self.0.background.load(Ordering::Acquire)
    }

    /// Turns `true` when no more connections are to be accepted; what Pingora's sessions watch.
    #[must_use]
    pub fn stop(&self) -> watch::Receiver<bool> {
        self.0.stop.subscribe()
    }

    /// Moves on. For `server` alone.
    pub(crate) fn advance(&self, phase: Phase, cause: Cause) {
        self.0
            .upgrade
            .store(cause == Cause::Upgrade, Ordering::Relaxed);
        if phase >= Phase::Draining {
            self.0.draining_since.get_or_init(Instant::now);
        }
        self.0.phase.send_replace(phase);
        // Sessions take any word on this channel for the end, so nothing is said twice.
        let stop = phase >= Phase::Draining;
        let stopped = |now: &mut bool| std::mem::replace(now, stop) != stop;
        self.0.stop.send_if_modified(stopped);
    }

    /// Counts a connection in.
    pub(crate) fn enter_connection(&self) -> InFlight {
        InFlight::of(self, |shared| &shared.connections)
    }

    /// Counts a connection in that has not had a request.
    pub(crate) fn enter_fresh(&self) -> InFlight {
        InFlight::of(self, |shared| &shared.fresh)
    }

    /// Counts background work in.
    pub(crate) fn enter_background(&self) -> InFlight {
        InFlight::of(self, |shared| &shared.background)
    }
}

/// Something under way; over when dropped.
#[derive(Debug)]
pub struct InFlight {
    shared: Arc<Shared>,
    counter: fn(&Shared) -> &AtomicUsize,
}

impl InFlight {
    fn of(state: &DrainState, counter: fn(&Shared) -> &AtomicUsize) -> Self {
        counter(&state.0).fetch_add(1, Ordering::AcqRel);
        Self {
            shared: state.0.clone(),
            counter,
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        (self.counter)(&self.shared).fetch_sub(1, Ordering::AcqRel);
    }
}

/// Waits until `done` holds; `false` when `limit` passed first. Looks every few milliseconds: it
/// only runs on the way out, and a counter needs no wake-up list for that.
pub(crate) async fn settled(limit: Duration, done: impl Fn() -> bool) -> bool {
    const LOOK_EVERY: Duration = Duration::from_millis(10);
    let deadline = Instant::now() + limit;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Cause, DrainState, Phase};

    #[test]
    fn readiness_ends_with_termination_but_not_with_an_upgrade() {
        let state = DrainState::new(Duration::ZERO);
        assert!(state.is_ready() && state.may_keep_alive());
        state.advance(Phase::Announcing, Cause::Upgrade);
        assert!(state.is_ready() && !state.may_keep_alive());
        let stop = state.stop();
        state.advance(Phase::Announcing, Cause::Terminate);
        assert!(!state.is_ready() && !state.may_keep_alive());
        assert!(!*stop.borrow() && stop.has_changed().is_ok_and(|new| !new));
        state.advance(Phase::Draining, Cause::Terminate);
        assert!(*stop.borrow() && stop.has_changed().is_ok_and(|new| new));
    }

    #[test]
    fn guards_count_themselves_out() {
        let state = DrainState::new(Duration::ZERO);
        let (one, two) = (state.enter(), state.enter());
        assert_eq!(state.in_flight(), 2);
        drop(one);
        assert_eq!((state.in_flight(), state.connections()), (1, 0));
        drop(two);
        assert_eq!(state.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_end_at_their_own_place_in_the_window() {
        let state = DrainState::new(Duration::from_secs(10));
        let start = Instant::now();
        let (early, late) = (state.stream_end(0.1), state.stream_end(0.9));
        state.advance(Phase::Draining, Cause::Terminate);
        early.await;
        assert_eq!(start.elapsed().as_secs(), 1);
        late.await;
        assert_eq!(start.elapsed().as_secs(), 9);
    }
}
