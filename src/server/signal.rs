//! Signals as the server understands them. SIGHUP is not among them: a new configuration is the
//! application's matter.

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

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
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
