//! Arguments in, exit code out.

use std::process::ExitCode;

use maitred::app;
use maitred::cli::{self, Output};
use maitred::config::Env;

/// A request makes some hundred small allocations, many of them freed on another thread: a fifth of
/// the CPU time goes with the system's allocator (see `bench/README.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(
        std::env::args_os(),
        Env::process(),
        &mut Output::standard(),
        app::start,
    )
}
