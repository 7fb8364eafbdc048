//! The environment as a source of values: which variables override which keys is said in the file's
//! `[env]` table; what they hold is read here into the type that the key has.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::problem::{Place, Problem};
use super::schema::{self, Expected};
use super::tree::{Node, Value};

/// A snapshot of the environment.
#[derive(Clone, Default)]
pub struct Env(Arc<BTreeMap<String, String>>);

impl Env {
    /// The process's own. Variables that are not Unicode are left out.
    #[must_use]
    pub fn process() -> Self {
        let text = |v: std::ffi::OsString| v.into_string().ok();
        let vars = std::env::vars_os().filter_map(|(k, v)| Some((text(k)?, text(v)?)));
        Self(Arc::new(vars.collect()))
    }

    /// What a variable holds; blank counts as not set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name).map(String::as_str);
        value.filter(|v| !v.trim().is_empty())
    }

    /// What a variable holds, blank or not.
    pub(super) fn raw(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter().map(|(k, v)| (k.into(), v.into()));
        Self(Arc::new(pairs.collect()))
    }
}

/// Whether a value is a placeholder that nobody filled in, e.g. `${WH_SECRET}`.
pub(super) fn unexpanded(value: &str) -> bool {
    let value = value.trim();
    value.contains("${") || (value.starts_with("{{") && value.ends_with("}}"))
}

/// Sets every key that `[env]` gives to a variable that is there. Returns the names that took part.
pub(super) fn apply(
    tree: &mut Node,
    env: &Env,
    root: &Json,
    problems: &mut Vec<Problem>,
) -> Vec<String> {
    let mut used = Vec::new();
    for (name, key, declared) in bindings(tree) {
        let known = schema::at(root, &key).filter(|_| parent_exists(tree, &key));
        let Some((schema, _)) = known else {
            problems.push(Problem {
                place: declared,
                key: format!("env.{name}"),
                message: format!("`{key}` is not a key of this configuration"),
                hint: "name a key that exists, e.g. `plans.FREE.requests`".into(),
            });
            continue;
        };
        let Some(text) = env.get(&name) else { continue };
        let place = Place::Variable(name.as_str().into());
        match read(text, &schema::expected(schema), &place) {
            Ok(value) => {
                set(tree, &key, Node::new(value, place));
                used.push(name);
            }
            Err(message) => problems.push(Problem {
                place,
                key,
                message,
                hint: format!("correct the variable {name}, or unset it to use the file's value"),
            }),
        }
    }
    used.dedup();
    used
}

/// (variable, key, where that is said).
fn bindings(tree: &Node) -> Vec<(String, String, Place)> {
    let mut found = Vec::new();
    for (name, keys) in tree.at("env").and_then(Node::table).into_iter().flatten() {
        for key in keys.list().into_iter().flatten() {
            if let Some(text) = key.text() {
                found.push((name.clone(), text.to_owned(), key.place.clone()));
            }
        }
    }
    found
}

fn parent_exists(tree: &Node, key: &str) -> bool {
    match key.rsplit_once('.') {
        Some((parent, _)) => tree.at(parent).is_some(),
        None => true,
    }
}

fn read(text: &str, expected: &Expected, place: &Place) -> Result<Value, String> {
    if unexpanded(text) {
        return Err("holds a placeholder that was never filled in".into());
    }
    let text = text.trim();
    let wrong = || Err(format!("`{text}` is not allowed; expected {expected}"));
    match expected {
        Expected::Text | Expected::OneOf(_) => Ok(Value::Text(text.to_owned())),
        Expected::Integer { .. } => text.parse().map(Value::Integer).or_else(|_| wrong()),
        Expected::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(Value::Boolean(true)),
            "false" | "0" | "no" | "off" => Ok(Value::Boolean(false)),
            _ => wrong(),
        },
        Expected::List => {
            let items = text.split(',').map(str::trim).filter(|i| !i.is_empty());
            let node = |item: &str| Node::new(Value::Text(item.to_owned()), place.clone());
            Ok(Value::List(items.map(node).collect()))
        }
        Expected::Table | Expected::Map | Expected::Anything => {
            Err("this key cannot be set by a variable".into())
        }
    }
}

fn set(tree: &mut Node, key: &str, node: Node) {
    let (parent, name) = key.rsplit_once('.').unwrap_or(("", key));
    let table = tree.at_mut(parent).map(|parent| &mut parent.value);
    if let Some(Value::Table(table)) = table {
        table.insert(name.to_owned(), node);
    }
}
