//! Services whose end is the process's end. A panic in Pingora kills one task and leaves a process
//! that looks alive without its service; here it ends the process with code 70, loudly.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use pingora::server::{ListenFds, RuntimeOpts, ShutdownWatch};
use pingora::services::{Service, ServiceReadyNotifier, ServiceWithDependents};
use tracing::error;

use crate::listener::drain::{DrainState, EXIT_SOFTWARE, Phase};

/// What becomes of a service when the process closes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AtClose {
    /// It has nothing to write and is dropped.
    Drop,
    /// It watches for `Phase::Closed`, writes what it has and ends; the process waits for it.
    Await,
}

/// A background service; see [`critical`].
pub struct Critical {
    name: String,
    state: DrainState,
    at_close: AtClose,
    threads: usize,
    /// Taken when the service starts; the lock only makes it `Sync`.
    future: Mutex<Option<Work>>,
}

/// The error as text, so that every service is of one type.
type Work = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Runs `future` as a service. When it ends or panics while the process serves, the process exits
/// with code 70; once it is leaving, ending is what it should do.
#[must_use]
pub fn critical<E: fmt::Display>(
    name: &str,
    state: &DrainState,
    at_close: AtClose,
    future: impl Future<Output = Result<(), E>> + Send + 'static,
) -> Critical {
    let future = future.map(|outcome| outcome.map_err(|error| error.to_string()));
    Critical {
        name: name.to_owned(),
        state: state.clone(),
        at_close,
        threads: 1,
        future: Mutex::new(Some(Box::pin(future))),
    }
}

impl Critical {
    /// The same service on more than one thread.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }
}

#[async_trait]
impl Service for Critical {
    async fn start_service(
        &mut self,
        _inherited: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        let future = super::lock(&self.future).take();
        let Some(future) = future else {
            return;
        };
        let counted = self.state.enter_background();
        let dropped = self.state.reached(Phase::Closed);
        let outcome = match self.at_close {
            AtClose::Await => future.await,
            AtClose::Drop => tokio::select! {
                outcome = future => outcome,
                () = dropped => Ok(()),
            },
        };
        drop(counted);
        let leaving = self.state.phase() > Phase::Serving;
        match outcome {
            Ok(()) if leaving => {}
            Ok(()) => die(&self.name, "ended while the process serves"),
            Err(error) if leaving => error!(service.name = %self.name, %error, "service failed"),
            Err(error) => die(&self.name, &error),
        }
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

/// The same service, with a panic in it ending the process.
pub(super) fn watched(service: Box<dyn ServiceWithDependents>) -> Box<dyn ServiceWithDependents> {
    Box::new(Watched(service))
}

struct Watched(Box<dyn ServiceWithDependents>);

#[async_trait]
impl ServiceWithDependents for Watched {
    async fn start_service(
        &mut self,
        inherited: Option<ListenFds>,
        shutdown: ShutdownWatch,
        listeners_per_fd: usize,
        ready: ServiceReadyNotifier,
    ) {
        let name = self.0.name().to_owned();
        let service = self
            .0
            .start_service(inherited, shutdown, listeners_per_fd, ready);
        if let Err(panic) = AssertUnwindSafe(service).catch_unwind().await {
            die(&name, panic_text(panic.as_ref()));
        }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn threads(&self) -> Option<usize> {
        self.0.threads()
    }

    fn runtime_opts_override(&self, global: &RuntimeOpts) -> Option<RuntimeOpts> {
        self.0.runtime_opts_override(global)
    }

    fn on_startup_delay(&self, waited: Duration) {
        self.0.on_startup_delay(waited);
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        self.0.listen_addresses()
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panicked")
}

fn die(service: &str, why: &str) -> ! {
    error!(service.name = %service, error = %why, "service died; the process cannot go on");
    std::process::exit(EXIT_SOFTWARE)
}
