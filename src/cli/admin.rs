//! The admin listener of a running edge, as commands speak to it: where it is, the token, and answers
//! that are a problem.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Uri};
use serde_json::Value;

use super::client::{Answer, Client};
use super::output::printable;
use super::{Failure, Output};
use crate::config::ConfigSource;

/// A range may have a million entries.
const PATIENCE: Duration = Duration::from_secs(600);
const BASE_DEFAULT: &str = "http://127.0.0.1:9090";
const BASE_VARIABLE: &str = "MAITRED_ADMIN";
/// Holds the token where no file is named.
const TOKEN_VARIABLE: &str = "MAITRED_ADMIN_TOKEN";

/// The options of every command that asks the admin listener.
#[derive(clap::Args)]
pub(super) struct Listener {
    /// Where the admin listener is; else the variable MAITRED_ADMIN, else http://127.0.0.1:9090.
    #[arg(long, global = true, value_name = "URL")]
    admin: Option<String>,
    /// File with the token of listeners.admin; else the variable MAITRED_ADMIN_TOKEN.
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Trust this certificate authority (PEM) and no other, where TLS ends in front of the listener.
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// JSON instead of text for people.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// The way to it.
pub(super) struct Admin {
    client: Client,
    base: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Admin {
    pub(super) fn of(
        args: &Listener,
        source: &ConfigSource,
        output: &mut Output,
    ) -> Result<Self, Failure> {
        let client = Client::new(args.ca.as_deref()).map_err(Failure::Usage)?;
        let named = args.admin.as_deref().or(source.env.get(BASE_VARIABLE));
        let base = named.unwrap_or(BASE_DEFAULT).trim_end_matches('/');
        let base = base.to_owned();
        let token = token(args, source)?;
        if token.is_some() && in_clear(&base) {
            output.error(&format!(
                "note: {base} is not on this machine and not https: others on the way can read the token"
            ));
        }
        Ok(Self {
            client: client.patient(PATIENCE),
            base,
            headers: token.into_iter().map(|t| (AUTHORIZATION, t)).collect(),
        })
    }

    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        let url = format!("{}{path}", self.base);
        let answer = self.client.get_with(&url, &self.headers);
        understood(&url, &answer.map_err(Failure::No)?)
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let url = format!("{}{path}", self.base);
        let body = Bytes::from(body.to_string());
        let answer = self.client.post(&url, &self.headers, body);
        understood(&url, &answer.map_err(Failure::No)?)
    }

    /// Copies a body of any length to the output.
    pub(super) fn copy(&self, path: &str, output: &mut Output) -> Result<(), Failure> {
        let url = format!("{}{path}", self.base);
        let mut broken = None;
        let mut sink = |piece: &[u8]| {
            output.bytes(piece).map_err(|error| {
                broken = Some(error);
                String::new()
            })
        };
        let outcome = self.client.stream(&url, &self.headers, &mut sink);
        match (broken, outcome) {
            (Some(error), _) => Err(Failure::Output(error)),
            (None, Err(error)) => Err(Failure::No(error)),
            (None, Ok(None)) => Ok(output.text("")?),
            (None, Ok(Some(answer))) => understood(&url, &answer).map(drop),
        }
    }
}

/// The JSON of a 2xx; else what the problem says.
fn understood(url: &str, answer: &Answer) -> Result<Value, Failure> {
    let value = serde_json::from_slice::<Value>(&answer.body);
    if answer.status.is_success() {
        return value.map_err(|e| {
            Failure::No(format!(
                "{url}: this is no answer of an admin listener: {e}"
            ))
        });
    }
    let detail = value
        .ok()
        .and_then(|v| Some(v["detail"].as_str()?.to_owned()));
    let detail = detail.unwrap_or_else(|| "is this the admin listener?".into());
    Err(Failure::No(format!(
        "{url}: {}: {}",
        answer.status,
        printable(&detail)
    )))
}

fn token(args: &Listener, source: &ConfigSource) -> Result<Option<HeaderValue>, Failure> {
    let (text, of) = match &args.token_file {
        Some(file) => {
            let shown = file.display().to_string();
            let text = std::fs::read_to_string(file)
                .map_err(|e| Failure::Usage(format!("cannot read {shown}: {e}")))?;
            (text, shown)
        }
        None => match source.env.get(TOKEN_VARIABLE) {
            Some(text) => (text.to_owned(), TOKEN_VARIABLE.to_owned()),
            None => return Ok(None),
        },
    };
    let value = HeaderValue::from_str(&format!("Bearer {}", text.trim()));
    let mut value = value.map_err(|_| Failure::Usage(format!("{of} holds no token")))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Whether a token would travel over a network unprotected.
fn in_clear(base: &str) -> bool {
    let Ok(uri) = base.parse::<Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or_default();
    let local = ["localhost", "::1", "[::1]"].contains(&host) || host.starts_with("127.");
    uri.scheme_str() == Some("http") && !local
}

/// `?key=value&…` of what is there.
pub(super) fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        let Some(value) = value else { continue };
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(key);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                    text.push(char::from(byte));
                }
                other => text.push_str(&format!("%{other:02X}")),
            }
        }
    }
    text
}

/// A value for a table: texts as they are, nothing for null.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}
