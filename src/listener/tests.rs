//! Listeners over real sockets, with Pingora's own HTTP application behind them: what a client can
//! observe of caps, deadlines, PROXY headers and TLS.

mod admission;
mod deadlines;
mod handshakes;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::http::ResponseHeader;
use pingora::prelude::HttpPeer;
use pingora::proxy::{HttpProxy, ProxyHttp, Session};
use pingora::server::configuration::ServerConf;
use pingora::services::Service;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::accept::Edge;
use super::cert::ensure_development;
use super::clients::Clients;
use super::drain::{Cause, DrainState, Phase, settled};
use super::event::{Event, Refusal};
use super::guarded::{connection, disarm, rearm};
use super::handover::Sockets;
use super::tls::Tls;
use super::{Policy, TlsPolicy};
use crate::kernel::clock::Clock;

/// Longer than anything here takes on a busy machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The budget of clients that are to be cut.
pub(super) const SHORT_MS: u64 = 300;

/// Fails the test instead of waiting for ever.
pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("nothing happened within the test's patience")
}

/// Answers with what is known of the connection.
pub(super) struct Mirror(DrainState);

#[async_trait]
impl ProxyHttp for Mirror {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

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
        let _under_way = self.0.enter();
        if !self.0.may_keep_alive() {
            session.set_keepalive(None);
        }
        let mut received = 0;
        while let Some(bytes) = session.read_request_body().await? {
            received += bytes.len();
        }
        let from = connection(session).expect("came through a listener");
        let tls = from.tls.as_ref().map(|tls| {
            let (sni, alpn) = (tls.sni.as_deref().unwrap_or("-"), tls.alpn.unwrap_or("-"));
            format!("{} {sni} {alpn} resumed={}", tls.version, tls.resumed)
        });
        let digest_agrees =
            session.client_addr().map(ToString::to_string) == Some(from.client.to_string());
        let body = format!(
            "client={} tls={} received={received} agrees={digest_agrees}",
            from.client,
            tls.as_deref().unwrap_or("none"),
        );
        let mut header = ResponseHeader::build(200, None)?;
        header.insert_header("content-length", body.len())?;
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

/// A listener under test.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) policy: Arc<ArcSwap<Policy>>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) drain: DrainState,
    pub(super) clients: Arc<Clients>,
    events: Arc<Mutex<Vec<Event>>>,
}

pub(super) fn policy() -> Policy {
    Policy {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        proxy_protocol_from: Vec::new(),
        connections_max: 100,
        connections_per_ip_max: 100,
        handshake_timeout_ms: 10_000,
        header_timeout_ms: 10_000,
        keepalive_timeout_ms: 60_000,
    }
}

pub(super) fn start(policy: Policy, tls: Option<&TlsPolicy>) -> Running {
    let socket = Sockets::default().listen(policy.address).unwrap();
    let drain = DrainState::new(Duration::ZERO);
    let policy = Arc::new(ArcSwap::from_pointee(policy));
    let tls = tls.map(|tls| Tls::new(tls).unwrap());
    let app = Arc::new(HttpProxy::new(
        Mirror(drain.clone()),
        Arc::new(ServerConf::default()),
    ));
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = events.clone();
    let mut edge = Edge::new("test", socket, policy.clone(), tls.clone(), app, &drain)
        .unwrap()
        .observed(Arc::new(move |event| seen.lock().unwrap().push(event)));
    let running = Running {
        address: edge.local_addr(),
        policy,
        tls,
        drain: drain.clone(),
        clients: edge.clients(),
        events,
    };
    tokio::spawn(async move { Service::start_service(&mut edge, None, drain.stop(), 1).await });
    running
}

impl Running {
    pub(super) async fn connect(&self) -> TcpStream {
        within(TcpStream::connect(self.address)).await.unwrap()
    }

    /// Waits until the listener has told of it.
    pub(super) async fn refused(&self, refusal: Refusal) {
        let seen = || {
            self.events
                .lock()
                .unwrap()
                .contains(&Event::Refused(refusal))
        };
        assert!(settled(PATIENCE, seen).await, "{refusal:?} was not counted");
    }

    pub(super) fn refusals(&self) -> usize {
        let events = self.events.lock().unwrap();
        let refused = |event: &&Event| matches!(event, Event::Refused(_));
        events.iter().filter(refused).count()
    }

    /// Everything was given back: no seat, no address, no count is left behind.
    pub(super) async fn is_empty_again(&self) {
        let empty = || {
            self.clients.open() == 0
                && self.clients.addresses() == 0
                && self.drain.connections() == 0
                && self.drain.fresh() == 0
                && self.drain.in_flight() == 0
        };
        assert!(settled(PATIENCE, empty).await, "something is still counted");
    }
}

/// One request over HTTP/1.1, the connection kept; gives the body.
pub(super) async fn request<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> String {
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    response(stream).await
}

/// Reads one response with a length; gives the body.
pub(super) async fn response<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stream.read_u8()).await.expect("a response"));
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let (_, rest) = head.split_once("content-length: ").unwrap();
    let length = rest.lines().next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    within(stream.read_exact(&mut body)).await.unwrap();
    String::from_utf8(body).unwrap()
}

/// Waits for the end of the connection, by FIN or reset, and gives what came before.
pub(super) async fn ended<S: AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = within(stream.read_to_end(&mut rest)).await;
    rest
}

/// A directory of its own, removed at the end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("maitred-listener-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A development certificate in a directory below.
    pub(crate) fn certificate(&self, dir: &str, names: &[&str]) -> TlsPolicy {
        ensure_development(&self.0.join(dir), names, Clock::system().unix()).unwrap()
    }

    /// A client that trusts the authorities of these directories.
    pub(super) fn client(&self, dirs: &[&str], alpn: &[&str]) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        for dir in dirs {
            let authority = self.0.join(dir).join("ca.pem");
            roots
                .add(CertificateDer::from_pem_file(authority).unwrap())
                .unwrap();
        }
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) async fn handshake(
    config: &Arc<rustls::ClientConfig>,
    tcp: TcpStream,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    within(TlsConnector::from(config.clone()).connect(name, tcp)).await
}

/// The leaf that the server showed.
pub(super) fn leaf(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    chain[0].clone().into_owned()
}

#[tokio::test]
async fn draining_serves_what_was_accepted_and_refuses_what_comes_later() {
    let edge = start(policy(), None);
    let mut busy = edge.connect().await;
    request(&mut busy).await;
    let mut idle = edge.connect().await;
    request(&mut idle).await;
    let mut fresh = edge.connect().await;
    assert!(settled(PATIENCE, || edge.clients.open() == 3).await);

    edge.drain.advance(Phase::Announcing, Cause::Terminate);
    // Still accepting, and every response is the connection's last.
    let mut late = edge.connect().await;
    request(&mut late).await;
    request(&mut busy).await;
    assert!(ended(&mut late).await.is_empty() && ended(&mut busy).await.is_empty());

    edge.drain.advance(Phase::Draining, Cause::Terminate);
    // Accepted before, asked after: is served, not dropped.
    request(&mut fresh).await;
    assert!(ended(&mut fresh).await.is_empty() && ended(&mut idle).await.is_empty());
    let refused = || std::net::TcpStream::connect(edge.address).is_err();
    assert!(settled(PATIENCE, refused).await, "still accepts");
    edge.is_empty_again().await;
}
