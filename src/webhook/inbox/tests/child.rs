//! A process with an inbox, to be killed. As a test by itself it does nothing; its parent names a
//! folder in the environment.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::settings;
use crate::kernel::clock::UnixMs;
use crate::webhook::inbox::conformance::event;
use crate::webhook::inbox::{Attempt, Inbox, Outcome, Policy, Settlement};

const FOLDER: &str = "MAITRED_TEST_INBOX";
const ROUND: &str = "MAITRED_TEST_ROUND";
const NAME: &str = "webhook::inbox::tests::child::process";
/// Who appends, at a time.
pub(super) const CLIENTS: usize = 8;

/// What the process says, one line each.
pub(super) const KEPT: &str = "kept ";
pub(super) const DELIVERED: &str = "delivered ";
pub(super) const REFUSED: &str = "refused ";

/// Starts the process over `folder`. Event ids begin with `round`.
pub(super) fn spawn(folder: &Path, round: u32, environment: &[(&str, &Path)]) -> Running {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    Running { child, lines }
}

/// Killed when it is dropped.
pub(super) struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// The next line of those it says of its inbox; `None` when it is dead.
    pub(super) fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // A killed process may leave half a line.
            let ours = [KEPT, DELIVERED, REFUSED];
            if line.ends_with('\n') && ours.iter().any(|word| line.starts_with(word)) {
                return Some(line.trim_end().to_owned());
            }
        }
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody listens any more: the parent is dead.
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

#[test]
fn process() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let round = std::env::var(ROUND).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(serve(folder.as_ref(), &round));
}

/// Appends and delivers until it is killed.
async fn serve(folder: &Path, round: &str) {
    let inbox = Inbox::open(settings(folder, Policy::default())).await;
    let inbox = inbox.unwrap().inbox;
    let next = Arc::new(AtomicU64::new(0));
    for client in 0..CLIENTS {
        let (inbox, next, round) = (inbox.clone(), next.clone(), round.to_owned());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let event_id = format!("evt_{round}_{number}");
                let kept = event("billing", &event_id, event_id.repeat(20).as_bytes());
                match inbox.append(kept, Vec::new()).await {
                    Ok(id) => say(&format!("{KEPT}{id} {event_id}")),
                    Err(error) => {
                        say(&format!("{REFUSED}{client} {error}"));
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
        });
    }
    let now = UnixMs(1_000);
    loop {
        // Half of what there is, so that some of it is pending at any time.
        let claimed = inbox.claim("api", 4, now).await;
        for (n, claimed) in claimed.into_iter().enumerate() {
            let settlement = match n % 2 {
                0 => Settlement::Delivered(Attempt {
                    at: now,
                    took_ms: 1,
                    outcome: Outcome::Status(200),
                }),
                _ => Settlement::Unclaim,
            };
            let done = settlement != Settlement::Unclaim;
            let settled = inbox.settle(vec![(claimed.id, settlement)], now).await;
            if done && settled.is_ok() {
                say(&format!("{DELIVERED}{}", claimed.id));
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
