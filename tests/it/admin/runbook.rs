//! The commands of `docs/runbooks/webhooks.md`, run as they are written: by a shell, on a terminal that
//! answers `yes` to every question, against real listeners.

use std::path::Path;
use std::process::Stdio;

use maitred::kernel::clock::UnixMs;
use maitred::webhook::inbox::{Event, Standing};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{TOKEN, Window, event};
use crate::harness::edge::{Edge, Setup};
use crate::harness::keys::{TokenIssuer, WEBHOOK_SECRET};
use crate::harness::origin::{Origin, Script};
use crate::harness::{until, within};

/// The `sh` blocks under a heading, in order.
fn blocks(heading: &str) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks/webhooks.md");
    let page = std::fs::read_to_string(page).unwrap();
    let heading = format!("\n## {heading}\n");
    let (_, section) = page.split_once(&heading).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

/// What the page tells an operator to set first.
struct Shell {
    variables: Vec<(&'static str, String)>,
    work: TempDir,
}

impl Shell {
    fn new(variables: Vec<(&'static str, String)>) -> Self {
        let work = tempfile::tempdir().unwrap();
        Self { variables, work }
    }

    /// Runs one block, which must succeed; what the terminal showed.
    async fn run(&self, block: &str) -> String {
        let script = self.work.path().join("block.sh");
        std::fs::write(&script, block).unwrap();
        let maitred = Path::new(env!("CARGO_BIN_EXE_maitred")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let line = format!("sh -eu {}", script.display());
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .env("PATH", format!("{}:{path}", maitred.display()))
            .env("WORK", self.work.path())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut terminal = child.stdin.take().unwrap();
        terminal.write_all(b"yes\n").await.unwrap();
        let output = within("the block", child.wait_with_output()).await.unwrap();
        drop(terminal);
        let shown = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        assert!(output.status.success(), "{block}\n{shown}");
        shown
    }
}

/// An edge whose secrets are in files, in front of an API that takes everything.
async fn edge(secrets: &Path) -> (Origin, Edge) {
    let taken = |_: &_| Script::json(r#"{"status":"applied"}"#);
    let origin = Origin::start(TokenIssuer::new().jwks(), taken).await;
    std::fs::write(secrets.join("wh-secret"), WEBHOOK_SECRET).unwrap();
    let files = format!(
        "secrets = [{{ name = \"current\", secret_file = \"{0}/wh-secret\" }}, \
         {{ name = \"next\", secret_file = \"{0}/wh-secret-next\", optional = true }}]",
        secrets.display()
    );
    let inline = "secrets = [{ name = \"current\", danger_secret = \"{webhook}\" }]";
    let edge = Edge::start(Setup {
        origins: vec![origin.address],
        extra: "",
        replace: vec![(inline, &files)],
    })
    .await;
    (origin, edge)
}

fn shell_of(edge: &Edge, secrets: &Path) -> Shell {
    std::fs::write(edge.dir.path().join("ca.pem"), &edge.ca).unwrap();
    Shell::new(vec![
        ("MAITRED_CONFIG", edge.config.display().to_string()),
        ("MAITRED_ADMIN", format!("http://{}", edge.admin)),
        ("BASE", format!("https://localhost:{}", edge.https.port())),
        ("CA", edge.dir.path().join("ca.pem").display().to_string()),
        ("SECRETS", secrets.display().to_string()),
        ("EDGE_PID", edge.pid().to_string()),
    ])
}

async fn reloaded(edge: &Edge, times: f64) {
    until("the edge has loaded its configuration again", || async {
        let series = "maitred_config_reloads_total{result=\"applied\"}";
        (edge.metric(series).await >= times).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_secret_is_rotated() {
    let secrets = tempfile::tempdir().unwrap();
    let (_origin, edge) = edge(secrets.path()).await;
    let shell = shell_of(&edge, secrets.path());
    let [begin, loaded, matched, end, send] = blocks("Rotate a secret").try_into().unwrap();
    let shown = shell.run(&begin).await;
    assert!(shown.contains("billing: current and next"), "{shown}");
    reloaded(&edge, 1.0).await;
    let shown = shell.run(&loaded).await;
    assert!(shown.contains("{result=\"applied\"} "), "{shown}");
    // A delivery signed with the old one, as providers send them for a while.
    shell.run(&send).await;
    let shown = shell.run(&matched).await;
    assert!(shown.contains("secret=\"current\"} 1"), "{shown}");
    let next = std::fs::read_to_string(secrets.path().join("wh-secret-next")).unwrap();
    let shown = shell.run(&end).await;
    assert!(shown.contains("billing: current\n"), "{shown}");
    let current = std::fs::read_to_string(secrets.path().join("wh-secret")).unwrap();
    assert_eq!(next, current);
    let old = crate::harness::hook::Event::named("evt_signed_with_the_old_secret");
    until("the old secret no longer counts", || async {
        let answer = old.post(&mut edge.connect().await).await.unwrap();
        (answer.status == 401).then_some(())
    })
    .await;
    let shown = shell.run(&send).await;
    assert!(shown.contains("200 OK"), "{shown}");
}

#[tokio::test]
async fn the_reason_of_a_refusal_is_found() {
    let secrets = tempfile::tempdir().unwrap();
    let (_origin, edge) = edge(secrets.path()).await;
    let shell = shell_of(&edge, secrets.path());
    let old = crate::harness::hook::Event::shifted(-3_600_000);
    let answer = old.post(&mut edge.connect().await).await.unwrap();
    assert_eq!(answer.status, 401);
    let id = answer.header("x-request-id").unwrap();
    let [latest, by_id, counted] = blocks("Find out why a provider is refused")
        .try_into()
        .unwrap();
    let shown = shell.run(&latest).await;
    assert!(shown.contains("reason: the timestamp is 36"), "{shown}");
    assert!(shown.contains("fix:    One clock is off"), "{shown}");
    let shown = shell.run(&by_id).await;
    assert!(shown.contains(id), "{shown}");
    let shown = shell.run(&counted).await;
    assert!(shown.contains("reason=\"stale\"} 1"), "{shown}");
}

#[tokio::test]
async fn dead_letters_are_drained() {
    let window = Window::on("127.0.0.1:0", Some(TOKEN)).await;
    for n in 0..5 {
        let old = Event {
            received_at: UnixMs(1_700_000_000_000 + n),
            ..event("billing", &format!("evt_{n}"))
        };
        window.dead(old).await;
    }
    window.append(event("market", "evt_never")).await;
    let shell = Shell::new(vec![
        ("MAITRED_ADMIN", format!("http://{}", window.address)),
        ("MAITRED_ADMIN_TOKEN", TOKEN.to_owned()),
    ]);
    let [look, one, copy, try_one, rest, discard] =
        blocks("Drain dead letters").try_into().unwrap();
    let shown = shell.run(&look).await;
    assert!(
        shown.contains("5 dead") && shown.contains("dead (refused)"),
        "{shown}"
    );
    let shown = shell.run(&one).await;
    assert!(shown.contains("422  12 ms"), "{shown}");
    shell.run(&copy).await;
    let copy = std::fs::read_to_string(shell.work.path().join("dead-letters.ndjson")).unwrap();
    assert_eq!(copy.lines().count(), 5);
    let shown = shell.run(&try_one).await;
    assert!(shown.contains("redeliver done: 1"), "{shown}");
    assert_eq!(window.entries(Standing::Dead).await, 4);
    let shown = shell.run(&rest).await;
    assert!(shown.contains("at 20 per second"), "{shown}");
    assert!(shown.contains("redeliver done: 4"), "{shown}");
    assert_eq!(window.entries(Standing::Dead).await, 0);
    assert_eq!(window.entries(Standing::Pending).await, 6);
    let shown = shell.run(&discard).await;
    assert!(shown.contains("discard done: 1"), "{shown}");
    assert_eq!(window.entries(Standing::Pending).await, 5);
}
