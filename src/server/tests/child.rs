//! The process under test. As a test by itself it does nothing; its parent sets the environment that
//! makes it a server.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::http::ResponseHeader;
use pingora::prelude::HttpPeer;
use pingora::proxy::{ProxyHttp, Session, http_proxy};
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::{Service, ServiceWithDependents};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::config::Drain;
use crate::listener::Policy;
use crate::listener::accept::Edge;
use crate::listener::guarded::{disarm, rearm};
use crate::listener::handover::Sockets;
use crate::server::{AtClose, DrainState, InFlight, Parts, Phase, configuration, critical, run};

pub(super) const MODE: &str = "MAITRED_TEST_MODE";
pub(super) const ADDRESS: &str = "MAITRED_TEST_ADDRESS";
pub(super) const DRAIN_MS: &str = "MAITRED_TEST_DRAIN_MS";
pub(super) const UPGRADE_SOCKET: &str = "MAITRED_TEST_UPGRADE_SOCKET";
/// For the runtimes and a few connections.
const DESCRIPTORS_LEFT: u64 = 32;
/// Long requests that arrived so far. Only grows, so a test can wait for it without a race.
static BEGUN: AtomicUsize = AtomicUsize::new(0);
pub(super) const LISTENING: &str = "listening on ";

#[test]
fn process() -> ExitCode {
    match std::env::var(MODE) {
        Ok(mode) => serve(&mode),
        Err(_) => ExitCode::SUCCESS,
    }
}

fn serve(mode: &str) -> ExitCode {
    let upgrade_socket = std::env::var(UPGRADE_SOCKET).unwrap();
    let drain = std::env::var(DRAIN_MS).unwrap();
    let mut drain = drain.split(' ').map(|ms| ms.parse().unwrap());
    let drain = Drain {
        announce_ms: drain.next().unwrap(),
        streams_window_ms: drain.next().unwrap(),
        timeout_ms: drain.next().unwrap(),
    };
    if mode == "few-descriptors" {
        let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = Some(u64::try_from(open).unwrap() + DESCRIPTORS_LEFT);
        setrlimit(Resource::Nofile, limit).unwrap();
    }
    let state = DrainState::new(Duration::from_millis(drain.streams_window_ms));
    let mut sockets = Sockets::default();
    if mode.starts_with("upgrade") {
        sockets = Sockets::take_over(upgrade_socket.as_ref()).unwrap();
    }
    if mode == "upgrade-and-die" {
        std::process::exit(1);
    }
    let edge = edge(&mut sockets, &state);
    let address = edge.local_addr();
    let mut services: Vec<Box<dyn ServiceWithDependents>> = vec![Box::new(edge)];
    services.extend(extra(mode, &state));
    run(Parts {
        configuration: configuration(2),
        drain,
        state,
        sockets,
        upgrade_socket: upgrade_socket.into(),
        services,
        ready: Box::pin(async move { println!("{LISTENING}{address}") }),
    })
}

fn edge(sockets: &mut Sockets, state: &DrainState) -> Edge<pingora::proxy::HttpProxy<App>> {
    let policy = Policy {
        address: std::env::var(ADDRESS).unwrap().parse().unwrap(),
        proxy_protocol_from: Vec::new(),
        connections_max: 100,
        connections_per_ip_max: 100,
        handshake_timeout_ms: 10_000,
        header_timeout_ms: 10_000,
        keepalive_timeout_ms: 60_000,
    };
    let socket = sockets.listen(policy.address).unwrap();
    let app = Arc::new(http_proxy(&Arc::new(configuration(2)), App(state.clone())));
    let policy = Arc::new(ArcSwap::from_pointee(policy));
    Edge::new("http", socket, policy, None, app, state).unwrap()
}

/// The service that the mode asks for.
fn extra(mode: &str, state: &DrainState) -> Option<Box<dyn ServiceWithDependents>> {
    let nothing = || std::future::ready(Ok::<(), String>(()));
    match mode {
        "critical-ends" => Some(Box::new(critical("x", state, AtClose::Drop, nothing()))),
        "critical-fails" => {
            let fails = async { Err("no disk") };
            Some(Box::new(critical("x", state, AtClose::Await, fails)))
        }
        "critical-panics" => {
            let panics = async { panic!("a fault") };
            let panics = critical::<String>("x", state, AtClose::Drop, panics);
            Some(Box::new(panics.threads(2)))
        }
        "service-panics" => Some(Box::new(Panics)),
        "flush" => {
            let closed = state.reached(Phase::Closed);
            let socket = std::env::var(UPGRADE_SOCKET).unwrap();
            let dir = std::path::Path::new(&socket).parent().unwrap().to_owned();
            let flush = async move {
                closed.await;
                std::fs::create_dir_all(&dir)?;
                tokio::time::sleep(Duration::from_millis(100)).await;
                std::fs::write(dir.join("flushed"), "all of it")
            };
            Some(Box::new(critical("x", state, AtClose::Await, flush)))
        }
        _ => None,
    }
}

struct Panics;

#[async_trait]
impl Service for Panics {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        panic!("a fault")
    }

    fn name(&self) -> &str {
        "panics"
    }
}

/// Answers with the process's id, soon, late, never, or in a stream.
struct App(DrainState);

#[async_trait]
impl ProxyHttp for App {
    type CTX = InFlight;

    fn new_ctx(&self) -> Self::CTX {
        self.0.enter()
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _ctx: &mut Self::CTX,
    ) -> pingora::Result<Box<HttpPeer>> {
        panic!("answered before")
    }

    async fn early_request_filter(
        &self,
        session: &mut Session,
        _ctx: &mut Self::CTX,
    ) -> pingora::Result<()> {
        disarm(session);
        Ok(())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        _ctx: &mut Self::CTX,
    ) -> pingora::Result<bool> {
        let path = session.req_header().uri.path().to_owned();
        if matches!(path.as_str(), "/slow" | "/stuck" | "/stream") {
            BEGUN.fetch_add(1, Ordering::SeqCst);
        }
        let body = match path.as_str() {
            "/slow" => {
                tokio::time::sleep(Duration::from_millis(1500)).await;
                "slow".to_owned()
            }
            "/stuck" => std::future::pending().await,
            "/stream" => return self.stream(session).await,
            "/ready" => self.0.is_ready().to_string(),
            "/begun" => BEGUN.load(Ordering::SeqCst).to_string(),
            _ => std::process::id().to_string(),
        };
        let mut header = ResponseHeader::build(200, None)?;
        header.insert_header("content-length", body.len())?;
        if !self.0.may_keep_alive() {
            session.set_keepalive(None);
        }
        session
            .write_response_header(Box::new(header), false)
            .await?;
        session.write_response_body(Some(body.into()), true).await?;
        Ok(true)
    }

    async fn logging(
        &self,
        session: &mut Session,
        _error: Option<&pingora::Error>,
        _ctx: &mut Self::CTX,
    ) {
        rearm(session);
    }
}

impl App {
    /// Open until the process leaves.
    async fn stream(&self, session: &mut Session) -> pingora::Result<bool> {
        let end = self.0.stream_end(0.5);
        let mut header = ResponseHeader::build(200, None)?;
        header.insert_header("transfer-encoding", "chunked")?;
        session
            .write_response_header(Box::new(header), false)
            .await?;
        session
            .write_response_body(Some("hello".into()), false)
            .await?;
        end.await;
        session
            .write_response_body(Some("bye".into()), true)
            .await?;
        Ok(true)
    }
}
