//! The verbs of `inbox` that change entries: plan, show, ask, do.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::Filter;
use crate::cli::admin::{Admin, cell};
use crate::cli::{EXIT_NO, Failure, Output};

#[derive(clap::Args)]
pub(super) struct Redeliver {
    #[command(flatten)]
    what: What,
    /// Entries per second; of a range 50 if nothing is said.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
}

#[derive(clap::Args)]
pub(super) struct Discard {
    #[command(flatten)]
    what: What,
}

#[derive(clap::Args)]
struct What {
    /// Entries by id; else a range, which needs --state.
    #[arg(value_name = "ENTRY")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Show the plan and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// Whether somebody is asked before it is done.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Asking {
    OfARange,
    Always,
}

impl Redeliver {
    pub(super) fn run(
        &self,
        admin: &Admin,
        json: bool,
        output: &mut Output,
    ) -> Result<ExitCode, Failure> {
        let work = Work {
            verb: "redeliver",
            asking: Asking::OfARange,
            json,
        };
        work.run(&self.what, self.rate, admin, output)
    }
}

impl Discard {
    pub(super) fn run(
        &self,
        admin: &Admin,
        json: bool,
        output: &mut Output,
    ) -> Result<ExitCode, Failure> {
        let work = Work {
            verb: "discard",
            asking: Asking::Always,
            json,
        };
        work.run(&self.what, None, admin, output)
    }
}

struct Work {
    verb: &'static str,
    asking: Asking,
    json: bool,
}

impl Work {
    fn run(
        &self,
        what: &What,
        rate: Option<u32>,
        admin: &Admin,
        output: &mut Output,
    ) -> Result<ExitCode, Failure> {
        let path = format!("/inbox/{}", self.verb);
        let mut request = what.request()?;
        if let Some(rate) = rate {
            request["rate_per_s"] = json!(rate);
        }
        request["dry_run"] = json!(true);
        let plan = admin.post(&path, &request)?;
        if what.dry_run || !self.json {
            match self.json {
                true => output.line(&plan.to_string())?,
                false => output.line(&self.told(&plan))?,
            }
        }
        if what.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        let planned = plan["count"].as_u64().unwrap_or_default();
        if planned > 0 && self.must_ask(what) && !self.agreed(output)? {
            return Err(Failure::No("nothing was changed".into()));
        }
        let done = match planned {
            0 => json!({ "verb": self.verb, "dry_run": false, "count": 0 }),
            _ => admin.post(&path, &plan["confirm"])?,
        };
        match self.json {
            true => output.line(&done.to_string())?,
            false => output.line(&format!("{} done: {}", self.verb, cell(&done["count"])))?,
        }
        // Whoever names entries wants to know that one is not there.
        let named = u64::try_from(what.ids.len()).unwrap_or(u64::MAX);
        let missing = done["count"].as_u64().unwrap_or_default() < named;
        match missing {
            true => {
                output.error(
                    "not all of the entries named: they are not there (any more), or wait behind \
                     another of their order key",
                );
                Ok(ExitCode::from(EXIT_NO))
            }
            false => Ok(ExitCode::SUCCESS),
        }
    }

    /// The plan in words.
    fn told(&self, plan: &Value) -> String {
        let rate = match plan["rate_per_s"].as_u64() {
            Some(rate) => format!(
                ", at {rate} per second: about {} s",
                cell(&plan["duration_s"])
            ),
            None => String::new(),
        };
        format!(
            "plan: {} {} entries, {} bytes{rate}",
            self.verb,
            cell(&plan["count"]),
            cell(&plan["bytes"])
        )
    }

    fn must_ask(&self, what: &What) -> bool {
        !what.yes && (what.ids.is_empty() || self.asking == Asking::Always)
    }

    fn agreed(&self, output: &mut Output) -> Result<bool, Failure> {
        let mut terminal = io::stdin().lock();
        if !io::stdin().is_terminal() {
            return Err(Failure::Usage(format!(
                "there is no terminal to ask on: add --yes to {} all the same, or --dry-run to see the \
                 plan alone",
                self.verb
            )));
        }
        output.error(&format!("{} them? Type yes:", self.verb));
        let mut answer = String::new();
        terminal.read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "yes"))
    }
}

impl What {
    /// As the admin listener takes it.
    fn request(&self) -> Result<Value, Failure> {
        let named = self.filter.pairs();
        let named = named
            .iter()
            .filter_map(|(key, value)| Some((*key, (*value)?)));
        let filter: serde_json::Map<_, _> = named
            .map(|(key, value)| (key.to_owned(), json!(value)))
            .collect();
        match (self.ids.is_empty(), filter.is_empty()) {
            (false, true) => Ok(json!({ "ids": self.ids })),
            (true, false) if self.filter.state.is_some() => Ok(json!({ "filter": filter })),
            (true, _) => Err(Failure::Usage(
                "name entries by id, or a range with --state (pending, dead or delivered)".into(),
            )),
            (false, false) => Err(Failure::Usage(
                "name entries by id or by a range, not both".into(),
            )),
        }
    }
}
