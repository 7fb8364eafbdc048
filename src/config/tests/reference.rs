//! One schema, and what is made of it: defaults, documentation, the schema for editors.

use std::sync::Arc;

use super::super::schema::{Expected, Key};
use super::super::source::{DEFAULTS, default_key};
use super::super::tree::Node;
use super::super::{check, docs, schema};

/// `default.toml` with its examples: a line of `#` and no space is one.
fn with_examples() -> Node {
    let uncommented: String = DEFAULTS
        .lines()
        .filter(|line| !matches!(*line, "routes = []" | "certificates = []"))
        .map(|line| match line.strip_prefix('#') {
            Some(example) if !example.is_empty() && !example.starts_with(' ') => example,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut problems = Vec::new();
    let tree = Node::parse(&Arc::from("default.toml"), &uncommented, &mut problems);
    assert_eq!(problems, []);
    tree
}

/// Whether a key with `*` and `[*]` in it is written anywhere.
fn is_written(node: &Node, path: &str) -> bool {
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    let (name, is_list) = match step.strip_suffix("[*]") {
        Some(name) => (name, true),
        None => (step, false),
    };
    let Some(table) = node.table() else {
        return false;
    };
    let next: Vec<&Node> = match name {
        "*" => table.values().collect(),
        _ => table.get(name).into_iter().collect(),
    };
    let next: Vec<&Node> = match is_list {
        true => next
            .into_iter()
            .flat_map(|n| n.list().unwrap_or_default())
            .collect(),
        false => next,
    };
    next.into_iter()
        .any(|node| rest.is_empty() || is_written(node, rest))
}

fn keys() -> Vec<Key> {
    let is_leaf = |k: &Key| {
        !matches!(k.expected, Expected::Table | Expected::Map) && !k.path.starts_with("defaults")
    };
    schema::keys(&schema::schema())
        .into_iter()
        .filter(is_leaf)
        .collect()
}

#[test]
fn every_key_is_in_the_defaults_file() {
    let tree = with_examples();
    let is_missing = |k: &&Key| {
        // A secret's own keys are shown once, where webhooks have theirs.
        let is_secret = [
            "admin.token.",
            "assertion_secret.",
            "delivery.secret.",
            "redis.password.",
        ];
        !is_secret.iter().any(|s| k.path.contains(s))
            && !matches!(
                k.path.as_str(),
                "webhooks.endpoints.*.secrets[*].danger_secret"
            )
            && !is_written(&tree, &k.path)
            && !is_written(&tree, &default_key(&k.path))
    };
    let missing: Vec<_> = keys()
        .iter()
        .filter(is_missing)
        .map(|k| k.path.clone())
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn the_defaults_file_has_no_key_that_is_unknown() {
    let mut problems = Vec::new();
    check::check(&with_examples(), &schema::schema(), &mut problems);
    // Examples are not complete; `defaults` fills them up when a file is loaded.
    problems.retain(|p| p.message != "is missing");
    assert_eq!(problems, []);
}

#[test]
fn every_block_of_the_defaults_file_says_what_it_is() {
    let silent: Vec<_> = DEFAULTS
        .split("\n\n")
        .filter(|block| !block.contains("# ") && !block.starts_with("[listeners.http"))
        .collect();
    // Quotas of plans and classes repeat two keys that the first of them explains.
    let allowed = ["[plans.PRO]", "[plans.ENT]", "[classes.uploads]"];
    let silent: Vec<_> = silent
        .into_iter()
        .filter(|b| !allowed.iter().any(|a| b.starts_with(a)))
        .collect();
    assert_eq!(silent, Vec::<&str>::new());
}

#[test]
fn every_key_has_a_meaning() {
    let mute: Vec<_> = keys()
        .iter()
        .filter(|k| k.description.is_empty())
        .map(|k| k.path.clone())
        .collect();
    assert_eq!(mute, Vec::<String>::new());
}

#[test]
fn the_reference_is_up_to_date() {
    let on_disk = std::fs::read_to_string("docs/config.md").unwrap_or_default();
    assert!(
        on_disk == docs::markdown(),
        "docs/config.md is stale; run: cargo run -- config docs > docs/config.md"
    );
}

#[test]
fn the_schema_for_editors_has_defaults_and_demands_nothing() {
    let schema = docs::published_schema();
    assert_eq!(
        schema["$defs"]["Listener"]["properties"]["address"]["default"],
        "0.0.0.0:8443"
    );
    assert_eq!(
        schema["$defs"]["Health"]["properties"]["path"]["default"],
        "/ready"
    );
    assert!(!schema.to_string().contains("\"required\":["));
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn what_is_in_effect_is_shown_with_its_place_and_without_secrets() {
    let env = [
        ("PLAN_LIMIT_FREE", "11"),
        ("DATABASE_URL", "postgres://u:p4ss@db/x"),
    ];
    let source = super::ConfigSource {
        path: None,
        env: env.into_iter().collect(),
    };
    let shown = docs::show(&source).unwrap();
    assert!(
        shown.contains("plans.FREE.requests = 11  # $PLAN_LIMIT_FREE\n"),
        "{shown}"
    );
    assert!(shown.contains("cache.prefix = \"dev\"  # (built in) dev.toml:"));
    assert!(shown.contains("cache.lock_timeout_ms = 5000  # (built in) default.toml:"));
    assert!(
        !shown.contains("p4ss") && !shown.contains("dev-webhook-secret"),
        "{shown}"
    );
}
