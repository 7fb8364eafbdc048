//! `explain`: which route a request would take and what it would meet there. Pure: it looks at the
//! configuration alone and sends nothing.

use std::process::ExitCode;

use http::{Method, Uri};

use super::{EXIT_NO, Failure, Output};
use crate::config::{Config, ConfigSource, Route};
use crate::guard::path::normalise;
use crate::plan::{Plan, Then};
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
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
}

/// What the table says.
enum Found<'c> {
    Route(&'c Route),
    /// The path is known for these methods.
    OtherMethods(Vec<String>),
    Nothing,
}

pub(super) fn run(
    args: &Args,
    source: &ConfigSource,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let question = question(args)?;
    let config = source.load()?;
    let (lines, code) = match find(&config, &question) {
        Found::Route(route) => (about(&config, route, &question), ExitCode::SUCCESS),
        Found::OtherMethods(allow) => {
            let line = format!("405, Allow: {}", allow.join(", "));
            (vec![("route", line)], ExitCode::from(EXIT_NO))
        }
        Found::Nothing => (
            vec![("route", "404, nothing is served here".into())],
            ExitCode::from(EXIT_NO),
        ),
    };
    output.line(&format!(
        "{:<9} {} {}",
        "request", question.method, question.path
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
    let pairs = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|p| !p.is_empty());
    Ok(Question {
        method,
        path,
        query: pairs
            .map(|p| p.split_once('=').unwrap_or((p, "")))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect(),
        headers: args.headers.iter().map(header).collect::<Result<_, _>>()?,
    })
}

fn find<'c>(config: &'c Config, question: &Question) -> Found<'c> {
    let mut router = matchit::Router::new();
    for route in &config.routes {
        // A pattern has one entry per set of methods; the first one stands for all of them here.
        let _is_known = router.insert(route.pattern.as_str(), route.pattern.as_str());
    }
    let Ok(matched) = router.at(&question.path) else {
        return Found::Nothing;
    };
    let here = || config.routes.iter().filter(|r| r.pattern == *matched.value);
    let takes = |r: &&Route| r.methods.is_empty() || r.methods.contains(&question.method);
    match here().find(takes) {
        Some(route) => Found::Route(route),
        None => Found::OtherMethods(
            here()
                .flat_map(|r| r.methods.iter().map(ToString::to_string))
                .collect(),
        ),
    }
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
    if let Some((_, origin)) = question.headers.iter().find(|(name, _)| name == "origin") {
        let allowed = config.cors.origins.contains(origin);
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
    if !question
        .headers
        .iter()
        .any(|(name, _)| name == "authorization")
    {
        line.push_str(" and there is none: 401");
    }
    if let Some(auth::OrgFrom::Query(name)) = &policy.org {
        let values: Vec<_> = question.query.iter().filter(|(k, _)| k == name).collect();
        line.push_str(&match values.as_slice() {
            [(_, value)] => format!("; organisation {value} must be one of the caller's"),
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
                Some(policy) => stored(config, policy, question),
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

fn stored(config: &Config, policy: &cache::Policy, question: &Question) -> String {
    let scope = match policy.scope {
        cache::Scope::Public => "public",
        cache::Scope::Org => "org",
        cache::Scope::User => "user",
    };
    let counts = |key: &str| {
        policy
            .query
            .as_ref()
            .is_none_or(|q| q.iter().any(|k| k == key))
    };
    let mut part: Vec<_> = question
        .query
        .iter()
        .filter(|(key, _)| counts(key))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    part.sort();
    let dropped: Vec<_> = question
        .query
        .iter()
        .map(|(k, _)| k.as_str())
        .filter(|k| !counts(k))
        .collect();
    let mut line = format!(
        "{} for {} s, scope {scope}, key {}:{} {}?{}",
        policy.name,
        policy.ttl_s,
        config.cache.prefix,
        policy.name,
        question.path,
        part.join("&")
    );
    if !dropped.is_empty() {
        line.push_str(&format!("; dropped: {}", dropped.join(", ")));
    }
    line
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
