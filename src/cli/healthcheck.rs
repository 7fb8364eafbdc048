//! `healthcheck`: asks a running edge whether it is alive. Reads no configuration, so that it works in
//! a container without secrets.

use std::path::PathBuf;
use std::process::ExitCode;

use super::client::Client;
use super::{Failure, Output};

#[derive(clap::Args)]
pub(super) struct Args {
    /// What to ask; 2xx is healthy.
    #[arg(long, default_value = "http://127.0.0.1:8080/healthz")]
    url: String,
    /// Trust this certificate authority (PEM) and no other.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

pub(super) fn run(args: &Args, output: &mut Output) -> Result<ExitCode, Failure> {
    let client = Client::new(args.ca.as_deref()).map_err(Failure::Usage)?;
    let answer = client.get(&args.url).map_err(Failure::No)?;
    if !answer.status.is_success() {
        return Err(Failure::No(format!(
            "{} answered {}",
            args.url, answer.status
        )));
    }
    output.line(&format!("{} {}", args.url, answer.status))?;
    Ok(ExitCode::SUCCESS)
}
