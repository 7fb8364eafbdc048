//! Signals as the server understands them. SIGHUP is not among them: a new configuration is the
//! application's matter. All that is done for it here is that it ends nothing.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// What the outside wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Signal {
    /// SIGINT: stop at once.
    Interrupt,
    /// SIGTERM: finish and leave.
    Terminate,
    /// SIGQUIT: hand the listeners to a successor, finish and leave.
    Upgrade,
}

/// The process's signals, in one stream.
pub(super) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    quit: unix::Signal,
}

/// Signals that count from now on, before the server's own runtime is there to deliver them.
pub(super) struct Listening {
    pub(super) signals: Signals,
    /// Registers and holds what comes until another runtime delivers it.
    _runtime: tokio::runtime::Runtime,
}

impl Signals {
    /// Listens outside of any runtime.
    pub(super) fn listen_early() -> io::Result<Listening> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let entered = runtime.enter();
        let signals = Self::listen()?;
        // Its handler stays when nobody listens, and the default action is gone for good.
        drop(unix::signal(SignalKind::hangup())?);
        drop(entered);
        Ok(Listening {
            signals,
            _runtime: runtime,
        })
    }

    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            quit: unix::signal(SignalKind::quit())?,
        })
    }

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.quit.recv() => Signal::Upgrade,
        }
    }

    /// The next signal that stops; another wish for an upgrade is not one.
    pub(super) async fn next_stop(&mut self) {
        while self.next().await == Signal::Upgrade {}
    }
}
