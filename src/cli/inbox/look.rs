//! The verbs of `inbox` that change nothing.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::Filter;
use crate::cli::admin::{Admin, cell, query};
use crate::cli::output::printable;
use crate::cli::{Failure, Output};

/// Entries asked for at a time.
const PAGE: usize = 100;

#[derive(clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    filter: Filter,
    /// How many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Where an earlier list ended.
    #[arg(long, value_name = "ENTRY")]
    cursor: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct Show {
    /// The entry's id, as the list shows it.
    id: String,
    /// The body's exact bytes and nothing else.
    #[arg(long)]
    body: bool,
}

#[derive(clap::Args)]
pub(super) struct Export {
    #[command(flatten)]
    filter: Filter,
}

pub(super) fn stats(admin: &Admin, json: bool, output: &mut Output) -> Result<ExitCode, Failure> {
    let stats = admin.get("/inbox")?;
    if json {
        output.line(&stats.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let columns = [
        "endpoint",
        "state",
        "entries",
        "bytes",
        "oldest",
        "oldest_age_s",
    ];
    let rows = rows(&stats["endpoints"], &columns);
    output.table(
        &["ENDPOINT", "STATE", "ENTRIES", "BYTES", "OLDEST", "AGE_S"],
        &rows,
    )?;
    let entries = |state: &str| cell(&stats[state]["entries"]);
    output.line(&format!(
        "{} pending ({} being delivered), {} dead, {} delivered; {} bytes on disk",
        entries("pending"),
        cell(&stats["claimed"]),
        entries("dead"),
        entries("delivered"),
        cell(&stats["disk_bytes"])
    ))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn list(
    list: &List,
    admin: &Admin,
    json: bool,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let wanted = usize::try_from(list.limit).unwrap_or(usize::MAX);
    let (mut events, mut cursor) = (Vec::new(), list.cursor.clone());
    loop {
        let limit = PAGE.min(wanted - events.len()).to_string();
        let mut pairs = list.filter.pairs().to_vec();
        pairs.push(("cursor", cursor.as_deref()));
        pairs.push(("limit", Some(&limit)));
        let mut page = admin.get(&format!("/inbox/events{}", query(&pairs)))?;
        if let Value::Array(found) = page["events"].take() {
            events.extend(found);
        }
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() || events.len() >= wanted {
            break;
        }
    }
    if json {
        let whole = json!({ "events": events, "next_cursor": cursor });
        output.line(&whole.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |event: &Value| {
        let last = event["history"].as_array().and_then(|h| h.last());
        let columns = ["id", "endpoint", "event_id", "received_at"];
        let mut row: Vec<_> = columns.iter().map(|key| cell(&event[*key])).collect();
        row.push(state(event));
        row.push(cell(&event["attempts"]));
        row.push(last.map(outcome).unwrap_or_default());
        row
    };
    let heads = [
        "ENTRY", "ENDPOINT", "EVENT", "RECEIVED", "STATE", "ATTEMPTS", "LAST",
    ];
    output.table(&heads, &events.iter().map(row).collect::<Vec<_>>())?;
    if let Some(cursor) = cursor {
        output.line(&format!("more: --cursor {}", printable(&cursor)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn state(event: &Value) -> String {
    match event["dead_reason"].as_str() {
        Some(reason) => format!("dead ({reason})"),
        None => cell(&event["state"]),
    }
}

fn outcome(attempt: &Value) -> String {
    match attempt["error"].as_str() {
        Some(error) => error.to_owned(),
        None => cell(&attempt["status"]),
    }
}

pub(super) fn show(
    show: &Show,
    admin: &Admin,
    json: bool,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    // An id is looked up as it is; anything else must not become another path.
    let id = &show.id;
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(Failure::Usage(format!(
            "`{id}` is no entry; `maitred inbox list` shows their ids"
        )));
    }
    if show.body {
        admin.copy(&format!("/inbox/events/{id}/body"), output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let event = admin.get(&format!("/inbox/events/{id}"))?;
    if json {
        output.line(&event.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    for key in [
        "id",
        "endpoint",
        "provider",
        "destination",
        "event_id",
        "order_key",
        "received_at",
        "due_at",
        "ended_at",
        "attempts",
        "first_failed_at",
        "redelivered_at",
        "content_type",
        "traceparent",
    ] {
        let value = cell(&event[key]);
        if !value.is_empty() {
            output.line(&format!("{key:<16} {}", printable(&value)))?;
        }
    }
    output.line(&format!("{:<16} {}", "state", state(&event)))?;
    for header in event["headers"].as_array().into_iter().flatten() {
        let (name, value) = (cell(&header[0]), cell(&header[1]));
        let header = printable(&format!("{name}: {value}"));
        output.line(&format!("{:<16} {header}", "header"))?;
    }
    for attempt in event["history"].as_array().into_iter().flatten() {
        let (at, ms) = (cell(&attempt["at"]), cell(&attempt["took_ms"]));
        let line = printable(&format!("{at}  {}  {ms} ms", outcome(attempt)));
        output.line(&format!("{:<16} {line}", "attempt"))?;
    }
    output.line(&format!(
        "{:<16} {} bytes",
        "body",
        cell(&event["body_bytes"])
    ))?;
    match event["body"].as_str() {
        Some(text) => {
            for line in text.lines() {
                output.line(&printable(line))?;
            }
        }
        None => output.line(&format!(
            "(too long to show, or no text: maitred inbox show {id} --body)"
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn export(
    export: &Export,
    admin: &Admin,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let query = query(&export.filter.pairs());
    admin.copy(&format!("/inbox/export{query}"), output)?;
    Ok(ExitCode::SUCCESS)
}

fn rows(list: &Value, columns: &[&str]) -> Vec<Vec<String>> {
    let row = |value: &Value| columns.iter().map(|key| cell(&value[*key])).collect();
    list.as_array().into_iter().flatten().map(row).collect()
}
