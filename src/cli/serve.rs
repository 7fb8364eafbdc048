//! `serve`: loads the configuration and hands it to what runs the edge.

use std::process::ExitCode;

use super::{Failure, Output};
use crate::config::{Config, ConfigSource};

#[derive(clap::Args, Default)]
pub(super) struct Args {
    /// Take the listening sockets over from the process that runs now.
    #[arg(long)]
    upgrade: bool,
}

/// How the edge is to start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Serve {
    /// Bind the sockets.
    Fresh,
    /// Take them from the running process.
    Upgrade,
}

/// Runs the edge until it ends; `main` hands it in.
pub type Start = fn(Config, ConfigSource, Serve) -> ExitCode;

pub(super) fn run(
    args: &Args,
    source: ConfigSource,
    output: &mut Output,
    start: Start,
) -> Result<ExitCode, Failure> {
    let config = source.load()?;
    if source.path.is_none() {
        output.error("note: no configuration file is named; this is the development one");
    }
    for notice in &config.notices {
        output.error(&format!("note: {notice}"));
    }
    let how = match args.upgrade {
        true => Serve::Upgrade,
        false => Serve::Fresh,
    };
    Ok(start(config, source, how))
}
