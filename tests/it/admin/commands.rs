//! `maitred inbox …` and `maitred refusals` as a person runs them, against a real listener.

use std::process::{Output, Stdio};

use maitred::kernel::clock::UnixMs;
use maitred::webhook::Refusal;
use maitred::webhook::inbox::{Event, Standing};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{TOKEN, Window, event};
use crate::harness::within;

struct Done {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn command(window: &Window, line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maitred"));
    command
        .args(line)
        .arg("--admin")
        .arg(format!("http://{}", window.address))
        .env_remove("MAITRED_ADMIN_TOKEN")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn maitred(window: &Window, line: &[&str]) -> Done {
    let output = command(window, line).output();
    within("the command", output).await.unwrap().into()
}

#[tokio::test]
async fn stats_list_show_and_export_are_for_people_and_programs() {
    let window = Window::open().await;
    let id = window.dead(event("billing", "evt_1")).await.to_string();
    window.append(event("market", "evt_2")).await;
    let stats = maitred(&window, &["inbox", "stats"]).await;
    assert_eq!(stats.code, 0, "{}", stats.err);
    assert!(
        stats
            .out
            .contains("1 pending (0 being delivered), 1 dead, 0 delivered"),
        "{}",
        stats.out
    );
    let list = maitred(&window, &["inbox", "list", "--state", "dead"]).await;
    let row = list.out.lines().nth(1).unwrap();
    assert!(
        row.starts_with(&id) && row.ends_with("dead (refused)  1         422"),
        "{row}"
    );
    assert_eq!(list.out.lines().count(), 2);
    let list = maitred(&window, &["inbox", "list", "--limit", "1", "--json"]).await;
    let page: Value = serde_json::from_str(&list.out).unwrap();
    assert_eq!(page["events"][0]["event_id"], "evt_2");
    let next = page["next_cursor"].as_str().unwrap();
    let list = maitred(&window, &["inbox", "list", "--cursor", next]).await;
    assert!(
        list.out.contains("evt_1") && !list.out.contains("evt_2"),
        "{}",
        list.out
    );
    let show = maitred(&window, &["inbox", "show", &id]).await;
    for expected in [
        "event_id         evt_1",
        "x-signature: (masked)",
        "422  12 ms",
        "{\"amount\":5000}",
    ] {
        assert!(show.out.contains(expected), "{expected} in {}", show.out);
    }
    let body = maitred(&window, &["inbox", "show", &id, "--body"]).await;
    assert_eq!(body.out, "{\"amount\":5000}");
    let export = maitred(&window, &["inbox", "export", "--endpoint", "billing"]).await;
    let line: Value = serde_json::from_str(&export.out).unwrap();
    assert_eq!(line["id"], id.as_str());
}

#[tokio::test]
async fn what_is_not_there_is_1_and_what_makes_no_sense_is_64() {
    let window = Window::open().await;
    let id = window.append(event("billing", "evt_1")).await.to_string();
    for (line, code, expected) in [
        (&["show", "in_00000000000000ff"][..], 1, "there is no entry"),
        (&["show", "../config"], 64, "is no entry"),
        (&["list", "--from", "today"], 1, "RFC 3339"),
        (&["list", "--state", "deceased"], 64, "possible values"),
        (
            &["redeliver"],
            64,
            "name entries by id, or a range with --state",
        ),
        (
            &["discard", "--endpoint", "billing", "--yes"],
            64,
            "a range with --state",
        ),
        (&["discard", &id, "--state", "dead"], 64, "not both"),
        (&["discard", &id], 64, "no terminal to ask on"),
        (
            &["discard", "--state", "pending"],
            64,
            "no terminal to ask on",
        ),
        (
            &["redeliver", "--state", "pending"],
            64,
            "no terminal to ask on",
        ),
        (
            &["redeliver", "in_00000000000000ff"],
            1,
            "not all of the entries named",
        ),
    ] {
        let done = maitred(&window, &[&["inbox"], line].concat()).await;
        assert_eq!(done.code, code, "{line:?}: {}{}", done.out, done.err);
        assert!(done.err.contains(expected), "{line:?}: {}", done.err);
    }
    assert_eq!(window.entries(Standing::Pending).await, 1);
}

#[tokio::test]
async fn a_range_is_planned_shown_and_changed() {
    let window = Window::open().await;
    for n in 0..3 {
        let old = UnixMs(1_700_000_000_000);
        let event = Event {
            received_at: old,
            ..event("billing", &format!("evt_{n}"))
        };
        window.dead(event).await;
    }
    let range = ["inbox", "redeliver", "--state", "dead", "--rate", "1"];
    let plan = maitred(&window, &[&range[..], &["--dry-run"]].concat()).await;
    assert_eq!(plan.code, 0);
    assert!(
        plan.out.starts_with("plan: redeliver 3 entries, "),
        "{}",
        plan.out
    );
    assert!(
        plan.out.ends_with("at 1 per second: about 3 s\n"),
        "{}",
        plan.out
    );
    assert_eq!(window.entries(Standing::Dead).await, 3);
    let done = maitred(&window, &[&range[..], &["--yes"]].concat()).await;
    assert!(done.out.ends_with("redeliver done: 3\n"), "{}", done.out);
    let json = ["inbox", "discard", "--state", "pending", "--yes", "--json"];
    let done = maitred(&window, &json).await;
    let said: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((done.code, &said["count"]), (0, &Value::from(3)));
    let done = maitred(&window, &json).await;
    assert_eq!((done.code, window.entries(Standing::Pending).await), (0, 0));
}

/// On a terminal of its own, which answers the question.
async fn on_a_terminal(window: &Window, line: &str, answer: &str) -> (i32, String) {
    let maitred = env!("CARGO_BIN_EXE_maitred");
    let line = format!("{maitred} {line} --admin http://{}", window.address);
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut terminal = child.stdin.take().unwrap();
    terminal
        .write_all(format!("{answer}\n").as_bytes())
        .await
        .unwrap();
    let output = within("the command", child.wait_with_output())
        .await
        .unwrap();
    drop(terminal);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap(), shown)
}

#[tokio::test]
async fn on_a_terminal_it_asks_and_takes_only_a_yes() {
    let window = Window::open().await;
    let id = window.append(event("billing", "evt_1")).await;
    let line = format!("inbox discard {id}");
    for answer in ["no", "", "yess"] {
        let (code, shown) = on_a_terminal(&window, &line, answer).await;
        assert_eq!(code, 1, "{shown}");
        assert!(shown.contains("discard them? Type yes:"), "{shown}");
        assert!(shown.contains("nothing was changed"), "{shown}");
    }
    assert_eq!(window.entries(Standing::Pending).await, 1);
    let (code, shown) = on_a_terminal(&window, &line, "yes").await;
    assert_eq!(code, 0, "{shown}");
    assert_eq!(window.entries(Standing::Pending).await, 0);
}

#[tokio::test]
async fn the_token_comes_from_a_file_or_the_environment_and_is_never_shown() {
    let window = Window::on("127.0.0.1:0", Some(TOKEN)).await;
    let without = maitred(&window, &["inbox", "stats"]).await;
    assert_eq!(without.code, 1);
    assert!(
        without.err.contains("--token-file or MAITRED_ADMIN_TOKEN"),
        "{}",
        without.err
    );
    let file = window.dir.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let file = file.to_str().unwrap();
    let with = maitred(&window, &["inbox", "stats", "--token-file", file]).await;
    assert_eq!(with.code, 0, "{}", with.err);
    let mut command = command(&window, &["refusals"]);
    let output = command.env("MAITRED_ADMIN_TOKEN", TOKEN).output();
    let with: Done = within("the command", output).await.unwrap().into();
    assert_eq!((with.code, with.out.as_str()), (0, "no refusals\n"));
    let mut wrong = self::command(&window, &["refusals"]);
    let output = wrong
        .env("MAITRED_ADMIN_TOKEN", "wrong-token-but-secret")
        .output();
    let wrong: Done = within("the command", output).await.unwrap().into();
    assert_eq!(wrong.code, 1);
    assert!(
        wrong.err.contains("not the token") && !wrong.err.contains("wrong-token"),
        "{}",
        wrong.err
    );
}

#[tokio::test]
async fn refusals_come_with_reason_and_fix() {
    let window = Window::open().await;
    window.refuse(
        Refusal::Future { ahead_s: 777 },
        "req-1",
        "/webhooks/billing",
    );
    window.refuse(Refusal::NoMatch, "req-2", "/webhooks/market");
    let done = maitred(&window, &["refusals", "--endpoint", "billing"]).await;
    assert!(
        done.out
            .contains("reason: the timestamp is 777 s in the future"),
        "{}",
        done.out
    );
    assert!(
        done.out.contains("fix:    The sender's clock is ahead"),
        "{}",
        done.out
    );
    assert!(!done.out.contains("req-2"));
}

#[tokio::test]
async fn a_strangers_text_does_not_reach_the_terminal_as_it_is() {
    let window = Window::open().await;
    let evil = Event {
        headers: vec![("user-agent".into(), "\u{1b}]0;owned\u{7}".into())],
        body: "\u{1b}[2J\r\u{202e}".into(),
        ..event("billing", "evt\u{1b}[31m\u{202e}\n")
    };
    let id = window.append(evil).await.to_string();
    for line in [&["inbox", "list"][..], &["inbox", "show", &id]] {
        let done = maitred(&window, line).await;
        assert_eq!(done.code, 0, "{}", done.err);
        let bad = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!done.out.contains(bad), "{:?}", done.out);
        assert!(done.out.contains("evt\\u{1b}[31m"), "{}", done.out);
    }
}
