//! `explain`: which route a request would take and what it would meet there. Pure: it looks at the
//! configuration alone and sends nothing.

use std::net::Ipv4Addr;
use std::process::ExitCode;

use http::{Method, Uri};

use super::{EXIT_NO, Failure, Output};
use crate::cache::owner::Owner;
use crate::config::{Config, ConfigSource, Route};
use crate::guard::path::normalise;
use crate::kernel::facts::{Facts, Protocol, Scheme};
use crate::kernel::id::Random;
use crate::plan::{Plan, Then};
use crate::route::table::{NoRoute, Table};
use crate::{auth, cache, limit, stream};

#[derive(clap::Args)]
pub(super) struct Args {
    /// e.g. GET
    method: String,
    /// Path and query, with or without scheme and host.
    url: String,
    /// A header of the request, e.g. 'Authorization: Bearer …'; only whether it is there counts.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
}

/// The request, as far as configuration goes.
struct Question {
    facts: Facts,
    headers: Vec<(String, String)>,
}

impl Question {
    /// The values of a query parameter.
    fn parameter<'q>(&'q self, name: &'q str) -> impl Iterator<Item = &'q str> {
        let pairs = self.facts.query.as_deref().unwrap_or_default().split('&');
        let pair = |p: &'q str| p.split_once('=').unwrap_or((p, ""));
        pairs
            .map(pair)
            .filter(move |(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

pub(super) fn run(
    args: &Args,
    source: &ConfigSource,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let question = question(args)?;
    let config = source.load()?;
    let routes = config.routes.iter();
    let table = Table::build(routes.map(|r| (r.pattern.clone(), r.methods.clone(), r)))
        .map_err(|e| Failure::Usage(e.to_string()))?;
    let (lines, code) = match table.find(&question.facts.method, &question.facts.path) {
        Ok(route) => (about(&config, route, &question), ExitCode::SUCCESS),
        Err(NoRoute::Method { allow }) => (
            vec![("route", format!("405, Allow: {allow}"))],
            ExitCode::from(EXIT_NO),
        ),
        Err(NoRoute::Path) => (
            vec![("route", "404, nothing is served here".into())],
            ExitCode::from(EXIT_NO),
        ),
    };
    output.line(&format!(
        "{:<9} {} {}",
        "request", question.facts.method, question.facts.path
    ))?;
    for (what, line) in lines {
        output.line(&format!("{what:<9} {line}"))?;
    }
    Ok(code)
}

fn question(args: &Args) -> Result<Question, Failure> {
    let wrong = |what: String| Failure::Usage(what);
    let method = Method::from_bytes(args.method.to_ascii_uppercase().as_bytes())
        .map_err(|_| wrong(format!("`{}` is not a method", args.method)))?;
    let uri: Uri = args
        .url
        .parse()
        .map_err(|e| wrong(format!("`{}`: {e}", args.url)))?;
    let path = normalise(uri.path()).map_err(|r| wrong(format!("400, {}", r.reason)))?;
    let header = |line: &String| match line.split_once(':') {
        Some((name, value)) => Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned())),
        None => Err(Failure::Usage(format!("`{line}` is not `Name: value`"))),
    };
    let host = uri.host().unwrap_or("localhost").to_ascii_lowercase();
    let facts = Facts {
        // Nothing that is explained depends on it.
        request_id: Random::seeded(0).request_id(),
        method,
        scheme: Scheme::Https,
        protocol: Protocol::Http2,
        sni: Some(host.clone()),
        host,
        path,
        query: uri.query().map(str::to_owned),
        client_ip: Ipv4Addr::LOCALHOST.into(),
        content_length: None,
    };
    let headers = args.headers.iter().map(header).collect::<Result<_, _>>()?;
    Ok(Question { facts, headers })
}

fn about(config: &Config, route: &Route, question: &Question) -> Vec<(&'static str, String)> {
    let plan = &route.plan;
    let methods: Vec<_> = route.methods.iter().map(Method::as_str).collect();
    let mut lines = vec![(
        "route",
        format!("{} [{}]", route.pattern, methods.join(", ")),
    )];
    lines.push(("auth", authentication(&plan.auth, question)));
    lines.extend(limits(config, plan).into_iter().map(|l| ("limit", l)));
    if let Some(origin) = question.header("origin") {
        let allowed = config.cors.origins.iter().any(|o| o == origin);
        let verdict = if allowed {
            "allowed"
        } else {
            "not allowed to read the answer"
        };
        lines.push(("cors", format!("{origin} is {verdict}")));
    }
    lines.push((
        "body",
        format!(
            "up to {} bytes in {} ms",
            plan.body_bytes_max, plan.body_timeout_ms
        ),
    ));
    lines.extend(then(config, plan, question));
    lines
}

fn authentication(policy: &auth::Policy, question: &Question) -> String {
    if policy.need == auth::Need::Public {
        return "public".into();
    }
    let mut line = "a token is required".to_owned();
    if question.header("authorization").is_none() {
        line.push_str(" and there is none: 401");
    }
    if let Some(auth::OrgFrom::Query(name)) = &policy.org {
        let values: Vec<_> = question.parameter(name).collect();
        line.push_str(&match values.as_slice() {
            [value] => format!("; organisation {value} must be one of the caller's"),
            [] => format!("; `{name}` is missing: 400"),
            [_, ..] => format!("; `{name}` is there more than once: 400"),
        });
    }
    if !policy.roles.is_empty() {
        line.push_str(&format!(
            "; with one of the roles {}",
            policy.roles.join(", ")
        ));
    }
    line
}

fn limits(config: &Config, plan: &Plan) -> Vec<String> {
    let class = |class: &limit::Class| {
        let by = match class.key {
            limit::KeyBy::Ip => "address",
            limit::KeyBy::Principal => "caller",
        };
        format!("{}: {} per {by}", class.name, quota(class.quota))
    };
    let mut lines: Vec<_> = plan.limit.before_auth.iter().map(|c| class(c)).collect();
    match &plan.limit.after_auth {
        limit::AfterAuth::None => {}
        limit::AfterAuth::Class(c) => lines.push(class(c)),
        limit::AfterAuth::Plan => {
            let plans = config
                .plans
                .iter()
                .map(|(name, q)| format!("{name} {}", quota(*q)));
            lines.push(format!(
                "plan of the caller: {}",
                plans.collect::<Vec<_>>().join(", ")
            ));
        }
    }
    if lines.is_empty() {
        lines.push("none".into());
    }
    lines
}

fn quota(quota: limit::Quota) -> String {
    format!("{} in {} s", quota.requests, quota.window_s)
}

fn then(config: &Config, plan: &Plan, question: &Question) -> Vec<(&'static str, String)> {
    match &plan.then {
        Then::Forward { upstream, cache } => {
            let cache = match cache {
                Some(policy) => stored(config, plan, policy, question),
                None => "never stored".into(),
            };
            vec![("cache", cache), ("upstream", pool(config, upstream))]
        }
        Then::Ingest(endpoint) => vec![
            (
                "webhook",
                format!("{}, signed as {}", endpoint.name, endpoint.provider),
            ),
            ("upstream", pool(config, &endpoint.upstream)),
        ],
        Then::Subscribe(policy) => vec![
            ("stream", paced(policy)),
            ("upstream", pool(config, &policy.upstream)),
        ],
        Then::Reply(builtin) => vec![("answer", format!("by the edge itself ({builtin:?})"))],
    }
}

fn stored(config: &Config, plan: &Plan, policy: &cache::Policy, question: &Question) -> String {
    if policy.ttl_s == 0 {
        return format!("{} is off (ttl_s = 0)", policy.name);
    }
    let named = match &plan.auth.org {
        Some(auth::OrgFrom::Query(name)) => question.parameter(name).next(),
        None => None,
    };
    let (scope, owner) = match policy.scope {
        cache::Scope::Public => ("public", Owner::Public),
        cache::Scope::Org => ("org", Owner::Org(named.unwrap_or("…").into())),
        cache::Scope::User => (
            "user",
            Owner::User {
                subject: "…".into(),
                orgs: [].into(),
            },
        ),
    };
    let key = cache::key::build(&config.cache.prefix, policy, &owner, &question.facts);
    format!(
        "{} for {} s, scope {scope}, key {}",
        policy.name,
        policy.ttl_s,
        key.describe()
    )
}

fn paced(policy: &stream::Policy) -> String {
    format!(
        "heartbeat after {} s of silence, {} open and {} new a minute per user, closed after about {} s",
        policy.heartbeat_s, policy.concurrent_per_user, policy.connects_per_min, policy.lifetime_s
    )
}

fn pool(config: &Config, name: &str) -> String {
    let found = config.upstreams.get(name);
    let endpoints = found
        .into_iter()
        .flat_map(|p| p.endpoints.iter().map(ToString::to_string));
    format!("{name} ({})", endpoints.collect::<Vec<_>>().join(", "))
}
