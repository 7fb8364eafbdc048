//! `inbox`: the webhooks that a running edge keeps. Shows what the admin listener says; a change of a
//! range is planned, shown and asked about before it is made.

mod change;
mod look;

use std::process::ExitCode;

use clap::Subcommand;

use super::admin::{self, Admin};
use super::{Failure, Output};
use crate::config::ConfigSource;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    admin: admin::Listener,
}

#[derive(Subcommand)]
enum Verb {
    /// How much there is, by endpoint and state, and how old.
    Stats,
    /// The entries that match, newest first.
    List(look::List),
    /// One entry: headers, attempts, body.
    Show(look::Show),
    /// Deliver entries again; a range is shown and asked about first.
    Redeliver(change::Redeliver),
    /// Remove entries for good; shown and asked about first.
    Discard(change::Discard),
    /// Every entry that matches, with its body, one JSON object a line.
    Export(look::Export),
}

/// Which entries are meant.
#[derive(clap::Args)]
struct Filter {
    /// Of this webhook endpoint.
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// In this state.
    #[arg(long, value_parser = ["pending", "dead", "delivered"])]
    state: Option<String>,
    /// With the provider's id of the event.
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
    /// Received at this time (RFC 3339) or later.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Received before this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

impl Filter {
    fn pairs(&self) -> [(&'static str, Option<&str>); 5] {
        [
            ("endpoint", self.endpoint.as_deref()),
            ("state", self.state.as_deref()),
            ("event_id", self.event_id.as_deref()),
            ("from", self.from.as_deref()),
            ("to", self.to.as_deref()),
        ]
    }
}

pub(super) fn run(
    args: &Args,
    source: &ConfigSource,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let admin = Admin::of(&args.admin, source, output)?;
    let json = args.admin.json;
    match &args.verb {
        Verb::Stats => look::stats(&admin, json, output),
        Verb::List(list) => look::list(list, &admin, json, output),
        Verb::Show(show) => look::show(show, &admin, json, output),
        Verb::Redeliver(redeliver) => redeliver.run(&admin, json, output),
        Verb::Discard(discard) => discard.run(&admin, json, output),
        Verb::Export(export) => look::export(export, &admin, output),
    }
}
