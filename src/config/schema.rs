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
    let kind = match &schema["type"] {
        // `Option<T>`: the other one is null, which TOML does not have.
        Json::Array(kinds) => kinds.first().and_then(Json::as_str),
        kind => kind.as_str(),
    };
    match kind {
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
