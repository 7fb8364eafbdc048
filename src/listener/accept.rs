//! The accept loop of one public listener, with TLS or without. Decides whether a connection is let
//! in (caps, PROXY header, handshake, all within one deadline) and hands what remains to the
//! application as a guarded stream. Does not look at requests.
//!
//! At a cap a connection is closed at once instead of being left in the backlog: the client, or the
//! balancer in front, learns it immediately and tries elsewhere, and the listener stays able to tell
//! the next one.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures_util::FutureExt;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::Policy;
use super::clients::{AddressSeat, Clients};
use super::drain::{DrainState, FRESH_GRACE, InFlight, settled};
use super::event::{Event, Observer, Refusal, unobserved};
use super::guarded::{Budgets, Buffered, Connection, GuardedIo, Transport, buffered};
use super::proxy_protocol;
use super::tls::{self, Tls};

/// Pause after the system could not give a connection: without one, the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// First keep-alive probe on a silent connection, then the pause between probes.
const TCP_KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const TCP_KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// How long sent bytes may stay unacknowledged; a client that vanished is noticed by then.
#[cfg(target_os = "linux")]
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// One public listener in front of a Pingora application.
pub struct Edge<A> {
    name: String,
    socket: Option<TcpListener>,
    address: SocketAddr,
    shared: Arc<Shared<A>>,
}

struct Shared<A> {
    policy: Arc<ArcSwap<Policy>>,
    tls: Option<Arc<Tls>>,
    app: Arc<A>,
    drain: DrainState,
    clients: Arc<Clients>,
    observer: Observer,
    stop: ShutdownWatch,
}

impl<A> Edge<A> {
    /// A listener on a socket from `handover::Sockets::listen`. The policy is read anew for every
    /// connection, so a new one takes effect at once; its address is not looked at here.
    pub fn new(
        name: &str,
        socket: TcpListener,
        policy: Arc<ArcSwap<Policy>>,
        tls: Option<Arc<Tls>>,
        app: Arc<A>,
        drain: &DrainState,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            name: name.to_owned(),
            address: socket.local_addr()?,
            socket: Some(socket),
            shared: Arc::new(Shared {
                policy,
                tls,
                app,
                drain: drain.clone(),
                clients: Arc::new(Clients::default()),
                observer: unobserved(),
                stop: drain.stop(),
            }),
        })
    }

    /// The same listener, with somebody who counts.
    #[must_use]
    pub fn observed(mut self, observer: Observer) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.observer = observer;
        }
        self
    }

    /// Where it listens, also when port 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Its open connections.
    #[must_use]
    pub fn clients(&self) -> Arc<Clients> {
        self.shared.clients.clone()
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Service for Edge<A> {
    async fn start_service(
        &mut self,
        _inherited: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        let Some(socket) = self.socket.take() else {
            return;
        };
        match tokio::net::TcpListener::from_std(socket) {
            Ok(listener) => run(&self.shared, listener).await,
            Err(error) => {
                tracing::error!(listener.name = %self.name, %error, "listener cannot start");
                std::process::exit(super::drain::EXIT_SOFTWARE);
            }
        }
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(vec![self.address.to_string()])
    }
}

async fn run<A>(shared: &Arc<Shared<A>>, listener: tokio::net::TcpListener)
where
    A: ServerApp + Send + Sync + 'static,
{
    let mut stop = shared.stop.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = raised(&mut stop) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => shared.admit(tcp, peer),
            // The client was gone before we came to it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                (shared.observer)(Event::Refused(Refusal::AcceptFailed));
                warn!(%error, "cannot accept; pausing");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // What the kernel already promised to clients is taken along; closing would reset it.
    while let Some(Ok((tcp, peer))) = listener.accept().now_or_never() {
        shared.admit(tcp, peer);
    }
    drop(listener);
    // `cleanup` closes every connection that waits for a request, so those whose first request is on
    // its way come first.
    let fresh_done = settled(FRESH_GRACE, || shared.drain.fresh() == 0).await;
    debug!(fresh_done, "listener closed");
    shared.app.cleanup().await;
}

/// Waits for `true`, without keeping the watch's lock over the wait.
async fn raised(stop: &mut ShutdownWatch) {
    let _ = stop.wait_for(|stop| *stop).await.map(drop);
}

impl<A: ServerApp + Send + Sync + 'static> Shared<A> {
    /// Counts a connection in and gives it a task of its own.
    fn admit(self: &Arc<Self>, tcp: TcpStream, peer: SocketAddr) {
        let policy = self.policy.load_full();
        let Some(seat) = self.clients.enter(policy.connections_max) else {
            return self.refuse(Refusal::ConnectionsMax, peer, &"at connections_max");
        };
        let open = Open::new(self.observer.clone());
        let counted = self.drain.enter_connection();
        let fresh = self.drain.enter_fresh();
        let shared = self.clone();
        // The runtime is one thread per core without stealing: `tokio::spawn` would keep every
        // connection on the accepting thread.
        pingora_runtime::current_handle().spawn(async move {
            // Dropped last, in this order, when the connection is over.
            let _held = (seat, open, counted);
            shared.serve(tcp, peer, &policy, fresh).await;
        });
    }

    async fn serve(&self, tcp: TcpStream, peer: SocketAddr, policy: &Policy, fresh: InFlight) {
        if let Err(error) = tune(&tcp) {
            return debug!(%error, "connection gone before it was set up");
        }
        let limit = Duration::from_millis(policy.handshake_timeout_ms);
        let (transport, connection, _seat) =
            match timeout(limit, self.establish(tcp, peer, policy)).await {
                Ok(Ok(established)) => established,
                Ok(Err((refusal, why))) => return self.refuse(refusal, peer, &why),
                Err(_) => return self.refuse(Refusal::HandshakeTimeout, peer, &"out of time"),
            };
        let budgets = Budgets {
            header: Duration::from_millis(policy.header_timeout_ms),
            keepalive: Duration::from_millis(policy.keepalive_timeout_ms),
        };
        let guarded = GuardedIo::new(transport, connection, budgets, fresh, self.observer.clone());
        let mut next: Option<Stream> = Some(Box::new(guarded));
        while let Some(stream) = next.take() {
            next = self.app.process_new(stream, &self.stop).await;
        }
    }

    /// PROXY header, the address's cap, TLS.
    async fn establish(
        &self,
        tcp: TcpStream,
        peer: SocketAddr,
        policy: &Policy,
    ) -> Result<(Transport, Connection, AddressSeat), (Refusal, io::Error)> {
        let mut io = buffered(tcp);
        let mut client = peer;
        if believes(policy, peer.ip()) {
            let source = proxy_protocol::read(&mut io)
                .await
                .map_err(|error| (Refusal::ProxyHeader, io::Error::other(error)))?;
            client = source.unwrap_or(peer);
        }
        let seat = self
            .clients
            .enter_address(client.ip(), policy.connections_per_ip_max)
            .ok_or_else(|| {
                (
                    Refusal::PerIpMax,
                    io::Error::other("at connections_per_ip_max"),
                )
            })?;
        let (transport, tls) = match &self.tls {
            None => (Transport::Plain(io), None),
            Some(tls) => {
                let stream = handshake(tls, io)
                    .await
                    .map_err(|error| (Refusal::Handshake, error))?;
                let info = tls::info(stream.get_ref().1);
                (Transport::Tls(Box::new(stream)), Some(info))
            }
        };
        Ok((transport, Connection { peer, client, tls }, seat))
    }
}

impl<A> Shared<A> {
    fn refuse(&self, refusal: Refusal, peer: SocketAddr, why: &dyn std::fmt::Display) {
        (self.observer)(Event::Refused(refusal));
        debug!(reason = refusal.label(), %peer, %why, "connection refused");
    }
}

async fn handshake(tls: &Tls, io: Buffered) -> io::Result<TlsStream<Buffered>> {
    let accept = TlsAcceptor::from(tls.config()).accept(io);
    match accept.into_fallible().await {
        Ok(stream) => Ok(stream),
        Err((error, mut io)) => {
            // The alert that tells the client what was wrong is still in the buffer.
            let _ = io.flush().await;
            Err(error)
        }
    }
}

/// Whether this peer is a balancer that must speak the PROXY protocol.
fn believes(policy: &Policy, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    policy
        .proxy_protocol_from
        .iter()
        .any(|network| network.contains(&peer))
}

fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    let keepalive = TcpKeepalive::new()
        .with_time(TCP_KEEPALIVE_AFTER)
        .with_interval(TCP_KEEPALIVE_EVERY);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    Ok(())
}

/// Tells the observer of one connection's beginning and end.
struct Open(Observer);

impl Open {
    fn new(observer: Observer) -> Self {
        observer(Event::Opened);
        Self(observer)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        (self.0)(Event::Closed);
    }
}
