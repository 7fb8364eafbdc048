//! Arguments in, exit code out.

use std::process::ExitCode;

use maitred::app;
use maitred::cli::{self, Output};
use maitred::config::Env;

fn main() -> ExitCode {
    cli::run(
        std::env::args_os(),
        Env::process(),
        &mut Output::standard(),
        app::start,
    )
}
