//! Arguments in, exit code out.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use maitred::cli::{self, Output, Serve};
use maitred::config::{Config, ConfigSource, Env, Log, LogFormat};
use tracing_subscriber::EnvFilter;

/// The edge could not be started or broke (`EX_SOFTWARE`).
const EXIT_SOFTWARE: u8 = 70;

fn main() -> ExitCode {
    let arguments = std::env::args_os();
    cli::run(arguments, Env::process(), &mut Output::standard(), start)
}

fn start(config: Config, source: ConfigSource, how: Serve) -> ExitCode {
    log_to_stderr(&config.log);
    match maitred::app::run(source, config, how == Serve::Upgrade) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the edge did not start");
            ExitCode::from(EXIT_SOFTWARE)
        }
    }
}

/// Standard output is left to what a person or a pipe asked for.
fn log_to_stderr(log: &Log) {
    // The configuration was refused if the filter cannot be read.
    let filter = EnvFilter::try_new(&log.level).unwrap_or_default();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match log.format {
        LogFormat::Json => lines.json().init(),
        LogFormat::Pretty => lines.init(),
    }
}
