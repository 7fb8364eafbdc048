//! Where the configuration comes from: files laid over each other, and the environment over them.
//! Makes nothing of the values.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use super::env::{self, Env};
use super::problem::{ConfigErrors, Place, Problem};
use super::tree::{Node, Value};
use super::{Config, check, preset, resolve, schema};

/// Every key and its default; also the documentation of the file format.
pub const DEFAULTS: &str = include_str!("default.toml");
/// How messages call it.
pub(super) const DEFAULTS_NAME: &str = "(built in) default.toml";
/// What `serve` uses when it is given no file, with what that file includes.
const BUILT_IN: [(&str, &str); 2] = [
    ("dev.toml", include_str!("../../config/dev.toml")),
    ("maitred.toml", include_str!("../../config/maitred.toml")),
];
/// Includes within includes, at most.
const INCLUDE_DEPTH_MAX: usize = 4;

/// A place to load the configuration from, again and again.
#[derive(Clone)]
pub struct ConfigSource {
    /// `None` = the development configuration that is built in.
    pub path: Option<PathBuf>,
    pub env: Env,
}

/// The merged document, before anything is made of it.
pub(super) struct Merged {
    pub(super) tree: Node,
    pub(super) files: Vec<PathBuf>,
    /// Names of the variables that override a key.
    pub(super) variables: Vec<String>,
}

impl ConfigSource {
    /// Reads, checks and resolves everything, or says all that is wrong.
    ///
    /// # Errors
    /// Every problem found, each with its place and key.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        let mut problems = Vec::new();
        let mut merged = self.merge(&mut problems);
        if !problems.is_empty() {
            // Half a document would only bring errors that are none.
            return Err(ConfigErrors::new(problems));
        }
        let root = schema::schema();
        self.complete(&mut merged, &root, &mut problems);
        check::check(&merged.tree, &root, &mut problems);
        let default = |key: &str| defaults().at(&default_key(key)).cloned();
        check::mend(&mut merged.tree, &root, default, &problems);
        let resolved = resolve::resolve(&merged, &self.env, &mut problems);
        match resolved {
            Some(config) if problems.is_empty() => Ok(config),
            Some(_) | None => Err(ConfigErrors::new(problems)),
        }
    }

    /// Everything laid over each other, right or wrong.
    pub(super) fn effective(&self) -> Result<Merged, ConfigErrors> {
        let mut problems = Vec::new();
        let mut merged = self.merge(&mut problems);
        if problems.is_empty() {
            self.complete(&mut merged, &schema::schema(), &mut problems);
        }
        match problems.is_empty() {
            true => Ok(merged),
            false => Err(ConfigErrors::new(problems)),
        }
    }

    /// Fills schemes up from their presets, lays the environment over the files, and fills entries up
    /// from `defaults`.
    fn complete(&self, merged: &mut Merged, root: &Json, problems: &mut Vec<Problem>) {
        preset::lay_under(&mut merged.tree, problems);
        merged.variables = env::apply(&mut merged.tree, &self.env, root, problems);
        inherit(&mut merged.tree);
    }

    /// `defaults ← includes ← file`.
    fn merge(&self, problems: &mut Vec<Problem>) -> Merged {
        let mut tree = Node::parse(&Arc::from(DEFAULTS_NAME), DEFAULTS, problems);
        let mut files = Vec::new();
        let (name, kind) = match &self.path {
            Some(path) => (path.clone(), Kind::OnDisk),
            None => (PathBuf::from("dev.toml"), Kind::BuiltIn),
        };
        let mut reader = Reader {
            kind,
            files: &mut files,
            problems,
        };
        if let Some(layer) = reader.read(&name, Place::Nowhere, 0) {
            tree.overlay(layer);
        }
        Merged {
            tree,
            files,
            variables: Vec::new(),
        }
    }
}

/// `default.toml` alone.
pub(super) fn defaults() -> Node {
    Node::parse(&Arc::from(DEFAULTS_NAME), DEFAULTS, &mut Vec::new())
}

/// Whether files are on disk or in the program.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    OnDisk,
    BuiltIn,
}

struct Reader<'a> {
    kind: Kind,
    files: &'a mut Vec<PathBuf>,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    /// A file with its includes laid under it.
    fn read(&mut self, path: &Path, named_at: Place, depth: usize) -> Option<Node> {
        let text = match self.text(path) {
            Ok(text) => text,
            Err(message) => {
                self.say(named_at, message);
                return None;
            }
        };
        let own = Node::parse(&self.shown(path).into(), &text, self.problems);
        let includes = own.at("include").and_then(Node::list).unwrap_or_default();
        let mut merged: Option<Node> = None;
        for include in includes {
            if depth == INCLUDE_DEPTH_MAX {
                self.say(
                    include.place.clone(),
                    "files include each other too deeply".into(),
                );
                break;
            }
            let Some(name) = include.text() else { continue };
            let path = path.parent().unwrap_or(Path::new("")).join(name);
            let Some(layer) = self.read(&path, include.place.clone(), depth + 1) else {
                continue;
            };
            match &mut merged {
                Some(tree) => tree.overlay(layer),
                None => merged = Some(layer),
            }
        }
        Some(match merged {
            Some(mut tree) => {
                tree.overlay(own);
                tree
            }
            None => own,
        })
    }

    fn text(&mut self, path: &Path) -> Result<String, String> {
        let shown = path.display();
        if self.kind == Kind::BuiltIn {
            let found = BUILT_IN.iter().find(|(name, _)| Path::new(name) == path);
            return found
                .map(|(_, text)| (*text).to_owned())
                .ok_or_else(|| format!("{shown} is not built in"));
        }
        self.files.push(path.to_owned());
        std::fs::read_to_string(path).map_err(|e| format!("cannot read {shown}: {e}"))
    }

    fn shown(&self, path: &Path) -> String {
        match self.kind {
            Kind::OnDisk => path.display().to_string(),
            Kind::BuiltIn => format!("(built in) {}", path.display()),
        }
    }

    fn say(&mut self, place: Place, message: String) {
        self.problems.push(Problem {
            place,
            key: String::new(),
            message,
            hint: String::new(),
        });
    }
}

/// Which tables are filled up from which part of `defaults`.
const INHERITANCE: [(&str, &str); 7] = [
    ("upstream", "upstreams"),
    ("issuer", "issuers"),
    ("cache", "cache.policies"),
    ("scheme", "schemes"),
    ("webhook", "webhooks.endpoints"),
    ("stream", "streams"),
    ("route", "routes"),
];

/// Where a key's default is: for `upstreams.api.health.path` in `defaults.upstream.health.path`.
pub(super) fn default_key(key: &str) -> String {
    let inherited = INHERITANCE.iter().find_map(|(kind, entries)| {
        let rest = key.strip_prefix(entries)?;
        // Past the entry's name or index.
        let (_, rest) = rest.strip_prefix(['.', '['])?.split_once('.')?;
        Some(format!("defaults.{kind}.{rest}"))
    });
    inherited.unwrap_or_else(|| key.to_owned())
}

fn inherit(tree: &mut Node) {
    for (kind, entries) in INHERITANCE {
        let Some(base) = tree.at(&format!("defaults.{kind}")).cloned() else {
            continue;
        };
        match tree.at_mut(entries).map(|node| &mut node.value) {
            Some(Value::Table(table)) => table.values_mut().for_each(|e| e.underlay(&base)),
            Some(Value::List(list)) => list.iter_mut().for_each(|e| e.underlay(&base)),
            Some(Value::Text(_) | Value::Integer(_) | Value::Boolean(_) | Value::Other(_))
            | None => {}
        }
    }
}
