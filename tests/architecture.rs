//! The layout rules of `docs/architecture.md`, checked over the source text: layers import downwards
//! only, Pingora stays in the proxy ring, files say what they are for and stay small. Every violation
//! is listed, each with its file and what to do about it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use scan::{blank, fixed_port, has_comment, imports, production, words};

#[path = "architecture/scan.rs"]
mod scan;

/// Top-level modules of `maitred`, lowest layer first. A module imports strictly lower layers; only
/// the top one, which is all wiring, may also import sideways.
const LAYERS: &[&[&str]] = &[
    &["kernel"],
    &["telemetry", "cluster", "egress"],
    &[
        "guard", "route", "auth", "limit", "webhook", "stream", "cache", "upstream", "listener",
    ],
    &["plan"],
    &["config", "admin"],
    &["proxy"],
    &["app", "server", "cli", "embedded_api", "main", "lib"],
];

/// Where Pingora's types may be named: `x/` = everything below, `x.rs` = that file.
const PINGORA_ALLOWED: &[&str] = &[
    "app.rs",
    "cache/phases.rs",
    "cache/phases/",
    "cache/storage.rs",
    "cache/storage/",
    "listener.rs",
    "listener/",
    "proxy.rs",
    "proxy/",
    "server.rs",
    "server/",
    "upstream/peer.rs",
];

/// The one file that may know what the embedded API is made of.
const EMBEDDED_API: &str = "embedded_api.rs";
const API_ONLY: &[&str] = &["axum", "sqlx", "rusqlite", "tokio_postgres", "sea_orm"];

/// Names that say nothing and therefore collect everything.
const NAMES_BANNED: &[&str] = &[
    "common", "helper", "helpers", "manager", "misc", "mod", "types", "util", "utils",
];

const LINES_MAX: usize = 500;

#[test]
fn layers_import_downwards_only() {
    let mut found = Vec::new();
    for file in sources("src") {
        let here = file.module();
        let Some(layer) = layer_of(&here) else {
            let hint =
                "give it a layer in LAYERS of tests/architecture.rs and in docs/architecture.md";
            found.push(format!(
                "{}: module `{here}` has no layer; {hint}",
                file.path
            ));
            continue;
        };
        for target in imports(&production(&file.text), &file.module_path()) {
            if target == here {
                continue;
            }
            match layer_of(&target) {
                Some(below) if below < layer || layer == LAYERS.len() - 1 => {}
                Some(other) => found.push(format!(
                    "{}: `{here}` (layer {layer}) imports `{target}` (layer {other}); move what both \
                     need down to a lower layer, or join the two in plan.rs or proxy/",
                    file.path
                )),
                None => found.push(format!("{}: imports `{target}`, which has no layer", file.path)),
            }
        }
    }
    report(&found);
}

#[test]
fn pingora_stays_in_the_proxy_ring() {
    let mut found = Vec::new();
    for file in sources("src") {
        let below_src = file.below_src();
        let allows = |p: &&str| below_src == *p || p.ends_with('/') && below_src.starts_with(p);
        if PINGORA_ALLOWED.iter().any(allows) {
            continue;
        }
        if words(&blank(&file.text)).any(|w| w == "pingora" || w.starts_with("pingora_")) {
            let hint = "take http::request::Parts or a kernel noun, and leave the rest to proxy/";
            found.push(format!("{}: names Pingora; {hint}", file.path));
        }
    }
    report(&found);
}

#[test]
fn the_edge_knows_neither_axum_nor_sql() {
    let mut found = Vec::new();
    for file in sources("src").filter(|f| f.below_src() != EMBEDDED_API) {
        let text = blank(&file.text);
        for word in words(&text)
            .filter(|w| API_ONLY.contains(w))
            .collect::<BTreeSet<_>>()
        {
            found.push(format!(
                "{}: names `{word}`; that belongs to chefcloud-api",
                file.path
            ));
        }
    }
    report(&found);
}

#[test]
fn files_are_named_introduced_and_small() {
    let mut found = Vec::new();
    for file in ["src", "upstream/src", "tests", "upstream/tests"]
        .into_iter()
        .flat_map(sources)
    {
        let stem = Path::new(&file.path)
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy();
        if NAMES_BANNED.contains(&stem.as_ref()) {
            found.push(format!(
                "{}: name the file after what it decides",
                file.path
            ));
        }
        // The name `tests` says it all.
        if !file.text.starts_with("//!") && stem != "tests" {
            found.push(format!(
                "{}: start with `//!`: what it decides and what not",
                file.path
            ));
        }
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            found.push(format!(
                "{}: {lines} lines; split it (at most {LINES_MAX})",
                file.path
            ));
        }
    }
    report(&found);
}

#[test]
fn every_channel_has_a_bound() {
    let mut found = Vec::new();
    for file in ["src", "upstream/src"].into_iter().flat_map(sources) {
        let text = blank(&file.text);
        let unbounded = [
            "unbounded_channel",
            "UnboundedSender",
            "mpsc::unbounded",
            "mpsc::channel()",
        ];
        for name in unbounded.into_iter().filter(|name| text.contains(name)) {
            found.push(format!(
                "{}: `{name}`; give the channel a named capacity",
                file.path
            ));
        }
    }
    report(&found);
}

/// A comment on the line, or on the one above, may excuse it.
#[test]
fn tests_wait_for_conditions_and_take_free_ports() {
    let mut found = Vec::new();
    let files = ["tests", "upstream/tests"].into_iter().flat_map(sources);
    for file in files.filter(|f| !f.path.starts_with("tests/architecture")) {
        let mut above = "";
        for line in file.text.lines() {
            let code = blank(line);
            let excused = has_comment(line, &code) || above.trim_start().starts_with("//");
            above = line;
            if code.contains("#[ignore]") {
                found.push(format!(
                    "{}: bare #[ignore]; write #[ignore = \"why\"]",
                    file.path
                ));
            }
            if code.contains("thread::sleep") && !excused {
                let hint = "wait for the condition with a deadline, or say why in a comment";
                found.push(format!("{}: thread::sleep; {hint}", file.path));
            }
            if let Some(port) = fixed_port(line).filter(|_| !excused) {
                let hint = "bind port 0, or say in a comment why it is never bound";
                found.push(format!("{}: fixed port {port}; {hint}", file.path));
            }
        }
    }
    report(&found);
}

// === the files ===

struct Source {
    /// Relative to the repository root, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn below_src(&self) -> &str {
        self.path.strip_prefix("src/").unwrap_or(&self.path)
    }

    /// `src/cache/groups/fence.rs` → `["cache", "groups", "fence"]`.
    fn module_path(&self) -> Vec<String> {
        let path = self
            .below_src()
            .strip_suffix(".rs")
            .unwrap_or(self.below_src());
        path.split('/').map(str::to_owned).collect()
    }

    fn module(&self) -> String {
        self.module_path().swap_remove(0)
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder, in a stable order; none where the folder is missing.
fn sources(folder: &str) -> impl Iterator<Item = Source> {
    let mut left = vec![root().join(folder)];
    let mut paths = BTreeSet::new();
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                paths.insert(path);
            }
        }
    }
    paths.into_iter().filter_map(|path| {
        let text = fs::read_to_string(&path).ok()?;
        let path = path
            .strip_prefix(root())
            .ok()?
            .to_string_lossy()
            .replace('\\', "/");
        Some(Source { path, text })
    })
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn report(found: &[String]) {
    assert!(
        found.is_empty(),
        "{} violation(s):\n  {}",
        found.len(),
        found.join("\n  ")
    );
}
