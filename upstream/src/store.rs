//! The one data layer over SQLite and PostgreSQL: pools, transactions, migrations. It owns how a
//! transaction begins; the contexts own their tables.
//!
//! The SQL text is the same for both engines: `$1` placeholders, TEXT and BIGINT columns, `ON
//! CONFLICT`, `RETURNING`, and conditional updates in place of `SELECT … FOR UPDATE`.
//!
//! On SQLite every write goes through a pool of one connection and begins IMMEDIATE. A transaction
//! that begins as a reader and turns writer can be refused with SQLITE_BUSY at once, whatever the
//! busy time-out; one writer at a time never is.

pub(crate) mod idempotency;

use std::time::Duration;

use anyhow::Context as _;
use sqlx::{
    Any, AnyConnection, AnyPool, AssertSqlSafe, Executor as _, Transaction, any::AnyPoolOptions,
    migrate::Migrator,
};

use crate::config::Config;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A writer of another process is waited for this long, or for the statement time-out if that is
/// shorter.
const BUSY_TIMEOUT_MS_MAX: u64 = 5_000;

pub(crate) type Tx = Transaction<'static, Any>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Postgres,
    Sqlite,
}

#[derive(Clone, Debug)]
pub(crate) struct Store {
    read: AnyPool,
    write: AnyPool,
    engine: Engine,
}

impl Store {
    pub(crate) async fn connect(config: &Config) -> anyhow::Result<Self> {
        sqlx::any::install_default_drivers();
        let url = config.database_url.as_str();
        if !url.starts_with("postgres") {
            return connect_sqlite(config).await;
        }
        let timeout_ms = config.statement_timeout_ms;
        // Numbers only: nothing of a caller's is in this text.
        let setup = format!(
            "SET statement_timeout = {timeout_ms}; \
             SET lock_timeout = {timeout_ms}; \
             SET idle_in_transaction_session_timeout = {timeout_ms}"
        );
        let pool = options(config.pool_min, config.pool_max, setup)
            .connect(url)
            .await
            .context("connecting to PostgreSQL")?;
        Ok(Self {
            read: pool.clone(),
            write: pool,
            engine: Engine::Postgres,
        })
    }

    pub(crate) async fn migrate(&self) -> anyhow::Result<()> {
        MIGRATIONS
            .run(&self.write)
            .await
            .context("migrating the database")
    }

    /// For statements that only read.
    pub(crate) fn reader(&self) -> &AnyPool {
        &self.read
    }

    pub(crate) async fn begin(&self) -> Result<Tx, sqlx::Error> {
        match self.engine {
            Engine::Postgres => self.write.begin().await,
            Engine::Sqlite => self.write.begin_with("BEGIN IMMEDIATE").await,
        }
    }

    pub(crate) fn engine(&self) -> Engine {
        self.engine
    }

    pub(crate) async fn ping(&self) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT 1")
            .execute(&self.read)
            .await
            .map(|_| ())
    }

    pub(crate) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

/// Whether trying again later may succeed: time-outs, lost connections, deadlocks, a full house.
pub(crate) fn passes(error: &sqlx::Error) -> bool {
    if let sqlx::Error::Database(cause) = error {
        return cause.code().is_some_and(|code| code_passes(&code));
    }
    matches!(
        error,
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_)
    )
}

fn code_passes(code: &str) -> bool {
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    // PostgreSQL: class 08 connection, 40 rollback, 53 resources, 55P03 lock, 57 operator.
    let postgres = code.len() == 5
        && (["08", "40", "53", "57"]
            .iter()
            .any(|class| code.starts_with(class))
            || code == "55P03");
    // SQLite: extended codes carry the primary one in their low byte.
    let sqlite = code.len() < 5
        && code
            .parse::<u32>()
            .is_ok_and(|code| matches!(code & 0xFF, BUSY | LOCKED));
    postgres || sqlite
}

async fn connect_sqlite(config: &Config) -> anyhow::Result<Store> {
    let (url, memory) = sqlite_url(&config.database_url);
    let busy_timeout_ms = config.statement_timeout_ms.min(BUSY_TIMEOUT_MS_MAX);
    // FULL: an acknowledged commit survives a power cut, which WAL alone does not promise.
    let setup = format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
         PRAGMA busy_timeout = {busy_timeout_ms}"
    );
    let write = options(1, 1, setup.clone())
        .connect(&url)
        .await
        .context("opening SQLite")?;
    // A database in memory lives and dies with its one connection.
    let read = if memory {
        write.clone()
    } else {
        options(
            config.pool_min,
            config.pool_max,
            format!("{setup}; PRAGMA query_only = ON"),
        )
        .connect(&url)
        .await
        .context("opening SQLite for reading")?
    };
    Ok(Store {
        read,
        write,
        engine: Engine::Sqlite,
    })
}

/// The URL sqlx wants, and whether the database is in memory.
fn sqlite_url(url: &str) -> (String, bool) {
    let memory = url.contains(":memory:") || url.contains("mode=memory");
    let url = if url == ":memory:" {
        "sqlite::memory:".to_owned()
    } else {
        url.to_owned()
    };
    if memory || url.contains("mode=") {
        return (url, memory);
    }
    let joint = if url.contains('?') { '&' } else { '?' };
    (format!("{url}{joint}mode=rwc"), memory)
}

fn options(connections_min: u32, connections_max: u32, setup: String) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .min_connections(connections_min)
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect(move |connection, _| {
            let setup = setup.clone();
            Box::pin(async move { prepare(connection, setup).await })
        })
}

async fn prepare(connection: &mut AnyConnection, setup: String) -> Result<(), sqlx::Error> {
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(setup)))
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_files_are_created_and_memory_is_recognised() {
        assert_eq!(
            sqlite_url("sqlite://a.db"),
            ("sqlite://a.db?mode=rwc".to_owned(), false)
        );
        assert_eq!(sqlite_url(":memory:"), ("sqlite::memory:".to_owned(), true));
        assert_eq!(
            sqlite_url("sqlite://a.db?mode=rw").0,
            "sqlite://a.db?mode=rw"
        );
    }

    #[test]
    fn deadlocks_and_busy_pass_and_broken_rules_do_not() {
        for passing in ["40001", "40P01", "57014", "08006", "5", "517", "6"] {
            assert!(code_passes(passing), "{passing}");
        }
        for lasting in ["23505", "42P01", "1555", "19", "275"] {
            assert!(!code_passes(lasting), "{lasting}");
        }
    }
}
