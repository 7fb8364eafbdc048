//! The connection to Redis. Decides when the server counts as away: then every call fails at once,
//! because a request that waits for it would take longer than an honest 503. Knows no feature's keys.
//!
//! Order of steps: [`Redis::new`] → [`Redis::probe`] once at start, so that an unsuitable server is
//! refused there → [`Redis::run`] as a task: connect, check, watch, connect again.
//!
//! Invariants: no call lasts longer than the response time-out (a script that the server has lost is
//! sent again within it), and no connection is used before [`suitable`] has judged its server: after
//! a failover it may be another one.

mod link;
mod suitable;

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, ErrorKind, FromRedisValue, Script, ServerErrorKind};
use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, Semaphore, watch};

use crate::kernel::clock::{Clock, UnixMs};
use crate::kernel::id::Random;
use crate::kernel::secret::Secret;
use link::{Dialer, Link};
pub use suitable::Needs;

/// How often a quiet connection is asked whether it is alive.
const PING_EVERY: Duration = Duration::from_secs(1);
/// Pause between two attempts to connect; doubled up to the cap, with jitter.
const BACKOFF_BASE: Duration = Duration::from_millis(50);
const BACKOFF_CAP: Duration = Duration::from_secs(2);
/// Calls that wait for an answer at a time; one more fails at once.
const IN_FLIGHT_MAX: usize = 4_096;
/// Tasks that settle something after its request is gone.
const LATER_MAX: usize = 1_024;

/// Where the server is and how long it may take.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    pub address: Address,
    /// `None` = in clear.
    pub tls: Option<TlsSettings>,
    /// ACL user; `None` = the default user.
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub db: u32,
    /// For the connection with TLS handshake, login and the check of the server.
    pub connect_timeout_ms: u64,
    /// For one call.
    pub response_timeout_ms: u64,
    /// What the server must promise.
    pub needs: Needs,
}

/// Where the server listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// How the server proves who it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsSettings {
    /// Certificates (PEM) that it may be signed by; `None` = the public authorities.
    pub ca_file: Option<PathBuf>,
}

/// Why a call brought no answer. After [`TooSlow`](Self::TooSlow) and [`Broken`](Self::Broken) it may
/// have been carried out all the same.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RedisError {
    #[error("Redis is away: {0}")]
    Away(String),
    #[error("Redis did not answer within {after_ms} ms")]
    TooSlow { after_ms: u64 },
    #[error("the connection to Redis broke: {0}")]
    Broken(String),
    #[error("Redis has no memory left (maxmemory)")]
    Full,
    #[error("Redis refused: {0}")]
    Refused(String),
    /// The server is there and must not be used as it is configured.
    #[error("this Redis is not fit for what is configured: {0}")]
    Unsuitable(String),
    /// Our own side, e.g. a CA file that cannot be read.
    #[error("{0}")]
    Settings(String),
}

/// What `/health` tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Health {
    pub connected: bool,
    /// Since when it is so.
    pub since: UnixMs,
    /// The last trouble, also when it is over.
    pub last_error: Option<(UnixMs, String)>,
}

/// Handle of the connection; clones share it.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    dialer: Dialer,
    settings: Settings,
    clock: Clock,
    random: Random,
    /// `None` while the server is away or in doubt.
    link: ArcSwapOption<Link>,
    health: Mutex<Health>,
    connected: watch::Sender<bool>,
    /// A call failed in a way that puts the connection in doubt.
    doubt: Arc<Notify>,
    in_flight: Semaphore,
    later: Arc<Semaphore>,
    /// Names this process among those that share the server.
    node: String,
    next_token: AtomicU64,
}

impl Redis {
    /// Reads what must be read from files; connects to nothing yet.
    ///
    /// # Errors
    /// `Settings`: the CA file.
    pub fn new(settings: Settings, clock: Clock, random: Random) -> Result<Self, RedisError> {
        let node = format!("{:016x}{:016x}", random.bits(), random.bits());
        let (connected, _) = watch::channel(false);
        let since = clock.unix();
        Ok(Self(Arc::new(Inner {
            dialer: Dialer::new(&settings)?,
            settings,
            clock,
            random,
            link: ArcSwapOption::empty(),
            health: Mutex::new(Health {
                connected: false,
                since,
                last_error: None,
            }),
            connected,
            doubt: Arc::new(Notify::new()),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
            later: Arc::new(Semaphore::new(LATER_MAX)),
            node,
            next_token: AtomicU64::new(0),
        })))
    }

    /// Connects, judges the server, and hangs up: for the start and for `maitred check`.
    ///
    /// # Errors
    /// `Unsuitable` and `Settings` are for a person to mend; anything else may pass by itself.
    pub async fn probe(&self) -> Result<(), RedisError> {
        self.connect().await.map(drop)
    }

    /// Keeps the connection up for as long as it is polled.
    pub async fn run(&self) {
        let mut pause = BACKOFF_BASE;
        loop {
            match self.connect().await {
                Ok(link) => {
                    pause = BACKOFF_BASE;
                    let why = self.watch(Arc::new(link)).await;
                    self.lost(&why);
                }
                Err(why) => self.lost(&why),
            }
            tokio::time::sleep(self.jittered(pause)).await;
            pause = (pause * 2).min(BACKOFF_CAP);
        }
    }

    async fn connect(&self) -> Result<Link, RedisError> {
        let within = Duration::from_millis(self.0.settings.connect_timeout_ms);
        let connect = async {
            let link = self.0.dialer.connect(&self.0.doubt).await?;
            suitable::check(&mut link.connection(), self.0.settings.needs).await?;
            Ok(link)
        };
        tokio::time::timeout(within, connect)
            .await
            .unwrap_or(Err(RedisError::TooSlow {
                after_ms: self.0.settings.connect_timeout_ms,
            }))
    }

    /// Until the connection is lost; gives the reason.
    async fn watch(&self, link: Arc<Link>) -> RedisError {
        loop {
            self.found(&link);
            tokio::select! {
                () = self.0.doubt.notified() => {}
                () = tokio::time::sleep(PING_EVERY) => {}
            }
            let ping = ::redis::cmd("PING");
            let pong = self.within(async {
                let answer = ping.query_async::<String>(&mut link.connection()).await;
                answer.map(drop).map_err(error)
            });
            if let Err(why) = pong.await {
                self.0.link.store(None);
                return why;
            }
        }
    }

    fn found(&self, link: &Arc<Link>) {
        self.0.link.store(Some(link.clone()));
        if self.turn(true) {
            tracing::info!("connected to Redis");
        }
    }

    fn lost(&self, why: &RedisError) {
        let was_connected = self.turn(false);
        let at = self.0.clock.unix();
        let mut health = self.0.health.lock().unwrap_or_else(PoisonError::into_inner);
        let text = why.to_string();
        let is_news = health.last_error.as_ref().is_none_or(|(_, t)| *t != text);
        if was_connected || is_news {
            tracing::warn!(error = text, "no connection to Redis");
        }
        health.last_error = Some((at, text));
    }

    /// Whether this changes anything.
    fn turn(&self, connected: bool) -> bool {
        let mut health = self.0.health.lock().unwrap_or_else(PoisonError::into_inner);
        if health.connected == connected {
            return false;
        }
        health.connected = connected;
        health.since = self.0.clock.unix();
        self.0.connected.send_replace(connected);
        true
    }

    fn jittered(&self, pause: Duration) -> Duration {
        let percent = u32::try_from(self.0.random.bits() % 50).unwrap_or(0);
        pause / 2 + pause * percent / 100
    }

    /// What `/health` tells.
    #[must_use]
    pub fn health(&self) -> Health {
        let health = self.0.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.clone()
    }

    /// Resolves when the server is connected, or never.
    pub async fn connected(&self) {
        let mut connected = self.0.connected.subscribe();
        // The sender lives as long as `self` does.
        let _ = connected.wait_for(|connected| *connected).await;
    }

    /// Names this process among those that share the server.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.0.node
    }

    /// A name that no other node and no other call gives out.
    #[must_use]
    pub fn token(&self) -> String {
        let number = self.0.next_token.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number:x}", self.0.node)
    }

    /// One command.
    pub async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        self.on_link(async |mut connection| command.query_async(&mut connection).await)
            .await
    }

    /// One script, atomically. Only its hash is sent, unless the server does not know it yet.
    pub async fn eval<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[Vec<u8>],
        arguments: &[&[u8]],
    ) -> Result<T, RedisError> {
        let mut call = script.prepare_invoke();
        keys.iter().for_each(|key| {
            call.key(key);
        });
        arguments.iter().for_each(|argument| {
            call.arg(*argument);
        });
        self.on_link(async |mut connection| call.invoke_async(&mut connection).await)
            .await
    }

    async fn on_link<T>(
        &self,
        call: impl AsyncFnOnce(MultiplexedConnection) -> ::redis::RedisResult<T>,
    ) -> Result<T, RedisError> {
        let Some(link) = self.0.link.load_full() else {
            let health = self.health();
            let why = health.last_error.map(|(_, why)| why);
            return Err(RedisError::Away(
                why.unwrap_or_else(|| "not connected yet".into()),
            ));
        };
        let Ok(_permit) = self.0.in_flight.try_acquire() else {
            let why = format!("{IN_FLIGHT_MAX} calls wait for an answer already");
            return Err(RedisError::Away(why));
        };
        let result = self
            .within(async { call(link.connection()).await.map_err(error) })
            .await;
        match &result {
            Err(RedisError::TooSlow { .. } | RedisError::Broken(_)) => self.suspect(&link),
            Ok(_)
            | Err(
                RedisError::Away(_)
                | RedisError::Full
                | RedisError::Refused(_)
                | RedisError::Unsuitable(_)
                | RedisError::Settings(_),
            ) => {}
        }
        result
    }

    async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RedisError> {
        let after_ms = self.0.settings.response_timeout_ms;
        tokio::time::timeout(Duration::from_millis(after_ms), call)
            .await
            .unwrap_or(Err(RedisError::TooSlow { after_ms }))
    }

    /// Takes the connection out of use until the server has answered a PING on it.
    fn suspect(&self, link: &Arc<Link>) {
        let taken = self.0.link.compare_and_swap(link, None);
        if taken.as_ref().is_some_and(|taken| Arc::ptr_eq(taken, link)) {
            self.0.doubt.notify_one();
        }
    }

    /// Settles something in a task of its own, where whoever asked cannot wait. When too many do so
    /// at a time it is not done: what relies on it must also end by a lease.
    pub fn later(&self, settle: impl Future<Output = ()> + Send + 'static) {
        let Ok(permit) = self.0.later.clone().try_acquire_owned() else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                settle.await;
                drop(permit);
            });
        }
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("settings", &self.0.settings)
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

fn error(error: ::redis::RedisError) -> RedisError {
    let text = error.to_string();
    // Such a server is none to go on with: it loads its data, or became a replica.
    let unfit = [
        ServerErrorKind::BusyLoading,
        ServerErrorKind::MasterDown,
        ServerErrorKind::ReadOnly,
    ];
    let kind = error.kind();
    let broken = error.is_unrecoverable_error()
        || [ErrorKind::Io, ErrorKind::Parse].contains(&kind)
        || unfit.iter().any(|unfit| kind == ErrorKind::Server(*unfit));
    // From within a script it comes with the script's own words around it.
    if error.code() == Some("OOM") || text.contains("OOM command not allowed") {
        RedisError::Full
    } else if broken {
        RedisError::Broken(text)
    } else {
        RedisError::Refused(text)
    }
}
