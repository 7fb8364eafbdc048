//! `smoke`: whether a running deployment does what it is for, seen from outside: over TLS, HTTP/1.1 and
//! HTTP/2, one row per check. Logs in once, uses event ids of its own, and gives back what it holds, so
//! that it may run again at once.

mod api;
mod front;
mod line;
mod report;
mod stream;
mod target;
mod webhook;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use self::line::{Line, Protocol};
use self::report::{Check, Format, Miss, Report};
use self::target::Target;
use super::{EXIT_NO, Failure, Output};
use crate::config::ConfigSource;
use crate::kernel::secret::Secret;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Where the edge is; by default on this machine, at the configured port.
    #[arg(long, value_name = "URL")]
    base: Option<String>,
    /// Trust this certificate authority (PEM) and no other; by default the development one for an
    /// edge that was not named, else those that browsers trust.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The plain listener, to see that it redirects.
    #[arg(long, value_name = "URL")]
    http: Option<String>,
    /// What to speak.
    #[arg(long, value_enum, default_value_t = Over::Both)]
    protocol: Over,
    /// Who logs in; else the variable SMOKE_EMAIL, else the demo user in development. A token in
    /// SMOKE_TOKEN makes logging in unnecessary.
    #[arg(long)]
    email: Option<String>,
    /// Better in the variable SMOKE_PASSWORD: others on this machine can read arguments.
    #[arg(long)]
    password: Option<String>,
    /// An organisation that the user is a member of.
    #[arg(long, value_name = "ID")]
    org: Option<String>,
    /// The webhook endpoint that is tried. Its events are of a kind that the API ignores.
    #[arg(long, value_name = "NAME", default_value = "billing")]
    endpoint: String,
    /// Variable with the endpoint's secret, where it is not the configuration's.
    #[arg(long, value_name = "VARIABLE")]
    webhook_secret_env: Option<String>,
    /// A purchase order of which one piece is received per protocol, to see the cache forget.
    #[arg(long, value_name = "ID")]
    order: Option<String>,
    /// The item of that purchase order.
    #[arg(long, value_name = "ID")]
    item: Option<String>,
    /// Leave out what changes data, other than logging in.
    #[arg(long)]
    read_only: bool,
    /// The rows as JSON.
    #[arg(long)]
    json: bool,
}

/// The protocols of a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Over {
    H1,
    H2,
    Both,
}

impl Over {
    fn protocols(self) -> &'static [Protocol] {
        match self {
            Self::H1 => &[Protocol::H1],
            Self::H2 => &[Protocol::H2],
            Self::Both => &[Protocol::H1, Protocol::H2],
        }
    }
}

/// Whether somebody is logged in. Tried once per run: the limit on it is five in fifteen minutes.
enum Session {
    Untried,
    Refused,
    Open(Secret),
}

pub(super) fn run(
    args: &Args,
    source: &ConfigSource,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let target = Target::of(args, source)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::No(format!("cannot start: {e}")))?;
    let format = match args.json {
        true => Format::Json,
        false => Format::Table,
    };
    let mut report = Report::begin(output, format)?;
    runtime.block_on(try_out(&target, &mut report))?;
    match report.end()? {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::from(EXIT_NO)),
    }
}

async fn try_out(target: &Target, report: &mut Report<'_>) -> io::Result<()> {
    let mut session = Session::Untried;
    for protocol in target.over.protocols() {
        let mut visit = Visit {
            target,
            protocol: *protocol,
            line: None,
        };
        if !front::tls(&mut visit, report).await? {
            continue;
        }
        front::health(&mut visit, report).await?;
        front::manners(&mut visit, report).await?;
        if matches!(session, Session::Untried) {
            session = api::log_in(&mut visit, report).await?;
        }
        webhook::all(&mut visit, report).await?;
        stream::all(&mut visit, report, &session).await?;
        api::all(&mut visit, report, &session).await?;
    }
    if let Some((host, port)) = &target.plain {
        front::redirect(target, host, *port, report).await?;
    }
    Ok(())
}

/// One protocol's turn: a connection that is kept while it lives.
struct Visit<'t> {
    target: &'t Target,
    protocol: Protocol,
    line: Option<Line>,
}

impl Visit<'_> {
    /// The open connection, or a new one.
    async fn line(&mut self) -> Result<&mut Line, Miss> {
        let line = match self.line.take().filter(Line::is_open) {
            Some(line) => line,
            None => self.fresh().await?,
        };
        Ok(self.line.insert(line))
    }

    /// A connection of its own.
    async fn fresh(&self) -> Result<Line, Miss> {
        let opened = self.target.door.connect(self.protocol).await;
        opened.map_err(|e| Miss::look(e, "whether the edge still takes connections"))
    }

    fn row(&self, what: &'static str, look: &'static str) -> Check {
        let over = self.protocol.name();
        Check { what, over, look }
    }
}
