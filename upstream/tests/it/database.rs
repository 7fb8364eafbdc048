//! A database per test: a file for SQLite, a fresh database on one shared server for PostgreSQL.
//!
//! The server is started once per run, on a free port in a directory of its own, by a shell that
//! waits for its standard input to close. However this process ends, the pipe closes, and the shell
//! stops the server and removes the directory.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};

pub(crate) const SKIP: &str = "MAITRED_TEST_SKIP_POSTGRES";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Postgres,
    Sqlite,
}

pub(crate) struct Database {
    pub(crate) url: String,
    dir: Option<PathBuf>,
    name: String,
}

static SERIAL: AtomicU64 = AtomicU64::new(0);

impl Database {
    pub(crate) async fn create(engine: Engine) -> Self {
        sqlx::any::install_default_drivers();
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("chefcloud_{}_{serial}", std::process::id());
        match engine {
            Engine::Sqlite => {
                let dir = std::env::temp_dir().join(&name);
                fs::create_dir_all(&dir).unwrap();
                let url = format!("sqlite://{}", dir.join("api.db").display());
                Self {
                    url,
                    dir: Some(dir),
                    name,
                }
            }
            Engine::Postgres => {
                let server = server();
                administrate(server, format!("CREATE DATABASE {name}")).await;
                Self {
                    url: server.url(&name),
                    dir: None,
                    name,
                }
            }
        }
    }

    pub(crate) async fn remove(self) {
        if self.dir.is_none() {
            administrate(
                server(),
                format!("DROP DATABASE {} WITH (FORCE)", self.name),
            )
            .await;
        }
    }
}

/// A test that fails leaves no file behind either; the server's databases go with the server.
impl Drop for Database {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

async fn administrate(server: &Server, statement: String) {
    let mut connection = AnyConnection::connect(&server.url("postgres"))
        .await
        .unwrap();
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap();
    connection.close().await.unwrap();
}

struct Server {
    port: u16,
    /// Its standard input is what keeps the server alive.
    _shell: Child,
}

impl Server {
    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start)
}

fn start() -> Server {
    let bin = binaries();
    let dir = std::env::temp_dir().join(format!("chefcloud_pg_{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let user = fs::metadata(&dir).unwrap().uid();
    if user == 0 {
        // PostgreSQL refuses to run as root; the Debian package brings this user along.
        let (uid, gid) = (id_of("-u"), id_of("-g"));
        chown(&dir, Some(uid), Some(gid)).unwrap();
    }
    let data = dir.join("data");
    let made = command(user, &bin.join("initdb"))
        .args([
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C",
        ])
        .args(["--no-sync", "--pgdata"])
        .arg(&data)
        .current_dir(&dir)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "initdb: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut shell = command(user, Path::new("sh"))
        .args(["-c", KEEPER, "keeper"])
        .arg(&bin)
        .arg(&dir)
        .arg(port.to_string())
        .current_dir(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let log = || fs::read_to_string(dir.join("log")).unwrap_or_default();
    assert_eq!(line.trim(), "ready", "PostgreSQL did not start: {}", log());
    Server {
        port,
        _shell: shell,
    }
}

/// $1 binaries, $2 directory, $3 port. Says `ready` once the server takes connections.
const KEEPER: &str = r#"
"$1/postgres" -D "$2/data" -p "$3" -k "$2" -c listen_addresses=127.0.0.1 -c max_connections=200 \
    -c fsync=off -c full_page_writes=off -c synchronous_commit=off >"$2/log" 2>&1 &
server=$!
tries=0
until "$1/pg_isready" -q -h 127.0.0.1 -p "$3"; do
    tries=$((tries + 1))
    if [ $tries -gt 600 ] || ! kill -0 $server 2>/dev/null; then echo failed; exit 1; fi
    sleep 0.05
done
echo ready
read -r _
kill -INT $server
wait $server
cd / && rm -rf "$2"
"#;

fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let found = versions.map(|version| version.path().join("bin"));
    found.filter(|bin| bin.join("initdb").exists()).max().unwrap_or_else(|| {
        panic!(
            "there is no PostgreSQL server under /usr/lib/postgresql: install the Debian package \
             `postgresql`, or set {SKIP}=1 to leave these tests out"
        )
    })
}

fn command(user: u32, program: &Path) -> Command {
    if user != 0 {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
            "--",
        ])
        .arg(program);
    command
}

fn id_of(flag: &str) -> u32 {
    let output = Command::new("id")
        .args([flag, "postgres"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim()
        .parse()
        .expect("a user `postgres`, which the Debian package `postgresql` makes")
}
