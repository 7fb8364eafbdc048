//! Finds a secret and judges its text: variable, else file, else (development only) the text in the
//! configuration. Never puts a secret into a message.

use std::path::{Path, PathBuf};

use super::Environment;
use super::env::{self, Env};
use super::raw;

/// A secret as text, not yet judged by what it is for.
pub(super) struct Found {
    pub(super) text: String,
    /// The file it was read from, for the watcher.
    pub(super) file: Option<PathBuf>,
    /// How to call its source in a message, e.g. `variable WH_SECRET`.
    pub(super) source: String,
}

/// Longest secret file read.
const FILE_BYTES_MAX: u64 = 65_536;

/// `Ok(None)`: it is not set, and may be missing.
pub(super) fn find(
    raw: &raw::SecretSource,
    env: &Env,
    environment: Environment,
) -> Result<Option<Found>, String> {
    let Some(found) = locate(raw, env)? else {
        return match raw.optional {
            true => Ok(None),
            false => Err(format!("no secret: {} is not set", sources(raw))),
        };
    };
    judge(&found, environment)?;
    Ok(Some(found))
}

fn locate(raw: &raw::SecretSource, env: &Env) -> Result<Option<Found>, String> {
    if let Some((name, value)) = raw.env.as_ref().and_then(|n| Some((n, env.raw(n)?))) {
        // A blank variable is a deployment that forgot to fill it in, unless it need not be there.
        if !(value.is_empty() && raw.optional) {
            return Ok(Some(Found {
                text: value.to_owned(),
                file: None,
                source: format!("variable {name}"),
            }));
        }
    }
    if let Some(file) = &raw.secret_file {
        let path = PathBuf::from(file);
        if path.exists() || !(raw.optional || raw.danger_secret.is_some()) {
            return Ok(Some(Found {
                text: read(&path).map_err(|e| unless_set(raw, &e))?,
                source: format!("file {file}"),
                file: Some(path),
            }));
        }
    }
    Ok(raw.danger_secret.as_ref().map(|text| Found {
        text: text.clone(),
        file: None,
        source: "danger_secret".into(),
    }))
}

/// The variable comes first, so an operator must hear that it was looked for.
fn unless_set(raw: &raw::SecretSource, why: &str) -> String {
    match &raw.env {
        Some(name) => format!("no secret: variable {name} is not set, and {why}"),
        None => why.to_owned(),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let size = std::fs::metadata(path)
        .map_err(|e| format!("cannot read {shown}: {e}"))?
        .len();
    if size > FILE_BYTES_MAX {
        return Err(format!(
            "{shown} has {size} bytes; a secret file has at most {FILE_BYTES_MAX}"
        ));
    }
    let mut text =
        std::fs::read_to_string(path).map_err(|e| format!("cannot read {shown}: {e}"))?;
    // An editor or `echo` ends the file with one line break; anything more is not ours to guess at.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn judge(found: &Found, environment: Environment) -> Result<(), String> {
    let Found { text, source, .. } = found;
    if text.trim().is_empty() {
        return Err(format!("{source} is blank"));
    }
    if env::unexpanded(text) {
        return Err(format!(
            "{source} holds a placeholder that was never filled in"
        ));
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err(format!(
            "{source} begins or ends with white space, or holds a line break or control character"
        ));
    }
    if environment == Environment::Production && is_for_development(text) {
        return Err(format!(
            "{source} holds a development secret (`dev-…`), which everybody knows"
        ));
    }
    Ok(())
}

/// Whether the text, or the key that a `whsec_` text carries, begins with `dev-`.
pub(super) fn is_for_development(text: &str) -> bool {
    text.starts_with("dev-") || standard_webhooks_key(text).is_ok_and(|k| k.starts_with(b"dev-"))
}

/// The key bytes behind `whsec_` and base64.
pub(super) fn standard_webhooks_key(text: &str) -> Result<Vec<u8>, String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let expected = "expected `whsec_` and base64 of 24 to 64 bytes";
    let encoded = text.strip_prefix("whsec_").ok_or(expected)?;
    let key = STANDARD.decode(encoded).map_err(|_| expected)?;
    match key.len() {
        24..=64 => Ok(key),
        n => Err(format!("is {n} bytes long; {expected}")),
    }
}

/// Where this secret may be put, for a message.
pub(super) fn sources(raw: &raw::SecretSource) -> String {
    let named = [
        raw.env.as_ref().map(|n| format!("variable {n}")),
        raw.secret_file.as_ref().map(|f| format!("file {f}")),
    ];
    let named: Vec<_> = named.into_iter().flatten().collect();
    match named.is_empty() {
        true => "`env`, `secret_file` or `danger_secret`".into(),
        false => named.join(" or "),
    }
}
