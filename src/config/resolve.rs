//! Turns the checked document into the features' own policies: references, ranges across keys, and
//! what production refuses. Reports everything that is wrong before giving up.

mod edge;
mod route;
mod traffic;
mod trust;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::env::Env;
use super::problem::Problem;
use super::source::{DEFAULTS_NAME, Merged};
use super::tree::{Node, Value};
use super::{Config, Environment, check, raw, reload, schema};

/// Collects problems by key path and knows where each key is written.
pub(super) struct Report<'a> {
    tree: &'a Node,
    problems: &'a mut Vec<Problem>,
    /// How many of them `check` found: the values there are stand-ins.
    checked: usize,
    pub(super) environment: Environment,
    pub(super) notices: Vec<String>,
    /// Files that took part, secret files included.
    pub(super) files: Vec<PathBuf>,
}

impl Report<'_> {
    pub(super) fn error(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        let within = |outer: &str| {
            let rest = key.strip_prefix(outer).filter(|_| !outer.is_empty());
            rest.is_some_and(|r| r.is_empty() || r.starts_with(['.', '[']))
        };
        if self
            .problems
            .iter()
            .take(self.checked)
            .any(|p| within(&p.key))
        {
            return;
        }
        self.problems.push(Problem {
            place: self.tree.place_of(key, DEFAULTS_NAME),
            key: key.to_owned(),
            message: message.into(),
            hint: hint.into(),
        });
    }

    /// `Some` of a good result; an error is reported under `key`.
    pub(super) fn take<T>(
        &mut self,
        key: &str,
        result: Result<T, String>,
        hint: &str,
    ) -> Option<T> {
        result
            .map_err(|message| self.error(key, message, hint))
            .ok()
    }

    /// Parses a text value; `expected` says what it should look like.
    pub(super) fn parse<T: std::str::FromStr>(
        &mut self,
        key: &str,
        text: &str,
        expected: &str,
    ) -> Option<T> {
        let wrong = format!("`{text}` is not allowed; expected {expected}");
        self.take(key, text.parse().map_err(|_| wrong), "")
    }

    /// Looks a reference up; says which names exist when there is no such one.
    pub(super) fn refer<'m, T>(
        &mut self,
        key: &str,
        name: &str,
        among: &'m BTreeMap<String, T>,
        what: &str,
    ) -> Option<&'m T> {
        let found = among.get(name);
        if found.is_none() {
            let hint = match check::nearest(name, among.keys().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None if among.is_empty() => "there is none at all".into(),
                None => format!(
                    "there is {}",
                    check::quoted(among.keys().map(String::as_str))
                ),
            };
            self.error(key, format!("there is no {what} `{name}`"), hint);
        }
        found
    }

    pub(super) fn production(&self) -> bool {
        self.environment == Environment::Production
    }
}

/// `None` when it is not even possible to go on; `problems` says why.
pub(super) fn resolve(merged: &Merged, env: &Env, problems: &mut Vec<Problem>) -> Option<Config> {
    let file: raw::File = match serde_json::from_value(merged.tree.to_json()) {
        Ok(file) => file,
        Err(e) => {
            // Only what `check` could not name, e.g. a quoted key with a dot in it.
            if problems.is_empty() {
                problems.push(Problem {
                    place: merged.tree.place.clone(),
                    key: String::new(),
                    message: e.to_string(),
                    hint: String::new(),
                });
            }
            return None;
        }
    };
    let mut report = Report {
        tree: &merged.tree,
        checked: problems.len(),
        problems,
        environment: match file.environment {
            raw::Environment::Development => Environment::Development,
            raw::Environment::Production => Environment::Production,
        },
        notices: Vec::new(),
        files: merged.files.clone(),
    };
    build(&file, merged, env, &mut report)
}

fn build(file: &raw::File, merged: &Merged, env: &Env, report: &mut Report<'_>) -> Option<Config> {
    let https = edge::https(file, report);
    let http = edge::http(file, report);
    let admin = edge::admin(file, report);
    let guard = edge::guard(&file.guard, report);
    let cors = edge::cors(&file.cors, report);
    let drain = edge::drain(&file.drain, report);
    let embedded_api = edge::embedded_api(&file.embedded_api, report);
    let issuers = trust::issuers(file, report);
    let assertion_secret = trust::assertion_secret(&file.identity, env, report);
    let delivery_secret = trust::delivery_secret(&file.delivery, env, report);
    let upstreams = traffic::upstreams(file, report);
    let classes = traffic::classes(file, report);
    let plans = traffic::plans(file);
    let cache = traffic::cache(file, report);
    trust::schemes(file, report);
    let routes = route::routes(file, env, &classes, report);
    let dispatch = traffic::dispatch(file, &routes, report);
    let log = edge::log(&file.log, report);
    edge::notices(file, report);
    Some(Config {
        environment: report.environment,
        digest: digest(merged),
        https: https?,
        http: http?,
        admin: admin?,
        guard: guard?,
        cors,
        issuers,
        assertion_secret: assertion_secret?,
        delivery_secret: delivery_secret?,
        plans,
        classes: classes
            .iter()
            .map(|(name, c)| (Arc::from(name.as_str()), c.clone()))
            .collect(),
        upstreams,
        cache,
        replay: traffic::replay(file),
        dispatch: Arc::new(dispatch),
        inbox: traffic::inbox(&file.inbox),
        routes,
        drain,
        log,
        metrics: file.telemetry.metrics,
        embedded_api: embedded_api?,
        threads: edge::threads(&file.server),
        upgrade_socket: PathBuf::from(&file.server.upgrade_socket),
        notices: std::mem::take(&mut report.notices),
        files: std::mem::take(&mut report.files),
        restart_keys: reload::restart_keys(&merged.tree, &schema::schema()),
    })
}

/// Two nodes with the same digest run the same configuration; secrets are not part of it.
fn digest(merged: &Merged) -> String {
    let mut tree = merged.tree.clone();
    redact(&mut tree);
    let mut hash = Sha256::new();
    hash.update(tree.to_json().to_string());
    for name in &merged.variables {
        hash.update([0]);
        hash.update(name);
    }
    hex::encode(hash.finalize())
}

/// Takes out what must not be shown.
pub(super) fn redact(node: &mut Node) {
    match &mut node.value {
        Value::Table(table) => {
            for (key, node) in table.iter_mut() {
                match key.as_str() {
                    "danger_secret" => node.value = Value::Text("(redacted)".into()),
                    "database_url" => node.value = redacted_url(&node.value),
                    _ => redact(node),
                }
            }
        }
        Value::List(list) => list.iter_mut().for_each(redact),
        Value::Text(_) | Value::Integer(_) | Value::Boolean(_) | Value::Other(_) => {}
    }
}

/// A database URL without its user and password.
fn redacted_url(value: &Value) -> Value {
    let Value::Text(url) = value else {
        return Value::Text("(redacted)".into());
    };
    let shown = match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://(redacted)@{rest}"),
        (_, _) => url.clone(),
    };
    Value::Text(shown)
}
