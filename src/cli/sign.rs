//! `sign` and `send`: a webhook as its provider would sign it, with the endpoint's own secret. For
//! trying a deployment out; whoever can run it has the secret anyway.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};

use super::client::Client;
use super::{Failure, Output, place};
use crate::config::{Config, ConfigSource};
use crate::kernel::clock::{Clock, UnixMs};
use crate::kernel::secret::Secret;
use crate::plan::Then;
use crate::webhook::sign::{Signed, Unsigned, sign as make};
use crate::webhook::{self, ActiveSecret};

/// As much as any endpoint could take.
const BODY_BYTES_MAX: u64 = 67_108_864;

#[derive(clap::Args)]
pub(super) struct SignArgs {
    #[command(flatten)]
    event: Event,
    /// Where the edge is, for the printed command; by default on this machine, at the configured port.
    #[arg(long, value_name = "URL")]
    base: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct SendArgs {
    #[command(flatten)]
    event: Event,
    /// Where the edge is; by default on this machine, at the configured port.
    #[arg(long, value_name = "URL")]
    base: Option<String>,
    /// Trust this certificate authority (PEM) and no other; by default the development one for an
    /// edge that was not named, else those that browsers trust.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Event {
    /// Name of the webhook endpoint, e.g. billing.
    #[arg(long, value_name = "NAME")]
    endpoint: String,
    /// File with the exact body, or `-` for standard input.
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// Event id, for schemes that sign one in a header.
    #[arg(long, default_value = "evt_maitred_sign")]
    id: String,
    /// Query of the request, for schemes that sign a part of it, e.g. `data.id=123`.
    #[arg(long, default_value = "")]
    query: String,
    /// File with the private key, for schemes whose endpoints have public keys: PKCS #8 in PEM, whsk_…,
    /// or the hex of an Ed25519 seed.
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
}

pub(super) fn sign(
    args: &SignArgs,
    source: &ConfigSource,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let config = source.load()?;
    let body = read(&args.event.body)?;
    let signed = signed(&config, &args.event, &body)?;
    let (base, ca) = place::whereabouts(&config, args.base.as_deref(), None);
    let url = url(&base, &args.event, &signed);
    output.line(&format!("curl -sS {} \\", quote(&url)))?;
    if let Some(ca) = ca {
        output.line(&format!(
            "  --cacert {} \\",
            quote(&ca.display().to_string())
        ))?;
    }
    for (name, value) in with_content_type(&signed) {
        let value = value.to_str().unwrap_or_default();
        output.line(&format!("  -H {} \\", quote(&format!("{name}: {value}"))))?;
    }
    let data = match &signed.body {
        Some(body) => String::from_utf8_lossy(body).into_owned(),
        None => format!("@{}", args.event.body.display()),
    };
    output.line(&format!("  --data-binary {}", quote(&data)))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn send(
    args: &SendArgs,
    source: &ConfigSource,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let config = source.load()?;
    let body = read(&args.event.body)?;
    let signed = signed(&config, &args.event, &body)?;
    let (base, ca) = place::whereabouts(&config, args.base.as_deref(), args.ca.as_deref());
    let client = Client::new(ca.as_deref()).map_err(Failure::Usage)?;
    let (url, headers) = (url(&base, &args.event, &signed), with_content_type(&signed));
    let body = Bytes::from(signed.body.unwrap_or(body));
    let answer = client.post(&url, &headers, body).map_err(Failure::No)?;
    output.line(&format!(
        "{} {}",
        answer.status,
        String::from_utf8_lossy(&answer.body)
    ))?;
    match answer.status.is_success() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Failure::No(format!(
            "{} was not accepted",
            args.event.endpoint
        ))),
    }
}

fn signed(config: &Config, event: &Event, body: &[u8]) -> Result<Signed, Failure> {
    let endpoint = endpoint(config, &event.endpoint)?;
    let now = Clock::system().unix();
    let secret = match &event.private_key {
        Some(path) => private_key(path, &endpoint)?,
        None => shared_secret(&endpoint, now)?,
    };
    let unsigned = Unsigned {
        method: "POST",
        query: &event.query,
        event_id: &event.id,
        body,
    };
    make(&endpoint.scheme, &secret, &unsigned, now)
        .map_err(|e| Failure::Usage(format!("cannot sign for this endpoint: {e}; {}", e.hint())))
}

/// A secret that can sign comes before a public key.
fn shared_secret(endpoint: &webhook::Endpoint, now: UnixMs) -> Result<ActiveSecret, Failure> {
    let active = endpoint.secrets.iter().filter(|s| s.is_active(now));
    active
        .min_by_key(|secret| secret.is_public_key())
        .cloned()
        .ok_or_else(|| Failure::Usage(format!("no secret of `{}` is active now", endpoint.name)))
}

fn private_key(path: &Path, endpoint: &webhook::Endpoint) -> Result<ActiveSecret, Failure> {
    let text = Secret::new(read(path)?);
    ActiveSecret::signing("private", &text, endpoint.scheme.keys())
        .map_err(|e| Failure::Usage(format!("{}: {}; {}", path.display(), e.problem, e.hint)))
}

pub(super) fn endpoint(config: &Config, name: &str) -> Result<Arc<webhook::Endpoint>, Failure> {
    let all = config
        .routes
        .iter()
        .filter_map(|route| match &route.plan.then {
            Then::Ingest(endpoint) => Some(endpoint),
            Then::Forward { .. } | Then::Subscribe(_) | Then::Reply(_) => None,
        });
    let names: Vec<_> = all.clone().map(|e| e.name.to_string()).collect();
    all.into_iter()
        .find(|e| *e.name == *name)
        .cloned()
        .ok_or_else(|| {
            Failure::Usage(format!(
                "there is no endpoint `{name}`; there is {}",
                names.join(", ")
            ))
        })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let outcome = match path == Path::new("-") {
        true => std::io::stdin().take(BODY_BYTES_MAX).read_to_end(&mut body),
        false => {
            std::fs::File::open(path).and_then(|f| f.take(BODY_BYTES_MAX).read_to_end(&mut body))
        }
    };
    outcome.map_err(|e| Failure::Usage(format!("cannot read {}: {e}", path.display())))?;
    Ok(body)
}

/// The headers to send; JSON unless the scheme wants something else.
fn with_content_type(signed: &Signed) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = signed.headers.clone();
    if !headers.iter().any(|(name, _)| *name == CONTENT_TYPE) {
        headers.insert(
            0,
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        );
    }
    headers
}

fn url(base: &str, event: &Event, signed: &Signed) -> String {
    let path = format!("{}/webhooks/{}", base.trim_end_matches('/'), event.endpoint);
    let given = Some(&event.query).filter(|query| !query.is_empty());
    match signed.query.as_ref().or(given) {
        None => path,
        Some(query) => format!("{path}?{query}"),
    }
}

/// For a POSIX shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
