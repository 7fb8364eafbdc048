//! Arguments in, exit code out.

use std::process::ExitCode;

use maitred::cli::{self, Output, Serve};
use maitred::config::{Config, ConfigSource, Env};

fn main() -> ExitCode {
    cli::run(
        std::env::args_os(),
        Env::process(),
        &mut Output::standard(),
        start,
    )
}

/// Stands in until `maitred::app::run` is there.
fn start(_config: Config, _source: ConfigSource, _how: Serve) -> ExitCode {
    ExitCode::from(70)
}
