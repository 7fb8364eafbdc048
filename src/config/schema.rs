//! The JSON Schema of the configuration file, made from the raw types: one source for unknown keys,
//! types, ranges, editors and documentation. Holds no values.

use std::fmt;

use serde_json::Value as Json;

use super::raw;

/// As generated: every key that has no default of its own kind is required.
#[must_use]
pub fn schema() -> Json {
    schemars::schema_for!(raw::File).to_value()
}

/// What a schema node takes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expected {
    Table,
    /// A table whose keys are names of the operator's choice.
    Map,
    List,
    Text,
    OneOf(Vec<String>),
    Integer {
        min: i64,
        max: i64,
    },
    Boolean,
    Anything,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table | Self::Map => f.write_str("a table"),
            Self::List => f.write_str("a list"),
            Self::Text => f.write_str("text"),
            Self::OneOf(allowed) => {
                let allowed = super::check::quoted(allowed.iter().map(String::as_str));
                write!(f, "one of {allowed}")
            }
            Self::Integer { min, max: i64::MAX } => write!(f, "a whole number from {min}"),
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Boolean => f.write_str("true or false"),
            Self::Anything => f.write_str("anything"),
        }
    }
}

/// The schema behind references and behind `Option`.
pub(super) fn follow<'s>(root: &'s Json, schema: &'s Json) -> &'s Json {
    if let Some(name) = schema["$ref"]
        .as_str()
        .and_then(|r| r.strip_prefix("#/$defs/"))
    {
        return follow(root, &root["$defs"][name]);
    }
    match schema["anyOf"].as_array().and_then(|any| any.first()) {
        Some(first) => follow(root, first),
        None => schema,
    }
}

/// What a followed schema takes.
pub(super) fn expected(schema: &Json) -> Expected {
    if let Some(allowed) = allowed(schema) {
        return Expected::OneOf(allowed);
    }
    // `Option<T>` has two types; the other one is null, which TOML does not have.
    let kind = &schema["type"];
    match kind.get(0).unwrap_or(kind).as_str() {
        Some("object") if schema["additionalProperties"].is_object() => Expected::Map,
        Some("object") => Expected::Table,
        Some("array") => Expected::List,
        Some("string") => Expected::Text,
        Some("integer") => integer(schema),
        Some("boolean") => Expected::Boolean,
        Some(_) | None => Expected::Anything,
    }
}

fn integer(schema: &Json) -> Expected {
    let natural_max = match schema["format"].as_str() {
        Some("uint16") => i64::from(u16::MAX),
        Some("uint32") => i64::from(u32::MAX),
        Some(_) | None => i64::MAX,
    };
    Expected::Integer {
        min: schema["minimum"].as_i64().unwrap_or(i64::MIN),
        max: schema["maximum"].as_i64().unwrap_or(natural_max),
    }
}

/// The choices of an enum, with or without a description each.
fn allowed(schema: &Json) -> Option<Vec<String>> {
    let text = |v: &Json| v.as_str().map(str::to_owned);
    if let Some(values) = schema["enum"].as_array() {
        return Some(values.iter().filter_map(text).collect());
    }
    let choices = schema["oneOf"].as_array()?;
    let one = |choice: &Json| match choice["enum"].as_array() {
        Some(values) => values.iter().filter_map(text).collect(),
        None => text(&choice["const"]).into_iter().collect::<Vec<_>>(),
    };
    Some(choices.iter().flat_map(one).collect())
}

/// Keys that must be there.
pub(super) fn required(schema: &Json) -> impl Iterator<Item = &str> {
    let names = schema["required"].as_array();
    names.into_iter().flatten().filter_map(Json::as_str)
}

/// Fewest and most items of a list, or characters of a text.
pub(super) fn length_bounds(schema: &Json) -> (usize, usize) {
    let bound = |names: [&str; 2]| {
        let found = names.iter().find_map(|n| schema[*n].as_u64());
        found.and_then(|n| usize::try_from(n).ok())
    };
    (
        bound(["minLength", "minItems"]).unwrap_or(0),
        bound(["maxLength", "maxItems"]).unwrap_or(usize::MAX),
    )
}

/// The schema of the value under a key path such as `plans.FREE.requests`, and whether a change of
/// it needs a restart.
pub(super) fn at<'s>(root: &'s Json, path: &str) -> Option<(&'s Json, Reload)> {
    let mut reload = Reload::Live;
    let mut schema = follow(root, root);
    for step in path.split(['.', '[']).filter(|s| !s.is_empty()) {
        let raw = match expected(schema) {
            Expected::Table => schema["properties"].get(step)?,
            Expected::Map => &schema["additionalProperties"],
            Expected::List if step.ends_with(']') => &schema["items"],
            Expected::List
            | Expected::Text
            | Expected::OneOf(_)
            | Expected::Integer { .. }
            | Expected::Boolean
            | Expected::Anything => return None,
        };
        if raw["x-reload"] == "restart" {
            reload = Reload::Restart;
        }
        schema = follow(root, raw);
    }
    Some((schema, reload))
}

/// Whether a changed key takes effect in the running process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reload {
    Live,
    Restart,
}

/// One key of the format, for documentation.
pub(super) struct Key {
    /// `*` stands for a name, `[*]` for an index: `upstreams.*.health.path`, `routes[*].path`.
    pub(super) path: String,
    /// Where its schema is (JSON pointer).
    pub(super) pointer: String,
    pub(super) expected: Expected,
    pub(super) reload: Reload,
    pub(super) description: String,
}

impl Key {
    /// The table that it is in.
    pub(super) fn section(&self) -> &str {
        self.path
            .rsplit_once('.')
            .map_or("", |(section, _)| section)
    }

    /// Its name in that table.
    pub(super) fn name(&self) -> &str {
        self.path
            .rsplit_once('.')
            .map_or(&self.path, |(_, name)| name)
    }
}

/// All keys, tables before what is in them, otherwise by name.
pub(super) fn keys(root: &Json) -> Vec<Key> {
    let mut found = Vec::new();
    below(root, "", "", Reload::Live, &mut found);
    // Plain values before tables, so that a section is not torn apart.
    found.sort_by(|a, b| (a.section(), a.name()).cmp(&(b.section(), b.name())));
    found
}

fn below(root: &Json, pointer: &str, path: &str, reload: Reload, found: &mut Vec<Key>) {
    let Some(raw) = root.pointer(pointer) else {
        return;
    };
    let reload = match raw["x-reload"] == "restart" {
        true => Reload::Restart,
        false => reload,
    };
    let schema = follow(root, raw);
    let target = follow_pointer(root, pointer);
    let expected = expected(schema);
    if !path.is_empty() && !path.ends_with('*') && !path.ends_with("[*]") {
        let text = raw["description"]
            .as_str()
            .or(schema["description"].as_str());
        found.push(Key {
            path: path.to_owned(),
            pointer: pointer.to_owned(),
            expected: expected.clone(),
            reload,
            description: text.unwrap_or_default().replace('\n', " "),
        });
    }
    match expected {
        Expected::Table => {
            for name in schema["properties"]
                .as_object()
                .into_iter()
                .flat_map(|p| p.keys())
            {
                let path = match path {
                    "" => name.clone(),
                    _ => format!("{path}.{name}"),
                };
                below(
                    root,
                    &format!("{target}/properties/{name}"),
                    &path,
                    reload,
                    found,
                );
            }
        }
        Expected::Map => {
            let (pointer, path) = (
                format!("{target}/additionalProperties"),
                format!("{path}.*"),
            );
            below(root, &pointer, &path, reload, found);
        }
        Expected::List => {
            let (pointer, path) = (format!("{target}/items"), format!("{path}[*]"));
            below(root, &pointer, &path, reload, found);
        }
        Expected::Text
        | Expected::OneOf(_)
        | Expected::Integer { .. }
        | Expected::Boolean
        | Expected::Anything => {}
    }
}

/// As [`follow`], for the place instead of the schema.
fn follow_pointer(root: &Json, pointer: &str) -> String {
    let Some(schema) = root.pointer(pointer) else {
        return pointer.to_owned();
    };
    if let Some(target) = schema["$ref"].as_str().and_then(|r| r.strip_prefix('#')) {
        return follow_pointer(root, target);
    }
    match schema["anyOf"].is_array() {
        true => follow_pointer(root, &format!("{pointer}/anyOf/0")),
        false => pointer.to_owned(),
    }
}
