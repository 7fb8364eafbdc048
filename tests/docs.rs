//! Reference pages are generated from the declarations that the code runs on. A page that no longer
//! says what the code does fails here; `UPDATE_DOCS=1 cargo test --test docs` writes it anew.

use std::fs;
use std::path::Path;

#[test]
fn refusals_are_documented() {
    up_to_date("docs/refusals.md", &maitred::kernel::reject::markdown());
}

#[test]
fn metrics_are_documented() {
    up_to_date("docs/metrics.md", &maitred::telemetry::metrics::markdown());
}

fn up_to_date(page: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    if std::env::var_os("UPDATE_DOCS").is_some_and(|v| v == "1") {
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
