//! What is tried and with what: from arguments, environment and configuration to one [`Target`], before
//! anything is sent.

use std::sync::Arc;

use http::Uri;

use super::line::Door;
use super::{Args, Over};
use crate::cli::client::tls_config;
use crate::cli::{Failure, place, sign};
use crate::config::{Config, ConfigSource, Env, Environment, HttpListener};
use crate::kernel::clock::Clock;
use crate::kernel::id::Random;
use crate::kernel::secret::Secret;
use crate::plan::Then;
use crate::webhook::{ActiveSecret, Endpoint};

/// The stream and the cached page that are tried; `docs/adr/0001` names both.
pub(super) const STREAM: &str = "/stream/kpis";
pub(super) const CACHED: &str = "/franchise/overview";

/// Of the demo data that the one-command start makes.
const DEMO_EMAIL: &str = "manager@staging.com";
const DEMO_PASSWORD: &str = "staging-manager-1";
const DEMO_ORG: &str = "org_demo";
const DEMO_ORDER: &str = "po_demo_flour";
const DEMO_ITEM: &str = "itm_demo_flour";

/// Everything that the checks need to know.
pub(super) struct Target {
    pub(super) door: Door,
    pub(super) over: Over,
    /// Host and port of the plain listener.
    pub(super) plain: Option<(String, u16)>,
    pub(super) entry: Entry,
    pub(super) org: String,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) secret: ActiveSecret,
    /// Streams that one user may hold.
    pub(super) streams_max: u32,
    /// Goods that may be received to change something; `None` = nothing is known that may.
    pub(super) receipt: Option<Receipt>,
    pub(super) read_only: bool,
    /// Makes the event ids of this run its own.
    pub(super) run: String,
    pub(super) clock: Clock,
}

/// How the caller becomes known.
pub(super) enum Entry {
    Password { email: String, password: Secret },
    Token(Secret),
}

/// A line of a purchase order that takes one more.
pub(super) struct Receipt {
    pub(super) order: String,
    pub(super) item: String,
}

impl Target {
    pub(super) fn of(args: &Args, source: &ConfigSource) -> Result<Self, Failure> {
        let config = source.load()?;
        let (base, ca) = place::whereabouts(&config, args.base.as_deref(), args.ca.as_deref());
        let (host, port) = address(&base, "https", 443)?;
        let demo = is_demo(&config, &host);
        let tls = tls_config(ca.as_deref()).map_err(Failure::Usage)?;
        let endpoint = sign::endpoint(&config, &args.endpoint)?;
        let clock = Clock::system();
        let secret = secret(args, &source.env, &endpoint, &clock)?;
        let receipt = match (&args.order, &args.item) {
            (Some(order), Some(item)) => Some((order.as_str(), item.as_str())),
            (None, None) if demo => Some((DEMO_ORDER, DEMO_ITEM)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(Failure::Usage("--order and --item go together".into()));
            }
        };
        Ok(Self {
            plain: plain(args, &config, demo, port)?,
            entry: entry(args, &source.env, demo)?,
            org: org(args, demo)?,
            streams_max: streams_max(&config),
            receipt: receipt.map(|(order, item)| Receipt {
                order: order.to_owned(),
                item: item.to_owned(),
            }),
            door: Door { host, port, tls },
            over: args.protocol,
            endpoint,
            secret,
            read_only: args.read_only,
            run: format!("{:016x}", Random::from_os().bits()),
            clock,
        })
    }
}

/// Demo data is there only where this configuration's own edge makes it, on this machine.
fn is_demo(config: &Config, host: &str) -> bool {
    let seeds = config
        .embedded_api
        .as_ref()
        .is_some_and(|api| api.seed_demo);
    let here = matches!(host, "localhost" | "127.0.0.1" | "::1");
    config.environment == Environment::Development && seeds && here
}

/// Host and port of a URL that is nothing more than that.
fn address(url: &str, scheme: &str, default_port: u16) -> Result<(String, u16), Failure> {
    let wrong =
        |why: &str| Failure::Usage(format!("`{url}`: {why}, e.g. {scheme}://localhost:8443"));
    let uri: Uri = url.parse().map_err(|_| wrong("not a URL"))?;
    if uri.scheme_str() != Some(scheme) {
        return Err(wrong(&format!("must begin with {scheme}://")));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong("must end after the host and the port"));
    }
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(wrong("names no host"));
    }
    Ok((host.to_owned(), uri.port_u16().unwrap_or(default_port)))
}

/// Where `--http` does not say, the own configuration's, if it leads to the edge that is tried.
fn plain(
    args: &Args,
    config: &Config,
    demo: bool,
    port: u16,
) -> Result<Option<(String, u16)>, Failure> {
    if let Some(url) = &args.http {
        return address(url, "http", 80).map(Some);
    }
    let leads_there = |http: &&HttpListener| demo && http.redirect_to_port == Some(port);
    let own = config.http.as_ref().filter(leads_there);
    Ok(own.map(|http| ("localhost".to_owned(), http.listener.address.port())))
}

fn entry(args: &Args, env: &Env, demo: bool) -> Result<Entry, Failure> {
    if let Some(token) = env.get("SMOKE_TOKEN") {
        return Ok(Entry::Token(Secret::new(token)));
    }
    let email = args.email.as_deref().or(env.get("SMOKE_EMAIL"));
    let password = args.password.as_deref().or(env.get("SMOKE_PASSWORD"));
    match (email, password) {
        (Some(email), Some(password)) => Ok(Entry::Password {
            email: email.to_owned(),
            password: Secret::new(password),
        }),
        (None, None) if demo => Ok(Entry::Password {
            email: DEMO_EMAIL.to_owned(),
            password: Secret::new(DEMO_PASSWORD),
        }),
        (Some(_) | None, None) | (None, Some(_)) => Err(Failure::Usage(
            "who logs in? Give --email and the variable SMOKE_PASSWORD, or SMOKE_TOKEN".into(),
        )),
    }
}

fn org(args: &Args, demo: bool) -> Result<String, Failure> {
    match &args.org {
        Some(org) => Ok(org.clone()),
        None if demo => Ok(DEMO_ORG.to_owned()),
        None => Err(Failure::Usage(
            "which organisation? Give --org, one that the user is a member of".into(),
        )),
    }
}

fn secret(
    args: &Args,
    env: &Env,
    endpoint: &Endpoint,
    clock: &Clock,
) -> Result<ActiveSecret, Failure> {
    if let Some(name) = &args.webhook_secret_env {
        let text = env.get(name);
        let text = text.ok_or_else(|| Failure::Usage(format!("variable {name} is not set")))?;
        return ActiveSecret::new(name, &Secret::new(text), endpoint.scheme.keys())
            .map_err(|e| Failure::Usage(format!("variable {name}: {e}")));
    }
    let now = clock.unix();
    let active = endpoint.secrets.iter().find(|s| s.is_active(now));
    active
        .cloned()
        .ok_or_else(|| Failure::Usage(format!("no secret of `{}` is active now", endpoint.name)))
}

fn streams_max(config: &Config) -> u32 {
    let policy = config
        .routes
        .iter()
        .find_map(|route| match &route.plan.then {
            Then::Subscribe(policy) if route.pattern == STREAM => Some(policy),
            Then::Subscribe(_) | Then::Forward { .. } | Then::Ingest(_) | Then::Reply(_) => None,
        });
    policy.map_or(2, |policy| policy.concurrent_per_user)
}
