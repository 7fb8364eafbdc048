//! The rows of a smoke test: written while they come, or at the end as JSON.

use std::future::Future;
use std::io;
use std::time::Instant;

use serde_json::{Value, json};

use crate::cli::Output;
use crate::kernel::clock::Clock;

/// What a row is about.
#[derive(Clone, Copy)]
pub(super) struct Check {
    pub(super) what: &'static str,
    pub(super) over: &'static str,
    /// Where somebody should look when it fails and the check itself knows nothing better.
    pub(super) look: &'static str,
}

/// Why a check did not pass.
pub(super) enum Miss {
    Fail { seen: String, look: Option<String> },
    Skip(String),
}

impl Miss {
    pub(super) fn fail(seen: impl Into<String>) -> Self {
        let (seen, look) = (seen.into(), None);
        Self::Fail { seen, look }
    }

    pub(super) fn look(seen: impl Into<String>, look: impl Into<String>) -> Self {
        let (seen, look) = (seen.into(), Some(look.into()));
        Self::Fail { seen, look }
    }

    pub(super) fn skip(why: impl Into<String>) -> Self {
        Self::Skip(why.into())
    }
}

/// What was seen, and what later checks need of it.
pub(super) type Found<T> = Result<(String, T), Miss>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Ok,
    Fail,
    Skipped,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Fail => "FAIL",
            Self::Skipped => "SKIPPED",
        }
    }
}

/// How the rows are shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Format {
    Table,
    Json,
}

/// The rows so far.
pub(super) struct Report<'o> {
    output: &'o mut Output,
    format: Format,
    clock: Clock,
    began: Instant,
    rows: Vec<Value>,
    failed: usize,
    skipped: usize,
}

impl<'o> Report<'o> {
    pub(super) fn begin(output: &'o mut Output, format: Format) -> io::Result<Self> {
        let clock = Clock::system();
        if format == Format::Table {
            output.line(&row("check", "over", "result", "ms", "seen"))?;
        }
        let began = clock.instant();
        Ok(Self {
            output,
            format,
            clock,
            began,
            rows: Vec::new(),
            failed: 0,
            skipped: 0,
        })
    }

    /// Does one check and writes its row. What it found is there only where it passed.
    pub(super) async fn check<T>(
        &mut self,
        check: Check,
        task: impl Future<Output = Found<T>>,
    ) -> io::Result<Option<T>> {
        let began = self.clock.instant();
        let outcome = task.await;
        let ms = self.clock.instant().duration_since(began).as_millis();
        let (verdict, seen, look, found) = match outcome {
            Ok((seen, found)) => (Verdict::Ok, seen, None, Some(found)),
            Err(Miss::Fail { seen, look }) => {
                let look = look.unwrap_or_else(|| check.look.to_owned());
                (Verdict::Fail, seen, Some(look), None)
            }
            Err(Miss::Skip(why)) => (Verdict::Skipped, why, None, None),
        };
        match verdict {
            Verdict::Ok => {}
            Verdict::Fail => self.failed += 1,
            Verdict::Skipped => self.skipped += 1,
        }
        if self.format == Format::Table {
            let (word, ms) = (verdict.word(), ms.to_string());
            self.output
                .line(&row(check.what, check.over, word, &ms, &seen))?;
            if let Some(look) = &look {
                let look = format!("look at: {look}");
                self.output.line(&row("", "", "", "", &look))?;
            }
        }
        self.rows.push(json!({
            "check": check.what,
            "protocol": check.over,
            "result": verdict.word().to_lowercase(),
            "seen": seen,
            "look_at": look,
            "ms": u64::try_from(ms).unwrap_or(u64::MAX),
        }));
        Ok(found)
    }

    /// Whether nothing failed.
    pub(super) fn end(self) -> io::Result<bool> {
        match self.format {
            Format::Json => {
                let rows = Value::from(self.rows);
                self.output.line(&format!("{rows:#}"))?;
            }
            Format::Table => {
                let took = self
                    .clock
                    .instant()
                    .duration_since(self.began)
                    .as_secs_f64();
                let (failed, skipped) = (self.failed, self.skipped);
                let ok = self.rows.len() - failed - skipped;
                let line = format!("{ok} ok, {failed} failed, {skipped} skipped in {took:.1} s");
                self.output.line(&line)?;
            }
        }
        Ok(self.failed == 0)
    }
}

fn row(what: &str, over: &str, result: &str, ms: &str, seen: &str) -> String {
    let line = format!("{what:<27} {over:<5} {result:<7} {ms:>5}  {seen}");
    line.trim_end().to_owned()
}
