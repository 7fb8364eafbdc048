//! `config`: shows the format, its documentation, or what is in effect.

use std::process::ExitCode;

use super::{Failure, Output};
use crate::config::{ConfigSource, docs, preset, source};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// JSON Schema of the file, for editors.
    Schema,
    /// Reference of all keys (Markdown).
    Docs,
    /// Webhook presets that endpoints may name as their scheme.
    Presets,
    /// All keys with their defaults, commented (TOML).
    Defaults,
    /// Every value in effect and where it was written; secrets left out.
    Show,
}

pub(super) fn run(
    args: &Args,
    source: &ConfigSource,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    match args.what {
        What::Schema => output.line(&format!("{:#}", docs::published_schema()))?,
        What::Docs => output.text(&docs::markdown())?,
        What::Presets => output.text(&preset::list())?,
        What::Defaults => output.text(source::DEFAULTS)?,
        What::Show => {
            source.load()?;
            output.text(&docs::show(source)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
