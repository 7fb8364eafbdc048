//! A real edge process with a configuration of the test's own, on ports that the system chose. Its log
//! is kept and shown when a test fails; it is killed when dropped.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::client::Connection;
use super::keys::{ASSERTION_SECRET, Authority, DELIVERY_SECRET, TokenIssuer, WEBHOOK_SECRET};
use super::origin::Origin;
use super::{h2c, until, within};

/// What the built-in defaults are laid over with; `{…}` is filled in. Short times, so that tests
/// reach limits soon; generous where a busy machine would otherwise trip over them.
const TEMPLATE: &str = r#"
environment = "development"
[server]
threads = 2
upgrade_socket = "{dir}/upgrade.sock"
[listeners.https]
address = "127.0.0.1:0"
header_timeout_ms = 1500
handshake_timeout_ms = 1500
connections_per_ip_max = 4096
[listeners.http]
address = "127.0.0.1:0"
redirect_to_port = 443
[listeners.admin]
address = "127.0.0.1:0"
[tls]
certificates = [{ chain = "{dir}/localhost.pem", key = "{dir}/localhost.key" }, { chain = "{dir}/other.pem", key = "{dir}/other.key" }]
[identity]
assertion_secret = { danger_secret = "{assertion}" }
[delivery]
secret = { danger_secret = "{delivery}" }
[issuers.test]
issuer = "chefcloud-api"
audience = "chefcloud"
jwks_upstream = "api"
[upstreams.api]
endpoints = [{endpoints}]
connect_timeout_ms = 1000
first_byte_timeout_ms = 3000
[upstreams.api.health]
path = "/ready"
interval_ms = 200
timeout_ms = 200
[inbox]
path = "{dir}/inbox"
disk_free_bytes_min = 0
[webhooks.endpoints.billing]
scheme = "chefcloud"
mode = "pass"
upstream = "api"
body_timeout_ms = 1500
secrets = [{ name = "current", danger_secret = "{webhook}" }]
[drain]
announce_ms = 300
streams_window_ms = 500
timeout_ms = 10000
[log]
format = "json"
level = "info,maitred=debug"
[[routes]]
path = "/open/{*rest}"
methods = []
auth = "public"
limits = []
upstream = "api"
body_timeout_ms = 1500
[[routes]]
path = "/closed/{*rest}"
methods = []
auth = "required"
upstream = "api"
{extra}
"#;

/// How the edge is to be started.
pub struct Setup<'a> {
    pub origins: Vec<SocketAddr>,
    /// More configuration, after the template; tables that the template has may not come again.
    pub extra: &'a str,
    /// Text replaced in the template, for keys that it sets.
    pub replace: Vec<(&'a str, &'a str)>,
}

/// The running edge.
pub struct Edge {
    pub https: SocketAddr,
    pub http: SocketAddr,
    pub admin: SocketAddr,
    pub ca: String,
    pub dir: Arc<TempDir>,
    pub config: PathBuf,
    pub authority: Arc<Authority>,
    child: Child,
    log: Log,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Edge {
    /// An edge in front of one origin, with nothing special.
    pub async fn before(origin: &Origin) -> Self {
        Self::start(Setup {
            origins: vec![origin.address],
            extra: "",
            replace: Vec::new(),
        })
        .await
    }

    /// The same with more configuration.
    pub async fn with(origin: &Origin, extra: &str) -> Self {
        Self::start(Setup {
            origins: vec![origin.address],
            extra,
            replace: Vec::new(),
        })
        .await
    }

    pub async fn start(setup: Setup<'_>) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let authority = Arc::new(Authority::new());
        authority.issue(dir.path(), "localhost", &["localhost", "api.localhost"]);
        authority.issue(dir.path(), "other", &["other.test"]);
        let config = dir.path().join("maitred.toml");
        std::fs::write(&config, text(dir.path(), &setup)).unwrap();
        Self::launch(config, dir, authority, &[]).await
    }

    /// An edge on a configuration that is the test's alone.
    pub async fn on(config: impl FnOnce(&Path) -> String) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let authority = Arc::new(Authority::new());
        authority.issue(dir.path(), "localhost", &["localhost", "api.localhost"]);
        let path = dir.path().join("maitred.toml");
        std::fs::write(&path, config(dir.path())).unwrap();
        Self::launch(path, dir, authority, &[]).await
    }

    /// A second process that takes the listeners over. Its configuration is the same with the ports
    /// that the system chose, because a port is found again by the address that was asked for.
    pub async fn successor(&self) -> Self {
        let config = self.successor_config();
        let (dir, authority) = (self.dir.clone(), self.authority.clone());
        Self::launch(config, dir, authority, &["--upgrade"]).await
    }

    /// The same edge once more, after its process has ended, on ports of its own.
    pub async fn restarted(self) -> Self {
        let config = self.config.clone();
        self.restarted_on(&config).await
    }

    /// The same with another configuration.
    pub async fn restarted_on(self, config: &Path) -> Self {
        let (dir, authority) = (self.dir.clone(), self.authority.clone());
        Self::launch(config.to_path_buf(), dir, authority, &[]).await
    }

    /// Writes the configuration of a successor; see [`Edge::successor`].
    pub fn successor_config(&self) -> PathBuf {
        let mut text = std::fs::read_to_string(&self.config).unwrap();
        for address in [self.https, self.http, self.admin] {
            text = text.replacen("\"127.0.0.1:0\"", &format!("\"{address}\""), 1);
        }
        let path = self.dir.path().join("successor.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Where a successor waits for the listeners.
    pub fn upgrade_socket(&self) -> PathBuf {
        self.dir.path().join("upgrade.sock")
    }

    async fn launch(
        config: PathBuf,
        dir: Arc<TempDir>,
        authority: Arc<Authority>,
        flags: &[&str],
    ) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_maitred"))
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .args(flags)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = Log::default();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let keep = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = writeln!(keep.0.lock().unwrap(), "{line}");
            }
        });
        let https = listening(&mut child, &log, "https").await;
        let http = listening(&mut child, &log, "http").await;
        let admin = listening(&mut child, &log, "admin").await;
        let ca = authority.pem.clone();
        let edge = Self {
            https,
            http,
            admin,
            ca,
            dir,
            config,
            authority,
            child,
            log,
        };
        until("the admin listener answers", || async {
            edge.admin("/healthz").await.map(|_| ())
        })
        .await;
        if flags.is_empty() && opens_a_folder(&edge.config) {
            until("the inbox is open", || async {
                edge.log().contains("inbox open").then_some(())
            })
            .await;
        }
        edge
    }

    /// Replaces the configuration file; the edge notices by itself.
    pub fn write_config(&self, change: impl Fn(&str) -> String) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        let next = self.dir.path().join("next.toml");
        std::fs::write(&next, change(&text)).unwrap();
        std::fs::rename(next, &self.config).unwrap();
    }

    /// An HTTP/1.1 connection over TLS.
    pub async fn connect(&self) -> Connection {
        within(
            "connect",
            Connection::secure(self.https, "localhost", &self.ca),
        )
        .await
        .unwrap()
    }

    /// An HTTP/2 connection.
    pub async fn connect_h2(&self) -> h2c::Connection {
        within(
            "connect h2",
            h2c::Connection::open(self.https, "localhost", &self.ca),
        )
        .await
    }

    /// A GET on the admin listener; `None` when it cannot be reached.
    pub async fn admin(&self, path: &str) -> Option<super::client::Response> {
        let mut connection = Connection::plain(self.admin).await.ok()?;
        connection
            .request("GET", path, &[("Connection", "close")], b"")
            .await
            .ok()
    }

    pub async fn admin_json(&self, path: &str) -> Value {
        self.admin(path).await.unwrap().json()
    }

    /// The value of a metric, by name and labels as they are printed; 0 when it is not there.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.admin("/metrics").await.unwrap().text();
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        self.log.0.lock().unwrap().clone()
    }

    /// The number of the process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id().unwrap()).unwrap()
    }

    pub fn signal(&self, signal: i32) {
        let pid = self.pid();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the process to end; its exit code.
    pub async fn exit_code(&mut self) -> Option<i32> {
        within("the edge ends", self.child.wait())
            .await
            .unwrap()
            .code()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the edge ---\n{}", self.log());
        }
    }
}

impl Log {
    fn address(&self, listener: &str) -> Option<SocketAddr> {
        let text = self.0.lock().unwrap();
        let mut lines = text
            .lines()
            .filter_map(|l| serde_json::from_str::<Value>(l).ok());
        lines.find_map(|line| {
            let fields = &line["fields"];
            let ours = fields["message"] == "listening" && fields["listener.name"] == listener;
            ours.then(|| fields["listener.address"].as_str()?.parse().ok())
                .flatten()
        })
    }
}

/// Whether this configuration, which has a folder of the test's own for it, has webhooks kept on disk.
fn opens_a_folder(config: &Path) -> bool {
    let text = std::fs::read_to_string(config).unwrap();
    text.contains("/inbox\"") && !text.contains("engine = \"redis\"")
}

/// Where a listener is, once it is; fails at once when the process has ended instead.
async fn listening(child: &mut Child, log: &Log, name: &str) -> SocketAddr {
    let end = tokio::time::Instant::now() + super::DEADLINE;
    loop {
        if let Some(address) = log.address(name) {
            return address;
        }
        let ended = child.try_wait().unwrap();
        let late = tokio::time::Instant::now() > end;
        assert!(
            ended.is_none() && !late,
            "no {name} listener: {}",
            log.0.lock().unwrap()
        );
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Runs `serve` on a configuration that should not come up: its exit code and what it said.
pub async fn refused_start(config: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_maitred"))
        .arg("serve")
        .arg("--config")
        .arg(config)
        .args(flags)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within("the process gives up", output).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

fn text(dir: &Path, setup: &Setup<'_>) -> String {
    let endpoints: Vec<String> = setup.origins.iter().map(|o| format!("\"{o}\"")).collect();
    let mut text = TEMPLATE.to_owned();
    for (from, to) in &setup.replace {
        assert!(text.contains(from), "the template has no {from:?}");
        text = text.replace(from, to);
    }
    text.replace("{dir}", &dir.display().to_string())
        .replace("{assertion}", ASSERTION_SECRET)
        .replace("{delivery}", DELIVERY_SECRET)
        .replace("{webhook}", WEBHOOK_SECRET)
        .replace("{endpoints}", &endpoints.join(", "))
        .replace("{extra}", setup.extra)
}

/// A token for a member of `org_a` on plan ENT.
pub fn bearer(issuer: &TokenIssuer) -> String {
    format!("Bearer {}", issuer.token("usr_a", &["org_a"], "ENT"))
}
