//! Schemes of known providers as data: `config/providers/*.toml`, built into the program. Decides where
//! an endpoint or a scheme takes what it does not say itself; what a scheme means is `webhook::scheme`'s.

mod catalogue;
mod page;

use std::sync::Arc;

use super::check;
use super::problem::Problem;
use super::tree::{Node, Value};
use crate::webhook::SchemeSpec;

pub use page::{list, markdown};

/// One file of `config/providers`.
#[derive(Clone, Debug)]
pub struct Preset {
    pub name: &'static str,
    /// The provider, as people write it.
    pub title: String,
    /// Pages of the provider that describe the scheme.
    pub docs: String,
    /// What the file rests on.
    pub basis: String,
    /// Time within which the provider wants an answer.
    pub deadline: String,
    /// When it sends again, and when it gives up.
    pub retries: String,
    /// How messages call the provider.
    pub provider: String,
    /// Its scheme in the grammar; empty where it is a special one.
    pub spec: SchemeSpec,
    /// Which special scheme it is.
    pub special: Option<String>,
    tree: Node,
}

/// Names of all presets, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    catalogue::FILES.iter().map(|(name, _)| *name)
}

/// All presets, sorted by name. A file that cannot be read is left out, which a test refuses.
#[must_use]
pub fn all() -> Vec<Preset> {
    names().filter_map(find).collect()
}

/// The preset called `name`.
#[must_use]
pub fn find(name: &str) -> Option<Preset> {
    let (name, text) = catalogue::FILES.iter().find(|(n, _)| *n == name)?;
    let file = Arc::from(format!("(built in) providers/{name}.toml"));
    let mut problems = Vec::new();
    let tree = Node::parse(&file, text, &mut problems);
    if !problems.is_empty() {
        return None;
    }
    let said = |key: &str| Some(tree.at(key)?.text()?.to_owned());
    Some(Preset {
        name,
        title: said("about.title")?,
        docs: said("about.docs")?,
        basis: said("about.basis")?,
        deadline: said("about.deadline")?,
        retries: said("about.retries")?,
        provider: said("endpoint.provider")?,
        spec: grammar(&tree)?,
        special: said("scheme.special"),
        tree,
    })
}

/// The part of a preset's scheme that is the grammar's.
fn grammar(tree: &Node) -> Option<SchemeSpec> {
    if tree.at("scheme.special").is_some() {
        return Some(SchemeSpec::default());
    }
    let mut scheme = tree.at("scheme")?.to_json();
    scheme.as_object_mut()?.remove("handshake");
    serde_json::from_value(scheme).ok()
}

/// Fills up endpoints that name a preset, and schemes that start from one.
pub(super) fn lay_under(tree: &mut Node, problems: &mut Vec<Problem>) {
    for (name, preset) in schemes_with_preset(tree, problems) {
        if let Some(node) = tree.at_mut(&format!("schemes.{name}")) {
            underlay(node, preset.tree.at("scheme"));
        }
    }
    for (name, scheme) in endpoints(tree) {
        let own = tree.at(&format!("schemes.{scheme}"));
        let preset = match own {
            Some(own) => own.at("preset").and_then(Node::text).and_then(find),
            None => find(&scheme),
        };
        let Some(preset) = preset else { continue };
        if own.is_none() {
            insert(tree, "schemes", &scheme, preset.tree.at("scheme"));
        }
        if let Some(node) = tree.at_mut(&format!("webhooks.endpoints.{name}")) {
            underlay(node, preset.tree.at("endpoint"));
        }
    }
}

fn schemes_with_preset(tree: &Node, problems: &mut Vec<Problem>) -> Vec<(String, Preset)> {
    let schemes = tree.at("schemes").and_then(Node::table);
    let mut found = Vec::new();
    for (name, scheme) in schemes.into_iter().flatten() {
        let Some(node) = scheme.at("preset") else {
            continue;
        };
        // Anything but a text is complained about with all other types.
        let Some(text) = node.text() else { continue };
        match find(text) {
            Some(preset) => found.push((name.clone(), preset)),
            None => problems.push(Problem {
                place: node.place.clone(),
                key: format!("schemes.{name}.preset"),
                message: format!("there is no preset `{text}`"),
                hint: match check::nearest(text, names()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "`maitred config presets` lists them".to_owned(),
                },
            }),
        }
    }
    found
}

/// Names of the endpoints and of their schemes.
fn endpoints(tree: &Node) -> Vec<(String, String)> {
    let endpoints = tree.at("webhooks.endpoints").and_then(Node::table);
    let named = endpoints.into_iter().flatten().filter_map(|(name, node)| {
        let scheme = node.at("scheme")?.text()?;
        Some((name.clone(), scheme.to_owned()))
    });
    named.collect()
}

fn underlay(node: &mut Node, base: Option<&Node>) {
    if let Some(base) = base {
        node.underlay(base);
    }
}

fn insert(tree: &mut Node, table: &str, name: &str, value: Option<&Node>) {
    let node = tree.at_mut(table).map(|node| &mut node.value);
    if let (Some(Value::Table(table)), Some(value)) = (node, value) {
        table.insert(name.to_owned(), value.clone());
    }
}

#[cfg(test)]
mod tests;
