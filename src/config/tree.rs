//! A TOML document in which every value remembers where it was written, so that an error found late
//! still names file, line and column. Knows layers; does not know which keys exist.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem};

/// A value and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    /// Where the value is written.
    pub(super) place: Place,
    /// Where its key is written.
    pub(super) key_place: Place,
}

/// TOML's values, of which a configuration needs no others.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Table(BTreeMap<String, Node>),
    List(Vec<Node>),
    Text(String),
    Integer(i64),
    Boolean(bool),
    /// A float or a date: no key takes one. Kept as written for the message.
    Other(&'static str),
}

impl Node {
    pub(super) fn new(value: Value, place: Place) -> Self {
        Self {
            value,
            key_place: place.clone(),
            place,
        }
    }

    /// Reads one file; `problems` receives every syntax error.
    pub(super) fn parse(file: &Arc<str>, text: &str, problems: &mut Vec<Problem>) -> Self {
        let source = Source { file, text };
        let (table, errors) = DeTable::parse_recoverable(text);
        problems.extend(errors.into_iter().map(|e| Problem {
            place: e.span().map_or(Place::Nowhere, |span| source.place(&span)),
            key: String::new(),
            message: e.message().replace('\n', ", "),
            hint: "this is not TOML 1.1".into(),
        }));
        let place = source.place(&table.span());
        Self::new(source.table(table.get_ref()), place)
    }

    pub(super) fn table(&self) -> Option<&BTreeMap<String, Node>> {
        match &self.value {
            Value::Table(table) => Some(table),
            Value::List(_)
            | Value::Text(_)
            | Value::Integer(_)
            | Value::Boolean(_)
            | Value::Other(_) => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Table(_)
            | Value::List(_)
            | Value::Integer(_)
            | Value::Boolean(_)
            | Value::Other(_) => None,
        }
    }

    pub(super) fn list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(list) => Some(list),
            Value::Table(_)
            | Value::Text(_)
            | Value::Integer(_)
            | Value::Boolean(_)
            | Value::Other(_) => None,
        }
    }

    /// The value under a path such as `routes[3].upstream`.
    pub(super) fn at(&self, path: &str) -> Option<&Node> {
        steps(path).try_fold(self, |node, step| match (&node.value, step) {
            (Value::Table(table), Step::Key(key)) => table.get(key),
            (Value::List(list), Step::Index(i)) => list.get(i),
            (_, _) => None,
        })
    }

    /// As [`Node::at`], to change it.
    pub(super) fn at_mut(&mut self, path: &str) -> Option<&mut Node> {
        steps(path).try_fold(self, |node, step| match (&mut node.value, step) {
            (Value::Table(table), Step::Key(key)) => table.get_mut(key),
            (Value::List(list), Step::Index(i)) => list.get_mut(i),
            (_, _) => None,
        })
    }

    /// Where the value under `path` is written, or what is nearest above it. What came from `base`
    /// is nothing that an operator wrote, so that counts as above, too.
    pub(super) fn place_of(&self, path: &str, base: &str) -> Place {
        let is_written = |p: &Place| !matches!(p, Place::File { file, .. } if **file == *base);
        let mut place = self.place.clone();
        let mut node = self;
        for step in steps(path) {
            let next = match (&node.value, step) {
                (Value::Table(table), Step::Key(key)) => table.get(key),
                (Value::List(list), Step::Index(i)) => list.get(i),
                (_, _) => None,
            };
            let Some(next) = next else { break };
            node = next;
            if is_written(&node.place) {
                place = node.place.clone();
            }
        }
        place
    }

    /// Lays `over` over this: tables are merged, everything else is replaced.
    pub(super) fn overlay(&mut self, over: Node) {
        match (&mut self.value, over.value) {
            (Value::Table(base), Value::Table(over_table)) => {
                for (key, node) in over_table {
                    match base.get_mut(&key) {
                        Some(old) => old.overlay(node),
                        None => {
                            base.insert(key, node);
                        }
                    }
                }
            }
            (_, value) => self.value = value,
        }
        self.place = over.place;
        self.key_place = over.key_place;
    }

    /// Takes from `base` what this table lacks, at every depth; its own place stays.
    pub(super) fn underlay(&mut self, base: &Node) {
        let (Value::Table(own), Value::Table(base)) = (&mut self.value, &base.value) else {
            return;
        };
        for (key, node) in base {
            match own.get_mut(key) {
                Some(mine) => mine.underlay(node),
                None => {
                    own.insert(key.clone(), node.clone());
                }
            }
        }
    }

    /// The same as JSON, for serde.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Table(table) => table
                .iter()
                .map(|(key, node)| (key.clone(), node.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Value::List(list) => list.iter().map(Self::to_json).collect(),
            Value::Text(text) => text.as_str().into(),
            Value::Integer(number) => (*number).into(),
            Value::Boolean(flag) => (*flag).into(),
            Value::Other(kind) => (*kind).into(),
        }
    }
}

/// One step of a key path.
enum Step<'p> {
    Key(&'p str),
    Index(usize),
}

fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split(['.', '['])
        .filter(|part| !part.is_empty())
        .map(|part| match part.strip_suffix(']') {
            Some(index) => Step::Index(index.parse().unwrap_or(usize::MAX)),
            None => Step::Key(part),
        })
}

/// The text under parse, to turn spans into lines and columns.
struct Source<'t> {
    file: &'t Arc<str>,
    text: &'t str,
}

impl Source<'_> {
    fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Place::File {
            file: self.file.clone(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).map_or(0, |l| l.chars().count()) + 1,
        }
    }

    fn table(&self, table: &DeTable<'_>) -> Value {
        let entries = table.iter().map(|(key, value)| {
            let mut node = self.node(value);
            node.key_place = self.place(&key.span());
            (key.get_ref().to_string(), node)
        });
        Value::Table(entries.collect())
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Node {
        let parsed = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Value::Other("a number beyond 64 bits"), Value::Integer),
            DeValue::Boolean(flag) => Value::Boolean(*flag),
            DeValue::Float(_) => Value::Other("a number with a fraction"),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Array(list) => Value::List(list.iter().map(|v| self.node(v)).collect()),
            DeValue::Table(table) => self.table(table),
        };
        Node::new(parsed, self.place(&value.span()))
    }
}
