//! The command line: from arguments to one command and its exit code. Each command is a file below with
//! one verb, `run`. What `serve` starts is handed in by `main`.

mod admin;
mod check;
mod client;
mod config;
mod explain;
mod healthcheck;
mod inbox;
mod output;
mod place;
mod refusals;
mod serve;
mod sign;
mod smoke;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use output::Output;
pub use serve::{Serve, Start};

use crate::config::{ConfigErrors, ConfigSource, Env};

/// The arguments or the configuration are unusable (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;
/// What was asked is not so, or did not work.
const EXIT_NO: u8 = 1;

/// An edge proxy for webhooks coming in and event streams going out.
#[derive(Parser)]
#[command(name = "maitred", version, about, disable_help_subcommand = true)]
struct Args {
    /// Configuration file; else the one that MAITRED_CONFIG names, else ./maitred.toml, else the
    /// development configuration that is built in.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the edge (default).
    Serve(serve::Args),
    /// Say whether this configuration and this machine are ready to serve.
    Check(check::Args),
    /// Say what a request would meet, without sending it.
    Explain(explain::Args),
    /// Show the format, its documentation, or what is in effect.
    Config(config::Args),
    /// Sign a webhook as its provider would, and print how to send it.
    Sign(sign::SignArgs),
    /// Sign a webhook and send it.
    Send(sign::SendArgs),
    /// Try a running deployment out from outside: TLS, webhooks, streams, cache, limits.
    Smoke(smoke::Args),
    /// Ask a running edge whether it is alive; for containers.
    Healthcheck(healthcheck::Args),
    /// Look at the webhooks that a running edge keeps, deliver them again, discard them.
    Inbox(inbox::Args),
    /// Why a running edge refused what it refused last, and what to do about it.
    Refusals(refusals::Args),
    /// Print the version.
    Version,
}

/// Why a command ends without having done its work.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// What was asked is not so.
    #[error("{0}")]
    No(String),
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
}

/// Runs one command line.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    env: Env,
    output: &mut Output,
    start: Start,
) -> ExitCode {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(e) => return usage(&e, output),
    };
    let here = || Some(PathBuf::from("maitred.toml")).filter(|p| p.exists());
    let named = args
        .config
        .or_else(|| env.get("MAITRED_CONFIG").map(PathBuf::from));
    let path = named.or_else(here);
    let source = ConfigSource { path, env };
    let command = args
        .command
        .unwrap_or(Command::Serve(serve::Args::default()));
    match dispatch(command, source, output, start) {
        Ok(code) => code,
        Err(failure) => {
            // `maitred config docs | head`: the reader has seen enough, and knows it.
            let enough =
                matches!(&failure, Failure::Output(e) if e.kind() == ErrorKind::BrokenPipe);
            if !enough {
                output.error(&failure.to_string());
            }
            ExitCode::from(match failure {
                Failure::Usage(_) | Failure::Config(_) => EXIT_USAGE,
                Failure::No(_) | Failure::Output(_) => EXIT_NO,
            })
        }
    }
}

fn dispatch(
    command: Command,
    source: ConfigSource,
    output: &mut Output,
    start: Start,
) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(args) => serve::run(&args, source, output, start),
        Command::Check(args) => check::run(&args, &source, output),
        Command::Explain(args) => explain::run(&args, &source, output),
        Command::Config(args) => config::run(&args, &source, output),
        Command::Sign(args) => sign::sign(&args, &source, output),
        Command::Send(args) => sign::send(&args, &source, output),
        Command::Smoke(args) => smoke::run(&args, &source, output),
        Command::Healthcheck(args) => healthcheck::run(&args, output),
        Command::Inbox(args) => inbox::run(&args, &source, output),
        Command::Refusals(args) => refusals::run(&args, &source, output),
        Command::Version => {
            output.line(&version())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn version() -> String {
    let commit = option_env!("MAITRED_COMMIT").unwrap_or("unknown");
    format!("maitred {} (commit {commit})", env!("CARGO_PKG_VERSION"))
}

/// `--help` and `--version` are no errors.
fn usage(error: &clap::Error, output: &mut Output) -> ExitCode {
    let text = error.render().to_string();
    if error.use_stderr() {
        output.error(text.trim_end());
        return ExitCode::from(EXIT_USAGE);
    }
    match output.text(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_NO),
    }
}

#[cfg(test)]
mod tests;
