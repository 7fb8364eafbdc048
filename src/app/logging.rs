//! The log: JSON lines, or text for people on a terminal; always to standard error.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// What these crates say is said again by the access line, or is noise that scanners make.
const QUIET: [&str; 5] = [
    "pingora_core=warn",
    "pingora_core::apps=off",
    "pingora_proxy=off",
    "h2=warn",
    "sqlx=warn",
];

/// Takes effect once per process; later calls change nothing.
pub(super) fn init(log: &Log) {
    let mut filter = EnvFilter::new(&log.level);
    for directive in QUIET.iter().filter_map(|d| d.parse().ok()) {
        filter = filter.add_directive(directive);
    }
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr);
    // An error says that somebody set a subscriber before, as tests do.
    let _ = match log.format {
        LogFormat::Json => lines.json().try_init(),
        LogFormat::Pretty => lines.with_ansi(stderr().is_terminal()).try_init(),
    };
}
