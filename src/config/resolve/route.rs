//! Resolves the routes: those of the file, one per webhook endpoint, and what the edge answers itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;

use super::{Report, traffic, trust};
use crate::config::env::Env;
use crate::config::{Route, raw};
use crate::plan::{Builtin, Plan, Then};
use crate::webhook::handshake::Handshake;
use crate::{auth, limit};

type Classes = BTreeMap<String, Arc<limit::Class>>;

/// What the edge answers itself; no route may take these paths.
const BUILTINS: [(&str, Builtin); 6] = [
    ("/healthz", Builtin::Live),
    ("/livez", Builtin::Live),
    ("/readiness", Builtin::Ready),
    ("/ready", Builtin::Ready),
    ("/health", Builtin::Health),
    ("/version", Builtin::Version),
];
const BUILTIN_BODY_BYTES_MAX: usize = 0;
const BUILTIN_BODY_TIMEOUT_MS: u64 = 1_000;

pub(super) fn routes(
    file: &raw::File,
    env: &Env,
    classes: &Classes,
    report: &mut Report<'_>,
) -> Vec<Route> {
    let mut table = Paths::default();
    let mut routes = Vec::new();
    for (path, builtin) in BUILTINS {
        table.claim("routes", path, &[Method::GET, Method::HEAD], report);
        routes.push(self::builtin(path, builtin));
    }
    for (name, raw) in &file.webhooks.endpoints {
        let path = format!("/webhooks/{name}");
        let key = format!("webhooks.endpoints.{name}");
        table.claim(&key, &path, &[Method::POST], report);
        let limit = limits(
            &format!("{key}.limits"),
            &raw.limits,
            auth::Need::Public,
            classes,
            report,
        );
        if let Some(endpoint) = trust::endpoint(file, name, raw, env, report) {
            routes.push(webhook(path, endpoint, limit));
        }
    }
    for (i, raw) in file.routes.iter().enumerate() {
        let key = format!("routes[{i}]");
        let methods = methods(raw);
        table.claim(&format!("{key}.path"), &raw.path, &methods, report);
        if let Some(plan) = plan(file, &key, raw, classes, report) {
            routes.push(Route {
                pattern: raw.path.clone(),
                methods,
                plan: Arc::new(plan),
            });
        }
    }
    routes
}

fn builtin(path: &str, builtin: Builtin) -> Route {
    Route {
        pattern: path.to_owned(),
        methods: vec![Method::GET, Method::HEAD],
        plan: Arc::new(Plan {
            name: Arc::from(path),
            limit: limit::Policy::default(),
            auth: public(),
            body_bytes_max: BUILTIN_BODY_BYTES_MAX,
            body_timeout_ms: BUILTIN_BODY_TIMEOUT_MS,
            then: Then::Reply(builtin),
        }),
    }
}

fn webhook(path: String, endpoint: crate::webhook::Endpoint, limit: limit::Policy) -> Route {
    let methods = match endpoint.handshake {
        Some(Handshake::Braintree) => vec![Method::POST, Method::GET],
        Some(Handshake::Slack | Handshake::Zoom | Handshake::Discord | Handshake::DangerClover)
        | None => vec![Method::POST],
    };
    let plan = Plan {
        name: Arc::from(path.as_str()),
        limit,
        auth: public(),
        body_bytes_max: endpoint.body_bytes_max,
        body_timeout_ms: endpoint.body_timeout_ms,
        then: Then::Ingest(Arc::new(endpoint)),
    };
    Route {
        pattern: path,
        methods,
        plan: Arc::new(plan),
    }
}

fn public() -> auth::Policy {
    auth::Policy {
        need: auth::Need::Public,
        org: None,
        roles: Vec::new(),
    }
}

fn plan(
    file: &raw::File,
    key: &str,
    raw: &raw::Route,
    classes: &Classes,
    report: &mut Report<'_>,
) -> Option<Plan> {
    let auth = auth(key, raw, report);
    let limit = limits(
        &format!("{key}.limits"),
        &raw.limits,
        auth.need,
        classes,
        report,
    );
    report.refer(
        &format!("{key}.upstream"),
        &raw.upstream,
        &file.upstreams,
        "upstream",
    );
    let then = match &raw.stream {
        Some(name) => subscribe(file, key, name, raw, report)?,
        None => forward(file, key, raw, report)?,
    };
    Some(Plan {
        name: Arc::from(raw.path.as_str()),
        limit,
        auth,
        body_bytes_max: usize::try_from(raw.body_bytes_max).unwrap_or(usize::MAX),
        body_timeout_ms: raw.body_timeout_ms,
        then,
    })
}

fn auth(key: &str, raw: &raw::Route, report: &mut Report<'_>) -> auth::Policy {
    let need = match raw.auth {
        raw::Auth::Public => auth::Need::Public,
        raw::Auth::Required => auth::Need::Required,
    };
    if need == auth::Need::Public && raw.org_query.is_some() {
        let message = "nobody is asked on a public route, so membership cannot be checked";
        report.error(
            &format!("{key}.org_query"),
            message,
            "set auth = \"required\"",
        );
    }
    if !raw.roles.is_empty() && raw.org_query.is_none() {
        let message = "a role is held in an organisation, and the route names none";
        report.error(&format!("{key}.roles"), message, "add org_query");
    }
    auth::Policy {
        need,
        org: raw.org_query.clone().map(auth::OrgFrom::Query),
        roles: raw.roles.clone(),
    }
}

fn limits(
    key: &str,
    names: &[String],
    need: auth::Need,
    classes: &Classes,
    report: &mut Report<'_>,
) -> limit::Policy {
    let mut policy = limit::Policy::default();
    for (i, name) in names.iter().enumerate() {
        let key = format!("{key}[{i}]");
        let class = match name.as_str() {
            "plan" => None,
            _ => match report.refer(&key, name, classes, "limit class") {
                Some(class) => Some(class),
                None => continue,
            },
        };
        let by_address = class.filter(|c| c.key == limit::KeyBy::Ip);
        if let Some(class) = by_address {
            if policy.before_auth.replace(class.clone()).is_some() {
                report.error(&key, "a second limit that counts by address", "keep one");
            }
            continue;
        }
        if need == auth::Need::Public {
            let message = format!("`{name}` counts by caller, and a public route knows none");
            report.error(&key, message, "use a class whose key is `ip`");
        }
        if policy.after_auth != limit::AfterAuth::None {
            report.error(&key, "a second limit that counts by caller", "keep one");
        }
        policy.after_auth = match class {
            Some(class) => limit::AfterAuth::Class(class.clone()),
            None => limit::AfterAuth::Plan,
        };
    }
    policy
}

fn forward(file: &raw::File, key: &str, raw: &raw::Route, report: &mut Report<'_>) -> Option<Then> {
    let cache = match &raw.cache {
        None => None,
        Some(name) => {
            let at = format!("{key}.cache");
            let policy = report.refer(&at, name, &file.cache.policies, "cache policy")?;
            cacheable(&at, name, raw, policy, report);
            Some(traffic::cache_policy(name, policy))
        }
    };
    Some(Then::Forward {
        upstream: Arc::from(raw.upstream.as_str()),
        cache,
    })
}

/// A stored response must not reach somebody who may not see it.
fn cacheable(
    key: &str,
    name: &str,
    raw: &raw::Route,
    policy: &raw::CachePolicy,
    report: &mut Report<'_>,
) {
    let safe = |m: &raw::Method| matches!(m, raw::Method::Get | raw::Method::Head);
    if raw.methods.is_empty() || !raw.methods.iter().all(safe) {
        report.error(
            key,
            "only GET can be cached",
            "give the other methods a route of their own",
        );
    }
    let public = matches!(raw.auth, raw::Auth::Public);
    match (policy.scope, &raw.org_query) {
        (raw::Scope::Org, None) => {
            let message = format!("`{name}` is kept per organisation, and the route names none");
            report.error(key, message, "add org_query");
        }
        (raw::Scope::Org, Some(org)) => {
            if policy
                .query
                .as_ref()
                .is_some_and(|keys| !keys.contains(org))
            {
                let message =
                    format!("the query of `{name}` lacks `{org}`, which names the tenant");
                report.error(
                    key,
                    message,
                    format!("add `{org}` to cache.policies.{name}.query"),
                );
            }
        }
        (raw::Scope::User, _) if public => {
            let message = format!("`{name}` is kept per user, and a public route knows none");
            report.error(key, message, "use scope = \"public\"");
        }
        (raw::Scope::Public, _) if !public => {
            let message = format!("`{name}` would give one caller's answer to everybody");
            report.error(key, message, "use scope = \"org\" or \"user\"");
        }
        (raw::Scope::User | raw::Scope::Public, _) => {}
    }
}

fn subscribe(
    file: &raw::File,
    key: &str,
    name: &str,
    raw: &raw::Route,
    report: &mut Report<'_>,
) -> Option<Then> {
    let at = format!("{key}.stream");
    let stream = report.refer(&at, name, &file.streams, "stream")?;
    if raw.cache.is_some() {
        report.error(
            &format!("{key}.cache"),
            "a stream cannot be cached",
            "remove one of them",
        );
    }
    if raw.methods.as_slice() != [raw::Method::Get] {
        report.error(
            &format!("{key}.methods"),
            "a stream takes GET only",
            "methods = [\"GET\"]",
        );
    }
    if matches!(raw.auth, raw::Auth::Public) {
        let message = "a stream is counted per user, and a public route knows none";
        report.error(&format!("{key}.auth"), message, "set auth = \"required\"");
    }
    paces(file, name, stream, report);
    Some(Then::Subscribe(traffic::stream_policy(
        &raw.upstream,
        stream,
    )))
}

/// A silent stream must hear a heartbeat before anything on the way takes it for dead.
fn paces(file: &raw::File, name: &str, stream: &raw::Stream, report: &mut Report<'_>) {
    let heartbeat_ms = u64::from(stream.heartbeat_s).saturating_mul(1_000);
    let keepalive_ms = file.listeners.https.keepalive_timeout_ms;
    let key = format!("streams.{name}.heartbeat_s");
    if heartbeat_ms >= keepalive_ms {
        let message = format!(
            "{} s is not less than keepalive_timeout_ms ({keepalive_ms}): a silent stream would look \
             dead",
            stream.heartbeat_s
        );
        report.error(
            &key,
            message,
            "shorten the heartbeat or lengthen keepalive_timeout_ms",
        );
    }
    if stream.heartbeat_s >= stream.lifetime_s {
        let message = format!("is not less than lifetime_s ({})", stream.lifetime_s);
        report.error(&key, message, "");
    }
}

/// GET brings HEAD with it, except for streams.
fn methods(raw: &raw::Route) -> Vec<Method> {
    let mut methods: Vec<_> = raw.methods.iter().map(|m| method(*m)).collect();
    let wants_head = methods.contains(&Method::GET) && !methods.contains(&Method::HEAD);
    if wants_head && raw.stream.is_none() {
        methods.push(Method::HEAD);
    }
    methods
}

fn method(raw: raw::Method) -> Method {
    match raw {
        raw::Method::Delete => Method::DELETE,
        raw::Method::Get => Method::GET,
        raw::Method::Head => Method::HEAD,
        raw::Method::Options => Method::OPTIONS,
        raw::Method::Patch => Method::PATCH,
        raw::Method::Post => Method::POST,
        raw::Method::Put => Method::PUT,
    }
}

/// Which path and method belongs to whom, to find two routes that want the same request.
#[derive(Default)]
struct Paths {
    router: matchit::Router<()>,
    taken: BTreeMap<String, Vec<(String, Vec<Method>)>>,
}

impl Paths {
    fn claim(&mut self, key: &str, path: &str, methods: &[Method], report: &mut Report<'_>) {
        if !path.starts_with('/') || path.contains("//") || path.contains(['?', '#', ' ']) {
            let message = format!("`{path}` is not a path pattern");
            report.error(key, message, "e.g. `/orders/{id}` or `/orders/{*rest}`");
            return;
        }
        let is_new = !self.taken.contains_key(path);
        if let Some(Err(e)) = is_new.then(|| self.router.insert(path, ())) {
            report.error(key, format!("`{path}`: {e}"), "");
            return;
        }
        let claims = self.taken.entry(path.to_owned()).or_default();
        let overlap = |(_, theirs): &&(String, Vec<Method>)| {
            theirs.is_empty() || methods.is_empty() || theirs.iter().any(|m| methods.contains(m))
        };
        if let Some((other, _)) = claims.iter().find(overlap) {
            let other = match other.as_str() {
                "routes" => "the edge itself",
                other => other,
            };
            let message = format!("`{path}` with one of these methods is taken by {other} already");
            report.error(key, message, "remove one of them");
        }
        claims.push((key.to_owned(), methods.to_vec()));
    }
}
