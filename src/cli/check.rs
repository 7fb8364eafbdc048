//! `check`: go or no-go, one line per thing that must be right before traffic comes. Changes nothing
//! but for a file that it writes and removes again to see whether a directory takes one.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::{EXIT_NO, Failure, Output};
use crate::config::{Config, ConfigSource, Environment};
use crate::egress::Address;
use crate::kernel::clock::{Clock, UnixMs};
use crate::listener::cert::CertStore;

/// Below this a certificate is about to end.
const EXPIRY_WARNING_DAYS: i64 = 14;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Leave out what needs the network.
    #[arg(long)]
    offline: bool,
}

/// How one thing stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Ok,
    /// Works, and should be looked at.
    Note,
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Fail => "FAIL",
        })
    }
}

/// One line of the table.
struct Line {
    what: String,
    verdict: Verdict,
    why: String,
}

impl Line {
    fn new(what: impl Into<String>, verdict: Verdict, why: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            verdict,
            why: why.into(),
        }
    }
}

pub(super) fn run(
    args: &Args,
    source: &ConfigSource,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let lines = match source.load() {
        Ok(config) => look(&config, source, args, Clock::system().unix()),
        Err(errors) => {
            let problem =
                |p: &crate::config::Problem| Line::new("config", Verdict::Fail, p.to_string());
            errors.problems().iter().map(problem).collect()
        }
    };
    for Line { what, verdict, why } in &lines {
        output.line(&format!("{verdict:<5} {what:<22} {why}"))?;
    }
    if lines.iter().any(|l| l.verdict == Verdict::Fail) {
        output.line("no go")?;
        return Ok(ExitCode::from(EXIT_NO));
    }
    output.line("go")?;
    Ok(ExitCode::SUCCESS)
}

fn look(config: &Config, source: &ConfigSource, args: &Args, now: UnixMs) -> Vec<Line> {
    let file = match &source.path {
        Some(path) => path.display().to_string(),
        None => "built in, for development".into(),
    };
    let short = config.digest.get(..12).unwrap_or_default();
    let mut lines = vec![Line::new(
        "config",
        Verdict::Ok,
        format!("{file}, digest {short}"),
    )];
    lines.push(secrets(config));
    lines.push(Line::new("cors", Verdict::Ok, origins(config)));
    lines.extend(certificates(config, now));
    if !args.offline {
        lines.extend(upstreams(config));
    }
    let mut directories = BTreeSet::from([directory_of(&config.upgrade_socket)]);
    directories.insert(&config.inbox.path);
    if let Some(api) = &config.embedded_api {
        let file = api.database_url.strip_prefix("sqlite://");
        let path = file.map(|f| Path::new(f.split('?').next().unwrap_or(f)));
        directories.extend(path.map(directory_of));
    }
    lines.extend(directories.into_iter().map(directory));
    lines.extend(
        config
            .notices
            .iter()
            .map(|n| Line::new("note", Verdict::Note, n.as_str())),
    );
    lines
}

/// They were judged when the configuration was loaded; this says which are active.
fn secrets(config: &Config) -> Line {
    let per_endpoint = config
        .routes
        .iter()
        .filter_map(|route| match &route.plan.then {
            crate::plan::Then::Ingest(endpoint) => {
                let names: Vec<_> = endpoint
                    .secrets
                    .iter()
                    .map(|s| s.name().to_string())
                    .collect();
                Some(format!("{}: {}", endpoint.name, names.join(" and ")))
            }
            crate::plan::Then::Forward { .. }
            | crate::plan::Then::Subscribe(_)
            | crate::plan::Then::Reply(_) => None,
        });
    let active: Vec<_> = per_endpoint.collect();
    let (verdict, which) = match config.environment {
        Environment::Production => (Verdict::Ok, "assertion, delivery"),
        Environment::Development => (Verdict::Note, "development; assertion, delivery"),
    };
    Line::new(
        "secrets",
        verdict,
        format!("{which}; webhooks {}", active.join(", ")),
    )
}

fn origins(config: &Config) -> String {
    match config.cors.origins.len() {
        0 => "no cross-origin reads".into(),
        _ => config.cors.origins.join(", "),
    }
}

fn certificates(config: &Config, now: UnixMs) -> Vec<Line> {
    let Some((_, policy)) = &config.https else {
        return vec![Line::new(
            "certificates",
            Verdict::Note,
            "no https listener",
        )];
    };
    let made_at_start = config.environment == Environment::Development
        && policy
            .certificates
            .iter()
            .all(|c| !c.chain.exists() && !c.key.exists());
    if made_at_start {
        return vec![Line::new(
            "certificates",
            Verdict::Note,
            "development ones are made at start",
        )];
    }
    match CertStore::load(policy) {
        Ok(store) => store
            .expiries()
            .into_iter()
            .map(|(n, at)| expiry(&n, at, now))
            .collect(),
        Err(e) => {
            let problem = |p: crate::listener::cert::Problem| {
                let why = format!("{}: {}; hint: {}", p.file.display(), p.what, p.hint);
                Line::new("certificates", Verdict::Fail, why)
            };
            e.problems.into_iter().map(problem).collect()
        }
    }
}

fn expiry(name: &str, at: UnixMs, now: UnixMs) -> Line {
    let days = (at.0 - now.0).div_euclid(86_400_000);
    let verdict = match days {
        ..0 => Verdict::Fail,
        0..EXPIRY_WARNING_DAYS => Verdict::Note,
        _ => Verdict::Ok,
    };
    let why = match days {
        ..0 => "has expired".to_owned(),
        _ => format!("{days} days left"),
    };
    Line::new(format!("certificate {name}"), verdict, why)
}

fn upstreams(config: &Config) -> Vec<Line> {
    let mut lines = Vec::new();
    for (name, pool) in &config.upstreams {
        for address in &pool.endpoints {
            let what = format!("upstream {name}");
            let own = config
                .embedded_api
                .as_ref()
                .map(|api| api.listen.to_string());
            if own.is_some_and(|own| *address == Address::Tcp(own)) {
                lines.push(Line::new(
                    what,
                    Verdict::Ok,
                    format!("{address}: starts with the edge"),
                ));
                continue;
            }
            let wait = Duration::from_millis(pool.connect_timeout_ms);
            lines.push(match reach(address, wait) {
                Ok(()) => Line::new(what, Verdict::Ok, format!("{address} answers")),
                Err(why) => Line::new(what, Verdict::Fail, format!("{address}: {why}")),
            });
        }
    }
    lines
}

fn reach(address: &Address, wait: Duration) -> Result<(), String> {
    match address {
        Address::Unix(path) => UnixStream::connect(path)
            .map(drop)
            .map_err(|e| e.to_string()),
        Address::Tcp(host_port) => {
            let found = host_port.to_socket_addrs().map_err(|e| e.to_string())?;
            let mut last = "the name has no address".to_owned();
            for address in found {
                match TcpStream::connect_timeout(&address, wait) {
                    Ok(_) => return Ok(()),
                    Err(e) => last = e.to_string(),
                }
            }
            Err(last)
        }
    }
}

fn directory_of(file: &Path) -> &Path {
    let parent = file.parent().filter(|p| *p != Path::new(""));
    parent.unwrap_or(Path::new("."))
}

fn directory(path: &Path) -> Line {
    let what = "disk";
    let shown = path.display();
    if !path.exists() {
        return Line::new(
            what,
            Verdict::Note,
            format!("{shown} is not there; it is made at start"),
        );
    }
    let probe = path.join(format!(".maitred-check-{}", std::process::id()));
    let outcome = std::fs::write(&probe, b"maitred").and_then(|()| std::fs::remove_file(&probe));
    match outcome {
        Ok(()) => Line::new(what, Verdict::Ok, format!("{shown} takes files")),
        Err(e) => Line::new(what, Verdict::Fail, format!("{shown}: {e}")),
    }
}
