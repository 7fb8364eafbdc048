//! (to be written)

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::schema::{self, Reload};
use super::tree::{Node, Value};

/// Every key that takes effect at start only, with its value as text.
pub(super) fn restart_keys(tree: &Node, root: &Json) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    leaves("", tree, &mut |path, node| {
        if let Some((_, Reload::Restart)) = schema::at(root, path) {
            found.insert(path.to_owned(), node.to_json().to_string());
        }
    });
    found
}

/// Calls `each` with every value that is not a table.
pub(super) fn leaves(path: &str, node: &Node, each: &mut impl FnMut(&str, &Node)) {
    match &node.value {
        Value::Table(table) => {
            for (key, node) in table {
                match path {
                    "" => leaves(key, node, each),
                    _ => leaves(&format!("{path}.{key}"), node, each),
                }
            }
        }
        Value::List(_)
        | Value::Text(_)
        | Value::Integer(_)
        | Value::Boolean(_)
        | Value::Other(_) => {
            each(path, node);
        }
    }
}
