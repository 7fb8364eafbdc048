//! A Redis server of the test's own: on a Unix socket in a temporary folder, so no port is taken. It can
//! be killed, stopped, continued and started again on the same data.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use maitred::cluster::redis::{Address, Needs, Redis, Settings};
use maitred::kernel::clock::Clock;
use maitred::kernel::id::Random;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::{until, within};

/// What every server is started with before the test's own options: everything is kept.
const OPTIONS: &[&str] = &[
    "--port",
    "0",
    "--save",
    "",
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--maxmemory-policy",
    "noeviction",
    "--logfile",
    "redis.log",
];

/// Time-outs of the tests' connections. Long enough for a busy machine, short enough to be waited out.
pub const RESPONSE_TIMEOUT_MS: u64 = 2_000;

/// The server; killed when dropped.
pub struct RedisServer {
    dir: TempDir,
    options: Vec<String>,
    child: Child,
}

impl RedisServer {
    pub async fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
        let child = launch(&dir, &options);
        let server = Self {
            dir,
            options,
            child,
        };
        server.answers().await;
        server
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    pub fn settings(&self) -> Settings {
        Settings {
            address: Address::Unix(self.socket()),
            tls: None,
            username: None,
            password: None,
            db: 0,
            connect_timeout_ms: 2_000,
            response_timeout_ms: RESPONSE_TIMEOUT_MS,
            needs: Needs::default(),
        }
    }

    /// A connection as one node has it.
    pub async fn node(&self) -> Node {
        Node::connect(self.settings()).await
    }

    /// `kill -9`, as a machine that loses its power would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the data that is on its disk.
    pub async fn restart(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        self.child = launch(&self.dir, &self.options);
        self.answers().await;
    }

    /// For the next start.
    pub fn set_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|o| (*o).to_owned()).collect();
    }

    /// Alive and silent.
    pub fn stop(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    pub fn go_on(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Until it has loaded its data. A login is refused or fine; both are an answer.
    async fn answers(&self) {
        until("Redis answers", async || {
            let redis = Redis::new(self.settings(), Clock::system(), Random::from_os()).unwrap();
            match redis.probe().await {
                Ok(()) => Some(()),
                Err(error) => error.to_string().contains("NOAUTH").then_some(()),
            }
        })
        .await;
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("redis.log"));
            eprintln!("--- redis.log\n{}", log.unwrap_or_default());
        }
    }
}

fn launch(dir: &TempDir, options: &[String]) -> Child {
    Command::new("redis-server")
        .current_dir(dir.path())
        .args(OPTIONS)
        .args(["--unixsocket", "redis.sock", "--dir"])
        .arg(dir.path())
        .args(options)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is missing; ./test installs it")
}

/// One node's connection, kept up by a task. Dropped, it is gone as if the node had been killed.
pub struct Node {
    pub redis: Redis,
    task: JoinHandle<()>,
}

impl Node {
    pub async fn connect(settings: Settings) -> Self {
        let node = Self::start(settings);
        within("Redis is connected", node.redis.connected()).await;
        node
    }

    /// Without waiting for the connection.
    pub fn start(settings: Settings) -> Self {
        let redis = Redis::new(settings, Clock::system(), Random::from_os()).unwrap();
        let running = redis.clone();
        let task = tokio::spawn(async move { running.run().await });
        Self { redis, task }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}
