//! `refusals`: the recent refusals of a running edge, each with its precise reason and what to do.

use std::process::ExitCode;

use super::admin::{self, Admin, cell, query};
use super::output::printable;
use super::{Failure, Output};
use crate::config::ConfigSource;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Only those of this webhook endpoint.
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// How many, newest first.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=256))]
    limit: u16,
    #[command(flatten)]
    admin: admin::Listener,
}

pub(super) fn run(
    args: &Args,
    source: &ConfigSource,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let admin = Admin::of(&args.admin, source, output)?;
    let limit = args.limit.to_string();
    let query = query(&[
        ("endpoint", args.endpoint.as_deref()),
        ("limit", Some(&limit)),
    ]);
    let answer = admin.get(&format!("/refusals{query}"))?;
    if args.admin.json {
        output.line(&answer.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    if rows.is_empty() {
        output.line("no refusals")?;
    }
    for row in rows {
        let told = |key: &str| printable(&cell(&row[key]));
        output.line(&format!(
            "{}  {}  {}  {}  {}",
            told("at"),
            told("status"),
            told("label"),
            told("route"),
            told("request_id")
        ))?;
        output.line(&format!("  reason: {}", told("reason")))?;
        output.line(&format!("  fix:    {}", told("fix")))?;
    }
    Ok(ExitCode::SUCCESS)
}
