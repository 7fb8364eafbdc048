//! The transport under a session: a plain or TLS connection whose reads fail once a request header
//! is overdue. Decides how long a client may take for a header and how long it may idle between
//! requests; bodies and responses are the proxy layer's to watch.
//!
//! Pingora limits single reads only, so one byte per minute would hold a connection for ever, and
//! an HTTP/2 client without preface is never timed out. Here the whole header has one deadline:
//!
//! * `Header`, from the start of the connection: the deadline is fixed;
//! * `Idle`, after [`rearm`]: the keep-alive budget; the first byte turns it into `Header`;
//! * `Off`, after [`disarm`], or after the preface of HTTP/2, where Pingora's own
//!   `h2_idle_timeout` takes over.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora::proxy::Session;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;

use super::drain::InFlight;
use super::event::{Event, Observer, Refusal};

/// A TCP connection, buffered both ways: PROXY header and ClientHello come with one system call,
/// and a response's header leaves together with a small body.
pub type Buffered = BufReader<BufWriter<TcpStream>>;

/// Read buffer; a TLS record header and its small records come in one read.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Write buffer; a header with all that the edge adds and a small body leave in one system call.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;
/// What a client may send while a request header is due. Far above what `guard` accepts and answers
/// with 431; this one only keeps Pingora from buffering its megabyte.
const HEADER_BYTES_MAX: u64 = 128 * 1024;
const H2_PREFACE_BYTES: u64 = 24;
/// How long a closed connection is still read from, so that a client in the middle of an upload
/// gets to see the response instead of a reset.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// How long a client may refuse to take the last bytes.
const FIN_TIMEOUT: Duration = Duration::from_secs(5);

const OFF: u8 = 0;
const HEADER: u8 = 1;
const IDLE: u8 = 2;

/// What is known of a connection before its first request; see [`connection`].
#[derive(Clone, Debug)]
pub struct Connection {
    /// The other end of the socket: the client or a balancer.
    pub peer: SocketAddr,
    /// The client: from the PROXY header where there is one, else the peer.
    pub client: SocketAddr,
    /// `None` on the plain listener.
    pub tls: Option<TlsInfo>,
}

/// What the handshake agreed on.
#[derive(Clone, Debug)]
pub struct TlsInfo {
    /// Server name in lower case.
    pub sni: Option<String>,
    /// As in `TLSv1.3`.
    pub version: &'static str,
    pub cipher: &'static str,
    /// `h2`, `http/1.1` or nothing.
    pub alpn: Option<&'static str>,
    /// Whether the client came with a ticket.
    pub resumed: bool,
}

/// Says that the request's header is complete. For `early_request_filter`; does nothing on HTTP/2.
pub fn disarm(session: &Session) {
    if let Some(io) = guarded_io(session) {
        io.disarm();
    }
}

/// Says that the response is done and the next request may come. For `logging`; does nothing on
/// HTTP/2.
pub fn rearm(session: &Session) {
    if let Some(io) = guarded_io(session) {
        io.rearm();
    }
}

/// The connection a request came on, over HTTP/1 and HTTP/2. `None` only for sessions that did not
/// come through a listener of ours (subrequests, tests).
#[must_use]
pub fn connection(session: &Session) -> Option<&Connection> {
    let digest = session.as_downstream().digest()?.proxy_digest.as_ref()?;
    digest.user_data.as_ref()?.downcast_ref()
}

fn guarded_io(session: &Session) -> Option<&GuardedIo> {
    let stream = session.as_downstream().stream()?;
    (**stream).as_any().downcast_ref()
}

/// The two budgets of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    pub header: Duration,
    pub keepalive: Duration,
}

/// Buffers a fresh connection.
#[must_use]
pub fn buffered(tcp: TcpStream) -> Buffered {
    let writer = BufWriter::with_capacity(WRITE_BUFFER_BYTES, tcp);
    BufReader::with_capacity(READ_BUFFER_BYTES, writer)
}

/// The bytes' way.
pub enum Transport {
    Plain(Buffered),
    Tls(Box<TlsStream<Buffered>>),
}

impl Transport {
    fn buffered(&self) -> &Buffered {
        match self {
            Self::Plain(io) => io,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    fn buffered_mut(&mut self) -> &mut Buffered {
        match self {
            Self::Plain(io) => io,
            Self::Tls(tls) => tls.get_mut().0,
        }
    }
}

/// See the module.
pub struct GuardedIo {
    transport: Transport,
    connection: Arc<ProxyDigest>,
    tls: Option<Arc<SslDigest>>,
    is_h2: bool,
    socket: Arc<SocketDigest>,
    budgets: Budgets,
    observer: Observer,
    /// Base of `deadline_ms`.
    epoch: Instant,
    /// `disarm` and `rearm` reach this object by a shared reference, hence the atomics; they and
    /// the reads run on the same task.
    mode: AtomicU8,
    deadline_ms: AtomicU64,
    /// Bytes read in `Header`.
    header_bytes: AtomicU64,
    /// Held until the first request's header is complete.
    fresh: Mutex<Option<InFlight>>,
    /// Wakes a read that waits beyond the deadline; made when first needed.
    timer: Option<Pin<Box<Sleep>>>,
    closing: Option<Closing>,
    /// Bytes thrown away while closing.
    linger_bytes: usize,
}

impl GuardedIo {
    /// Guards a connection; the first header's deadline starts now.
    #[must_use]
    pub fn new(
        transport: Transport,
        connection: Connection,
        budgets: Budgets,
        fresh: InFlight,
        observer: Observer,
    ) -> Self {
        let tls = connection.tls.as_ref().map(|tls| {
            let digest = SslDigest::new(tls.cipher, tls.version, None, None, Vec::new());
            Arc::new(digest)
        });
        let socket =
            SocketDigest::from_raw_fd(transport.buffered().get_ref().get_ref().as_raw_fd());
        // `client_addr()` of a session then is the client and not the balancer.
        let _ = socket.peer_addr.set(Some(connection.client.into()));
        let io = Self {
            is_h2: connection
                .tls
                .as_ref()
                .is_some_and(|tls| tls.alpn == Some("h2")),
            connection: carrier(connection),
            transport,
            tls,
            socket: Arc::new(socket),
            budgets,
            observer,
            epoch: Instant::now(),
            mode: AtomicU8::new(OFF),
            deadline_ms: AtomicU64::new(u64::MAX),
            header_bytes: AtomicU64::new(0),
            fresh: Mutex::new(Some(fresh)),
            timer: None,
            closing: None,
            linger_bytes: 0,
        };
        io.arm(HEADER, budgets.header);
        io
    }

    fn disarm(&self) {
        self.mode.store(OFF, Ordering::Relaxed);
        drop(
            self.fresh
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }

    fn rearm(&self) {
        if !self.is_h2 {
            self.arm(IDLE, self.budgets.keepalive);
        }
    }

    fn arm(&self, mode: u8, budget: Duration) {
        let deadline = self.epoch.elapsed().saturating_add(budget);
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        self.deadline_ms.store(deadline_ms, Ordering::Relaxed);
        self.header_bytes.store(0, Ordering::Relaxed);
        self.mode.store(mode, Ordering::Relaxed);
    }

    fn is_armed(&self) -> bool {
        self.mode.load(Ordering::Relaxed) != OFF
    }

    fn deadline(&self) -> Instant {
        self.epoch + Duration::from_millis(self.deadline_ms.load(Ordering::Relaxed))
    }

    /// After a read that brought `bytes`.
    fn note(&self, bytes: u64) -> io::Result<()> {
        if self.mode.load(Ordering::Relaxed) == IDLE && bytes > 0 {
            self.arm(HEADER, self.budgets.header);
        }
        let total = self.header_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.is_h2 && total >= H2_PREFACE_BYTES {
            self.disarm();
            return Ok(());
        }
        if total > HEADER_BYTES_MAX {
            (self.observer)(Event::Refused(Refusal::HeaderBytes));
            return Err(io::Error::other("request header too large"));
        }
        if Instant::now() >= self.deadline() {
            return Err(self.overdue());
        }
        Ok(())
    }

    fn overdue(&self) -> io::Error {
        // An idle connection that ran out of time did nothing wrong.
        if self.mode.load(Ordering::Relaxed) == HEADER {
            (self.observer)(Event::Refused(Refusal::HeaderTimeout));
        }
        io::Error::new(io::ErrorKind::TimedOut, "request header overdue")
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline();
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }

    /// The transport's own end: last bytes, close_notify, FIN.
    fn poll_fin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Transport::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }

    /// Reads on for a moment and throws away, so that closing does not reset the connection.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waste = [0; 4096];
        let mut waste = ReadBuf::new(&mut waste);
        while self.linger_bytes < LINGER_BYTES_MAX {
            waste.clear();
            let tcp = self.transport.buffered_mut().get_mut().get_mut();
            let read = ready!(Pin::new(tcp).poll_read(cx, &mut waste));
            if read.is_err() || waste.filled().is_empty() {
                break;
            }
            self.linger_bytes += waste.filled().len();
        }
        Poll::Ready(())
    }
}

/// How far a connection is on its way to being closed, and until when it may take.
enum Closing {
    /// Last bytes and FIN.
    Fin(Pin<Box<Sleep>>),
    /// Both done; what the client still sends is thrown away.
    Linger(Pin<Box<Sleep>>),
}

/// Pingora hands a connection's digest to every request, h1 and h2 alike, and its proxy part has the
/// one field that takes a value of ours; the response beside it stays unused.
fn carrier(connection: Connection) -> Arc<ProxyDigest> {
    let unused = ResponseHeader::from(http::Response::new(()).into_parts().0);
    let value: Box<dyn std::any::Any + Send + Sync> = Box::new(connection);
    Arc::new(ProxyDigest::new(Box::new(unused), Some(value)))
}

impl AsyncRead for GuardedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = match &mut self.transport {
            Transport::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Transport::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        };
        if !self.is_armed() {
            return polled;
        }
        // What can be read is read before the clock is looked at, so the timer is set up only for
        // clients that keep us waiting.
        if polled.is_pending() {
            ready!(self.poll_timer(cx));
            return Poll::Ready(Err(self.overdue()));
        }
        ready!(polled)?;
        let read = buf.filled().len() - before;
        Poll::Ready(self.note(u64::try_from(read).unwrap_or(u64::MAX)))
    }
}

impl AsyncWrite for GuardedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Transport::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(io) => Pin::new(io).poll_flush(cx),
            Transport::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let polled = match &this.closing {
                None => {
                    let timer = Box::pin(tokio::time::sleep(FIN_TIMEOUT));
                    this.closing = Some(Closing::Fin(timer));
                    continue;
                }
                Some(Closing::Fin(_)) => this.poll_fin(cx),
                Some(Closing::Linger(_)) => this.poll_linger(cx).map(Ok),
            };
            match (polled, &mut this.closing) {
                (Poll::Ready(Ok(())), Some(Closing::Fin(_))) => {
                    let timer = Box::pin(tokio::time::sleep(LINGER));
                    this.closing = Some(Closing::Linger(timer));
                }
                (Poll::Ready(done), _) => return Poll::Ready(done),
                (Poll::Pending, Some(Closing::Fin(timer))) => {
                    ready!(timer.as_mut().poll(cx));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                // Running out of time here is the normal case of a client that does not close.
                (Poll::Pending, Some(Closing::Linger(timer))) => {
                    return timer.as_mut().poll(cx).map(Ok);
                }
                (Poll::Pending, None) => return Poll::Pending,
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Transport::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(io) => io.is_write_vectored(),
            Transport::Tls(tls) => tls.is_write_vectored(),
        }
    }
}

#[async_trait]
impl Shutdown for GuardedIo {
    async fn shutdown(&mut self) {
        // There is nobody left to tell.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for GuardedIo {
    fn id(&self) -> UniqueIDType {
        self.transport.buffered().get_ref().get_ref().as_raw_fd()
    }
}

impl Ssl for GuardedIo {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.tls.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        // Nothing else is offered, so what is not h2 is HTTP/1.
        self.tls.as_ref()?;
        Some(if self.is_h2 { ALPN::H2 } else { ALPN::H1 })
    }
}

/// Peeking is needed for HTTP/2 in clear only, which is not offered.
impl Peek for GuardedIo {}

impl GetTimingDigest for GuardedIo {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for GuardedIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.connection.clone())
    }
}

impl GetSocketDigest for GuardedIo {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.socket.clone())
    }
}

impl fmt::Debug for GuardedIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedIo")
            .field("tls", &self.tls.is_some())
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl Drop for GuardedIo {
    fn drop(&mut self) {
        // A session that was cut short may leave its last words in the buffer; the socket usually
        // takes them at once, and if not, the client was too slow for them anyway.
        let unsent = !self.transport.buffered().get_ref().buffer().is_empty();
        if unsent {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = Pin::new(self).poll_flush(&mut cx);
        }
    }
}
