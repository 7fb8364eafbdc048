//! `maitred smoke` against the real binary with the embedded API and its demo data: it passes, passes
//! again at once, changes nothing when told so, and names what is wrong where something is.

use std::process::Output;

use serde_json::Value;
use tokio::process::Command;

use crate::harness::edge::Edge;
use crate::harness::keys::WEBHOOK_SECRET;
use crate::harness::{demo, within};

/// Runs it against `edge`; exit code and rows.
async fn smoke(edge: &Edge, flags: &[&str], env: &[(&str, &str)]) -> (i32, Vec<Value>) {
    let done = run(edge, &[&["--json"], flags].concat(), env).await;
    let rows: Value = serde_json::from_slice(&done.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&done.stderr)));
    (
        done.status.code().unwrap(),
        rows.as_array().unwrap().clone(),
    )
}

async fn run(edge: &Edge, flags: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maitred"));
    command
        .args(["smoke", "--config"])
        .arg(&edge.config)
        .arg("--base")
        .arg(format!("https://localhost:{}", edge.https.port()))
        .arg("--ca")
        .arg(edge.dir.path().join("ca.pem"))
        .arg("--http")
        .arg(format!("http://localhost:{}", edge.http.port()))
        .args(flags)
        .envs(env.iter().copied())
        .current_dir(edge.dir.path())
        .kill_on_drop(true);
    within("maitred smoke", command.output()).await.unwrap()
}

/// `check/protocol` of the rows with this result.
fn named(rows: &[Value], result: &str) -> Vec<String> {
    let wanted = rows.iter().filter(|row| row["result"] == result);
    let name = |row: &Value| {
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        format!("{}/{}", text("check"), text("protocol"))
    };
    wanted.map(name).collect()
}

#[tokio::test]
async fn a_sound_deployment_passes_and_passes_again_at_once() {
    let edge = demo::start().await;
    for _ in 0..2 {
        let (code, rows) = smoke(&edge, &["--protocol", "both"], &[]).await;
        let others: Vec<_> = rows.iter().filter(|row| row["result"] != "ok").collect();
        assert!(code == 0 && others.is_empty(), "{code} {others:#?}");
        assert_eq!(rows.len(), 52);
    }
    // Calls that count against the plan: four per protocol and run. One login per run.
    let taken = async |policy: &str| {
        let series = "maitred_limit_decisions_total";
        let labels = format!(r#"{{decision="allowed",policy="{policy}"}}"#);
        edge.metric(&format!("{series}{labels}")).await
    };
    assert_eq!((taken("plan-pro").await, taken("auth").await), (16.0, 2.0));
}

#[tokio::test]
async fn read_only_changes_nothing_and_says_so() {
    let edge = demo::start().await;
    let (code, rows) = smoke(&edge, &["--read-only", "--protocol", "h2"], &[]).await;
    assert_eq!((code, named(&rows, "fail")), (0, vec![]));
    let skipped = [
        "webhook accepted/h2",
        "webhook replayed/h2",
        "webhook replayed, other id/h2",
        "cache forgets/h2",
    ];
    assert_eq!(named(&rows, "skipped"), skipped);
    assert_eq!(edge.metric("maitred_cache_invalidated_total").await, 0.0);
}

#[tokio::test]
async fn another_webhook_secret_fails_the_rows_that_need_it() {
    let edge = demo::start().await;
    let env = [("SMOKE_WEBHOOK", "not-the-secret-of-this-edge-but-as-long")];
    let flags = ["--protocol", "h1", "--webhook-secret-env", "SMOKE_WEBHOOK"];
    let (code, rows) = smoke(&edge, &flags, &env).await;
    assert_eq!(
        (code, named(&rows, "fail")),
        (1, vec!["webhook accepted/h1".to_owned()])
    );
    let row = rows.iter().find(|row| row["result"] == "fail").unwrap();
    assert!(
        row["look_at"]
            .as_str()
            .unwrap()
            .contains("--webhook-secret-env"),
        "{row}"
    );
    // A 401 proves nothing about time and replay where the secret is the reason.
    let skipped = [
        "webhook replayed/h1",
        "webhook replayed, other id/h1",
        "webhook too old/h1",
        "webhook from the future/h1",
    ];
    assert_eq!(named(&rows, "skipped"), skipped);
}

#[tokio::test]
async fn the_table_names_failures_and_holds_no_secret() {
    let edge = demo::start().await;
    let env = [
        ("SMOKE_EMAIL", "manager@staging.com"),
        ("SMOKE_PASSWORD", "not-the-password-1"),
    ];
    let done = run(&edge, &["--protocol", "h2"], &env).await;
    let table = String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1));
    let login = table.lines().find(|line| line.starts_with("login "));
    assert!(login.is_some_and(|line| line.contains("FAIL")), "{table}");
    assert!(
        table.contains("look at: the user and the password"),
        "{table}"
    );
    assert!(table.contains("nobody is logged in"), "{table}");
    for secret in ["not-the-password-1", "eyJ", WEBHOOK_SECRET] {
        assert!(!table.contains(secret), "{secret} in {table}");
    }
}

#[tokio::test]
async fn nobody_there_and_a_stranger_there_both_fail() {
    let edge = demo::start().await;
    // Not the authority that signed the edge's certificate.
    let stranger = crate::harness::keys::Authority::new();
    std::fs::write(edge.dir.path().join("ca.pem"), &stranger.pem).unwrap();
    let (code, rows) = smoke(&edge, &[], &[]).await;
    assert_eq!(code, 1);
    assert_eq!(named(&rows, "fail"), ["tls/h1", "tls/h2"]);
    assert_eq!(
        named(&rows, "skipped"),
        ["everything else/h1", "everything else/h2"]
    );
}
