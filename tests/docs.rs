//! Reference pages are generated from the declarations that the code runs on. A page that no longer
//! says what the code does fails here; `UPDATE_DOCS=1 cargo test --test docs` writes it anew. Links
//! between pages lead somewhere.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn configuration_is_documented() {
    up_to_date("docs/config.md", &maitred::config::docs::markdown());
}

#[test]
fn refusals_are_documented() {
    up_to_date("docs/refusals.md", &maitred::kernel::reject::markdown());
}

#[test]
fn metrics_are_documented() {
    up_to_date("docs/metrics.md", &maitred::telemetry::metrics::markdown());
}

#[test]
fn webhook_presets_are_documented() {
    up_to_date(
        "docs/webhook-presets.md",
        &maitred::config::preset::markdown(),
    );
}

#[test]
fn links_lead_somewhere() {
    if updating() {
        // Pages are being written at this moment.
        return;
    }
    let mut dead = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap_or_default();
        let folder = page.parent().unwrap_or(Path::new(""));
        for link in links(&text) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !folder.join(file).exists() {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(
        dead.is_empty(),
        "{} dead link(s):\n  {}",
        dead.len(),
        dead.join("\n  ")
    );
}

fn updating() -> bool {
    std::env::var_os("UPDATE_DOCS").is_some_and(|v| v == "1")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Markdown of the repository's root and of the folders that hold prose.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in [
        "",
        "bench",
        "certs",
        "docs",
        "docs/adr",
        "docs/howto",
        "docs/runbooks",
    ] {
        for entry in fs::read_dir(root().join(folder))
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.path().extension().is_some_and(|e| e == "md") {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Targets of `[text](target)` within the repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    targets.filter(|t| !t.contains("://") && !t.starts_with("mailto:") && !t.contains(' '))
}

fn up_to_date(page: &str, generated: &str) {
    let path = root().join(page);
    if updating() {
        let written = fs::write(&path, generated);
        assert!(written.is_ok(), "{page}: {written:?}");
        return;
    }
    let present = fs::read_to_string(&path).unwrap_or_default();
    let differs = present
        .lines()
        .zip(generated.lines())
        .position(|(a, b)| a != b);
    let line =
        1 + differs.unwrap_or_else(|| present.lines().count().min(generated.lines().count()));
    assert!(
        present == generated,
        "{page} is stale from line {line} on; write it anew with\n  \
         UPDATE_DOCS=1 cargo test --test docs"
    );
}
