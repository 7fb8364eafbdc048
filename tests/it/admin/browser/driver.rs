//! A browser of the test's own: Chromium without a window, told what to do over WebDriver (W3C).

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::harness::client::Connection;
use crate::harness::within;

/// Keys, as WebDriver names them.
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";

/// What an element is called in an answer.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Ended when it is dropped, and the browser with it.
pub struct Browser {
    driver: SocketAddr,
    session: String,
    _child: Child,
    _profile: TempDir,
}

impl Browser {
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            // The browser's own files; and a group that is ended as one.
            .env("TMPDIR", profile.path())
            .env("HOME", profile.path())
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| panic!("chromedriver: {e}; `./test` installs it"));
        let driver = within("chromedriver is up", port(&mut child)).await;
        let options = json!({
            "args": [
                "--headless=new",
                // The sandbox does not work for root or in most containers; it is our own page.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                format!("--user-data-dir={}", profile.path().join("profile").display()),
            ],
        });
        let wanted = json!({
            "capabilities": { "alwaysMatch": {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": { "browser": "ALL" },
                "timeouts": { "script": 10_000, "pageLoad": 20_000 },
            } },
        });
        let started = send(driver, "POST", "/session", &wanted).await;
        let session = started["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("{started}"));
        Self {
            driver,
            session: session.to_owned(),
            _child: child,
            _profile: profile,
        }
    }

    pub async fn go(&self, url: &str) {
        self.tell("/url", &json!({ "url": url })).await;
    }

    /// What a script's function body returns.
    pub async fn run(&self, script: &str, arguments: Value) -> Value {
        let body = json!({ "script": script, "args": arguments });
        self.tell("/execute/sync", &body).await
    }

    /// Clicks as a person would: the element is looked up, scrolled to and hit in its middle.
    pub async fn click(&self, css: &str) {
        let body = json!({ "using": "css selector", "value": css });
        let found = self.tell("/element", &body).await;
        let element = found[ELEMENT]
            .as_str()
            .unwrap_or_else(|| panic!("{css}: {found}"));
        let clicked = self
            .tell(&format!("/element/{element}/click"), &json!({}))
            .await;
        assert_eq!(clicked, Value::Null, "{css}");
    }

    pub async fn press(&self, key: &str) {
        let actions = json!({ "actions": [{ "type": "key", "id": "keys", "actions": [
            { "type": "keyDown", "value": key },
            { "type": "keyUp", "value": key },
        ] }] });
        assert_eq!(self.tell("/actions", &actions).await, Value::Null);
    }

    /// What was written to the console since it was last asked for.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.tell("/se/log", &json!({ "type": "browser" })).await;
        let rows = log.as_array().unwrap_or_else(|| panic!("{log}"));
        let text = |row: &Value| row["message"].as_str().unwrap().to_owned();
        rows.iter().map(text).collect()
    }

    async fn tell(&self, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}{path}", self.session);
        send(self.driver, "POST", &path, body).await
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver's process group has the browser in it.
        let group = self._child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = group.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// Where the driver listens, as it says.
async fn port(child: &mut Child) -> SocketAddr {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        let said = line.split_once("started successfully on port ");
        if let Some((_, port)) = said {
            let port = port.trim_end_matches('.').parse().unwrap();
            // Whatever it says later is not wanted, but must not block it.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return SocketAddr::from(([127, 0, 0, 1], port));
        }
    }
    panic!("chromedriver ended before it was up");
}

/// The `value` of the answer.
async fn send(driver: SocketAddr, method: &str, path: &str, body: &Value) -> Value {
    let exchange = async {
        let mut connection = Connection::plain(driver).await.unwrap();
        let json = [
            ("Content-Type", "application/json"),
            ("Connection", "close"),
        ];
        let body = body.to_string();
        let answer = connection
            .request(method, path, &json, body.as_bytes())
            .await;
        answer.unwrap().json()["value"].take()
    };
    within(path, exchange).await
}
