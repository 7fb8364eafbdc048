//! Runs the process: Pingora's server with our services, the signals, and the way out. Decides when
//! the phases of [`DrainState`] follow each other; what a phase means to a request or a stream is
//! decided where those are.
//!
//! Order of steps after SIGTERM: `Announcing` (readiness off, HTTP/1 responses close their
//! connections, new connections still taken) for `announce_ms`; `Draining` (no new connections,
//! GOAWAY, streams end within their window) until nothing is under way or `timeout_ms` has passed;
//! `Closed` (background work writes what it has). SIGQUIT does the same after a successor took the
//! sockets over, with readiness left on. SIGINT, and any second signal, stops at once.
//!
//! Pingora's own shutdown sleeps for its whole grace period and then drops every task, so both its
//! times are zero here and all waiting is done before it hears of the signal.

mod critical;
mod signal;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use pingora::services::ServiceWithDependents;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::config::Drain;
use crate::listener::drain::{FRESH_GRACE, settled};
use crate::listener::handover::{HandoverError, Predecessor, Sockets};

pub use crate::listener::drain::{Cause, DrainState, EXIT_SOFTWARE, InFlight, Phase};
pub use critical::{AtClose, Critical, critical};
use signal::{Signal, Signals};

/// After the last request is done: how long its last bytes may stay in a connection's buffers.
const SETTLE: Duration = Duration::from_secs(1);
/// How long background work may write after everything else is done.
const FLUSH: Duration = Duration::from_secs(5);
/// With a successor that accepts, the overlap only serves to end busy connections politely.
const UPGRADE_ANNOUNCE_MAX: Duration = Duration::from_secs(1);

/// All that the process is made of.
pub struct Parts {
    /// From [`configuration`].
    pub configuration: ServerConf,
    pub drain: Drain,
    /// The one that listeners, requests and streams were given.
    pub state: DrainState,
    pub sockets: Sockets,
    /// Where SIGQUIT looks for a successor.
    pub upgrade_socket: PathBuf,
    pub services: Vec<Box<dyn ServiceWithDependents>>,
    /// Resolves once this process can serve; a predecessor goes on until then. First asked when
    /// signals are listened for.
    pub ready: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Pingora's configuration, for `http_proxy` and for [`Parts`].
#[must_use]
pub fn configuration(threads: usize) -> ServerConf {
    ServerConf {
        threads: threads.max(1),
        // One single-threaded runtime per core: half as fast again as stealing, for short handlers.
        work_stealing: false,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    }
}

/// Runs until a signal ends it. `FAILURE` when a second signal cut the way out short.
pub fn run(mut parts: Parts) -> ExitCode {
    for address in parts.sockets.close_unclaimed() {
        warn!(%address, "an inherited listener is not configured any more; closed");
    }
    let forced = Arc::new(AtomicBool::new(false));
    // Before anything serves: a signal that nobody listens for would end the process.
    let listening = match Signals::listen_early() {
        Ok(listening) => listening,
        Err(error) => {
            error!(%error, "cannot listen for signals");
            return ExitCode::FAILURE;
        }
    };
    let leaver = Leaver {
        signals: Mutex::new(Some(listening.signals)),
        drain: parts.drain,
        state: parts.state,
        sockets: Mutex::new(Some(Arc::new(Mutex::new(parts.sockets)))),
        upgrade_socket: parts.upgrade_socket,
        ready: Mutex::new(Some(parts.ready)),
        forced: forced.clone(),
    };
    let mut server = Server::new_with_opt_and_conf(None, parts.configuration);
    for service in parts.services {
        server.add_boxed_service(critical::watched(service));
    }
    server.bootstrap();
    server.run(RunArgs {
        shutdown_signal: Box::new(leaver),
    });
    if forced.load(Ordering::Relaxed) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

type SharedSockets = Arc<Mutex<Sockets>>;

/// Waits for signals and walks the process through its phases.
struct Leaver {
    /// Taken when the server begins to wait for them.
    signals: Mutex<Option<Signals>>,
    drain: Drain,
    state: DrainState,
    /// Taken when accepting ends, which closes them.
    sockets: Mutex<Option<SharedSockets>>,
    upgrade_socket: PathBuf,
    ready: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    forced: Arc<AtomicBool>,
}

#[async_trait]
impl ShutdownSignalWatch for Leaver {
    async fn recv(&self) -> ShutdownSignal {
        let Some(mut signals) = lock(&self.signals).take() else {
            // Asked a second time, which the server does not: there is nothing to wait for.
            return ShutdownSignal::FastShutdown;
        };
        self.announce_ready();
        self.until_signalled(&mut signals).await
    }
}

impl Leaver {
    async fn until_signalled(&self, signals: &mut Signals) -> ShutdownSignal {
        let mut signal = signals.next().await;
        loop {
            signal = match signal {
                Signal::Interrupt => {
                    info!("interrupted; stopping at once");
                    return ShutdownSignal::FastShutdown;
                }
                Signal::Terminate => return self.leave(Cause::Terminate, signals).await,
                Signal::Upgrade => tokio::select! {
                    signal = signals.next() => signal,
                    handed_over = self.hand_over() => match handed_over {
                        Ok(()) => return self.leave(Cause::Upgrade, signals).await,
                        Err(error) => {
                            error!(%error, "no upgrade; this process goes on serving");
                            signals.next().await
                        }
                    },
                },
            };
        }
    }

    /// The phases one after the other; a second signal ends it.
    async fn leave(&self, cause: Cause, signals: &mut Signals) -> ShutdownSignal {
        tokio::select! {
            biased;
            () = signals.next_stop() => {
                warn!(requests = self.state.in_flight(), "second signal; stopping at once");
                self.forced.store(true, Ordering::Relaxed);
                ShutdownSignal::FastShutdown
            }
            () = self.drain(cause) => ShutdownSignal::GracefulTerminate,
        }
    }

    async fn drain(&self, cause: Cause) {
        let state = &self.state;
        let mut announce = Duration::from_millis(self.drain.announce_ms);
        if cause == Cause::Upgrade {
            announce = announce.min(UPGRADE_ANNOUNCE_MAX);
        }
        info!(
            ?cause,
            announce_ms = announce.as_millis(),
            "leaving: announcing"
        );
        state.advance(Phase::Announcing, cause);
        tokio::time::sleep(announce).await;

        info!(requests = state.in_flight(), "leaving: draining");
        drop(lock(&self.sockets).take());
        state.advance(Phase::Draining, cause);
        let since = Instant::now();
        let limit = Duration::from_millis(self.drain.timeout_ms);
        // A request may be on its way on a connection that was just accepted, but not for long.
        settled(limit.min(FRESH_GRACE), || state.fresh() == 0).await;
        let left = limit.saturating_sub(since.elapsed());
        if !settled(left, || state.in_flight() == 0).await {
            warn!(
                requests = state.in_flight(),
                "leaving: out of time; requests are cut"
            );
        }
        settled(SETTLE, || state.connections() == 0).await;

        state.advance(Phase::Closed, cause);
        if !settled(FLUSH, || state.background() == 0).await {
            warn!(
                services = state.background(),
                "leaving: background work is cut"
            );
        }
        info!("leaving: done");
    }

    /// On a thread of its own: it blocks, and a runtime would wait for it on the way out.
    async fn hand_over(&self) -> Result<(), HandoverError> {
        let Some(sockets) = lock(&self.sockets).clone() else {
            return Err(HandoverError::Garbled);
        };
        let path = self.upgrade_socket.clone();
        info!(path = %path.display(), "handing the listeners over");
        let (done, outcome) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            // Nobody listens any more when another signal came in between.
            let _ = done.send(lock(&sockets).hand_over(&path));
        });
        outcome.await.unwrap_or(Err(HandoverError::Garbled))
    }

    /// Once we serve, tells the process that gave us its sockets, if there is one, to leave.
    fn announce_ready(&self) {
        let sockets = lock(&self.sockets).clone();
        let predecessor = sockets.and_then(|sockets| lock(&sockets).predecessor());
        let Some(ready) = lock(&self.ready).take() else {
            return;
        };
        tokio::spawn(async move {
            ready.await;
            match predecessor.map(Predecessor::release) {
                None => info!("serving"),
                Some(Ok(())) => info!("serving; the predecessor was told to leave"),
                Some(Err(error)) => warn!(%error, "the predecessor could not be told to leave"),
            }
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
