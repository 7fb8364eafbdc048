//! Walks a merged document against the schema and reports every unknown key, wrong type, value out
//! of range and missing key at once, then puts stand-ins in their place so that `resolve` can look at
//! the rest. Decides nothing about references between keys; `resolve` does.

use serde_json::Value as Json;

use super::problem::{Place, Problem};
use super::schema::{self, Expected};
use super::tree::{Node, Value};

/// Adds to `problems` whatever the schema does not allow.
pub(super) fn check(tree: &Node, root: &Json, problems: &mut Vec<Problem>) {
    Walk { root, problems }.node("", tree, root, Missing::IsAnError);
}

/// Takes out what is unknown and replaces what is wrong by its default, or by the least that the
/// schema takes. Only for finding further problems: the result never runs.
pub(super) fn mend(
    tree: &mut Node,
    root: &Json,
    default: impl Fn(&str) -> Option<Node>,
    problems: &[Problem],
) {
    for problem in problems.iter().filter(|p| !p.key.is_empty()) {
        let (parent, name) = problem.key.rsplit_once('.').unwrap_or(("", &problem.key));
        let Some((schema, _)) = schema::at(root, &problem.key) else {
            if let Some(Value::Table(table)) = tree.at_mut(parent).map(|n| &mut n.value) {
                table.remove(name);
            }
            continue;
        };
        let value = default(&problem.key).map_or_else(|| stand_in(root, schema), |n| n.value);
        if let Some(node) = tree.at_mut(&problem.key) {
            node.value = value;
        } else if let Some(Node {
            value: Value::Table(table),
            place,
            ..
        }) = tree.at_mut(parent)
        {
            table.insert(name.to_owned(), Node::new(value, place.clone()));
        }
    }
}

/// The least that a schema takes.
fn stand_in(root: &Json, schema: &Json) -> Value {
    match schema::expected(schema) {
        Expected::Table => {
            let key = |name: &str| {
                let schema = schema::follow(root, &schema["properties"][name]);
                (
                    name.to_owned(),
                    Node::new(stand_in(root, schema), Place::Nowhere),
                )
            };
            Value::Table(schema::required(schema).map(key).collect())
        }
        Expected::Map => Value::Table(Default::default()),
        Expected::List => Value::List(Vec::new()),
        Expected::Text | Expected::Anything => Value::Text(String::new()),
        Expected::OneOf(allowed) => Value::Text(allowed.into_iter().next().unwrap_or_default()),
        Expected::Integer { min, .. } => Value::Integer(min),
        Expected::Boolean => Value::Boolean(false),
    }
}

/// Whether a key may be left out.
#[derive(Clone, Copy)]
enum Missing {
    IsAnError,
    /// Under `defaults`, whose tables need not be complete.
    IsFine,
}

struct Walk<'a> {
    root: &'a Json,
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    fn node(&mut self, key: &str, node: &Node, schema: &Json, missing: Missing) {
        let missing = match schema.get("x-partial").is_some() {
            true => Missing::IsFine,
            false => missing,
        };
        let schema = schema::follow(self.root, schema);
        let expected = schema::expected(schema);
        match (&node.value, expected) {
            (Value::Table(_), Expected::Table) => self.table(key, node, schema, missing),
            (Value::Table(entries), Expected::Map) => {
                for (name, entry) in entries {
                    self.name(name, entry);
                    let path = format!("{key}.{name}");
                    self.node(&path, entry, &schema["additionalProperties"], missing);
                }
            }
            (Value::List(items), Expected::List) => {
                self.length(key, node, schema, items.len());
                for (i, item) in items.iter().enumerate() {
                    self.node(&format!("{key}[{i}]"), item, &schema["items"], missing);
                }
            }
            (Value::Text(text), Expected::Text) => {
                self.length(key, node, schema, text.chars().count());
            }
            (Value::Text(text), Expected::OneOf(allowed)) => {
                if !allowed.iter().any(|a| a == text) {
                    self.wrong_choice(key, node, text, &allowed);
                }
            }
            (Value::Integer(number), Expected::Integer { min, max }) => {
                if !(min..=max).contains(number) {
                    let expected = Expected::Integer { min, max };
                    let message = format!("{number} is out of range; expected {expected}");
                    self.say(key, node, message, String::new());
                }
            }
            (Value::Boolean(_), Expected::Boolean) | (_, Expected::Anything) => {}
            (found, expected) => self.wrong_type(key, node, found, &expected),
        }
    }

    fn table(&mut self, key: &str, node: &Node, schema: &Json, missing: Missing) {
        let (Some(entries), Some(known)) = (node.table(), schema["properties"].as_object()) else {
            return;
        };
        let path = |name: &str| match key {
            "" => name.to_owned(),
            _ => format!("{key}.{name}"),
        };
        for (name, entry) in entries {
            match known.get(name) {
                Some(schema) => self.node(&path(name), entry, schema, missing),
                None => self.unknown(&path(name), name, entry, known.keys()),
            }
        }
        if matches!(missing, Missing::IsFine) {
            return;
        }
        for name in schema::required(schema).filter(|name| !entries.contains_key(*name)) {
            let expected = schema::expected(schema::follow(self.root, &known[name]));
            self.say(
                &path(name),
                node,
                "is missing".into(),
                format!("add `{name} = …`, {expected}"),
            );
        }
    }

    fn unknown<'k>(
        &mut self,
        key: &str,
        name: &str,
        entry: &Node,
        known: impl Iterator<Item = &'k String> + Clone,
    ) {
        let hint = match nearest(name, known.clone().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", quoted(known.map(String::as_str))),
        };
        self.problems.push(Problem {
            place: entry.key_place.clone(),
            key: key.to_owned(),
            message: "unknown key".into(),
            hint,
        });
    }

    /// Names of map entries become parts of key paths, metrics and URLs.
    fn name(&mut self, name: &str, entry: &Node) {
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || name.len() > 64 || !name.chars().all(fine) {
            self.problems.push(Problem {
                place: entry.key_place.clone(),
                key: name.to_owned(),
                message: "a name has 1 to 64 letters, digits, `_` and `-`".into(),
                hint: String::new(),
            });
        }
    }

    fn length(&mut self, key: &str, node: &Node, schema: &Json, length: usize) {
        let (min, max) = schema::length_bounds(schema);
        if length < min && length == 0 {
            self.say(key, node, "must not be empty".into(), String::new());
        } else if length < min || length > max {
            self.say(
                key,
                node,
                format!("has {length} items; expected {min} to {max}"),
                String::new(),
            );
        }
    }

    fn wrong_choice(&mut self, key: &str, node: &Node, text: &str, allowed: &[String]) {
        let hint = nearest(text, allowed.iter().map(String::as_str))
            .map(|near| format!("did you mean `{near}`?"));
        let message = format!(
            "`{text}` is not allowed; expected one of {}",
            quoted(allowed.iter().map(String::as_str))
        );
        self.say(key, node, message, hint.unwrap_or_default());
    }

    fn wrong_type(&mut self, key: &str, node: &Node, found: &Value, expected: &Expected) {
        let hint = match (found, expected) {
            (Value::Text(text), Expected::Integer { .. }) if text.parse::<i64>().is_ok() => {
                "write it without quotes"
            }
            (Value::Text(text), Expected::Boolean) if text == "true" || text == "false" => {
                "write it without quotes"
            }
            (Value::Text(_), Expected::List) => "write it in brackets: [\"…\"]",
            (Value::Integer(_), Expected::Text | Expected::OneOf(_)) => "write it in quotes",
            (_, _) => "",
        };
        let message = format!("is {}; expected {expected}", kind(found));
        self.say(key, node, message, hint.to_owned());
    }

    fn say(&mut self, key: &str, node: &Node, message: String, hint: String) {
        self.problems.push(Problem {
            place: node.place.clone(),
            key: key.to_owned(),
            message,
            hint,
        });
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Table(_) => "a table",
        Value::List(_) => "a list",
        Value::Text(_) => "text",
        Value::Integer(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Other(kind) => kind,
    }
}

/// The known name that was most likely meant.
pub(super) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|k| (strsim::jaro_winkler(name, k), k))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

/// `a`, `b`, `c`.
pub(super) fn quoted<'k>(names: impl Iterator<Item = &'k str>) -> String {
    let names: Vec<_> = names.map(|n| format!("`{n}`")).collect();
    names.join(", ")
}
