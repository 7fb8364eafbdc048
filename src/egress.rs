//! The one way out for requests that the edge makes on its own account: deliveries, stream legs, key
//! fetches, health checks. Every call has a deadline; retries and choices are the caller's.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpStream, UnixStream};

/// Where a peer listens.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub enum Address {
    /// `host:port`; a host name is resolved when connecting.
    Tcp(String),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host_port) => f.write_str(host_port),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a call brought no response.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// No connection: nothing was sent, repeating is safe.
    #[error("no connection to {to}: {why}")]
    Connect { to: String, why: String },
    /// The request may have been handled all the same.
    #[error("{to} failed after the request was sent: {why}")]
    Broken { to: String, why: String },
    #[error("{to} did not answer within {after_ms} ms")]
    Timeout { to: String, after_ms: u64 },
    #[error("{what} is not a usable address")]
    Address { what: String },
}

/// A keep-alive HTTP/1.1 client for one peer.
#[derive(Clone)]
pub struct Client {
    to: Arc<Address>,
    inner: HyperClient<Dial, Full<Bytes>>,
}

impl Client {
    /// Connects when first used.
    #[must_use]
    pub fn new(to: Address, connect_timeout: Duration) -> Self {
        let to = Arc::new(to);
        let dial = Dial {
            to: to.clone(),
            timeout: connect_timeout,
        };
        let inner = HyperClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(64)
            .build(dial);
        Self { to, inner }
    }

    /// Sends a request whose target is a path; resolves at the response's header.
    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        first_byte_timeout: Duration,
    ) -> Result<Response<Incoming>, EgressError> {
        *request.uri_mut() = self.absolute(request.uri())?;
        let answer = tokio::time::timeout(first_byte_timeout, self.inner.request(request)).await;
        match answer {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.failure(&error)),
            Err(_) => Err(EgressError::Timeout {
                to: self.to.to_string(),
                after_ms: u64::try_from(first_byte_timeout.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }

    fn failure(&self, error: &hyper_util::client::legacy::Error) -> EgressError {
        let to = self.to.to_string();
        let why = chain(error);
        if error.is_connect() {
            EgressError::Connect { to, why }
        } else {
            EgressError::Broken { to, why }
        }
    }

    /// hyper wants an authority even where the connector ignores it.
    fn absolute(&self, target: &Uri) -> Result<Uri, EgressError> {
        let authority = match self.to.as_ref() {
            Address::Tcp(host_port) => host_port.as_str(),
            Address::Unix(_) => "localhost",
        };
        let bad = |_| EgressError::Address {
            what: authority.to_owned(),
        };
        let authority: Authority = authority.parse().map_err(bad)?;
        let path = target.path_and_query().cloned();
        Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(authority.clone())
            .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
            .build()
            .map_err(|_| EgressError::Address {
                what: target.to_string(),
            })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.to)
    }
}

/// Reads a whole body, refusing one that is larger than `bytes_max` or slower than `within`.
pub async fn read_whole(
    body: Incoming,
    bytes_max: usize,
    within: Duration,
) -> Result<Bytes, EgressError> {
    let broken = |why: String| EgressError::Broken {
        to: "peer".into(),
        why,
    };
    let read = tokio::time::timeout(within, Limited::new(body, bytes_max).collect()).await;
    match read {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) => Err(broken(error.to_string())),
        Err(_) => Err(broken("the body did not arrive in time".into())),
    }
}

/// GET of an absolute `http` or `https` URL, for keys that are published elsewhere.
pub async fn get(url: &str, bytes_max: usize, within: Duration) -> Result<Bytes, EgressError> {
    let uri: Uri = url.parse().map_err(|_| EgressError::Address {
        what: url.to_owned(),
    })?;
    let mut http = HttpConnector::new();
    http.set_connect_timeout(Some(within));
    http.enforce_http(false);
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    let client: HyperClient<_, Full<Bytes>> =
        HyperClient::builder(TokioExecutor::new()).build(https);
    let failed = |why: String| EgressError::Broken {
        to: url.to_owned(),
        why,
    };
    let response = tokio::time::timeout(within, client.get(uri))
        .await
        .map_err(|_| failed("no answer in time".into()))?
        .map_err(|e| failed(chain(&e)))?;
    if !response.status().is_success() {
        return Err(failed(format!("status {}", response.status())));
    }
    read_whole(response.into_body(), bytes_max, within).await
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// Connects to one fixed address, whatever the URI says.
#[derive(Clone)]
struct Dial {
    to: Arc<Address>,
    timeout: Duration,
}

impl tower_service::Service<Uri> for Dial {
    type Response = Io;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Io>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { to, timeout } = self.clone();
        Box::pin(async move {
            let connect = async {
                match to.as_ref() {
                    Address::Tcp(host_port) => {
                        let stream = TcpStream::connect(host_port.as_str()).await?;
                        stream.set_nodelay(true)?;
                        notice_death(&stream)?;
                        Ok(Io::Tcp(TokioIo::new(stream)))
                    }
                    Address::Unix(path) => {
                        Ok(Io::Unix(TokioIo::new(UnixStream::connect(path).await?)))
                    }
                }
            };
            tokio::time::timeout(timeout, connect)
                .await
                .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        })
    }
}

/// A peer that vanished without a word is noticed even where nothing is sent, as on a stream.
fn notice_death(stream: &TcpStream) -> std::io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    let probes = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    socket.set_tcp_keepalive(&probes)
}

/// A connected transport.
pub enum Io {
    Tcp(TokioIo<TcpStream>),
    Unix(TokioIo<UnixStream>),
}

macro_rules! on_either {
    ($self:ident, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Tcp($io) => $call,
            Self::Unix($io) => $call,
        }
    };
}

impl hyper::rt::Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        on_either!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        on_either!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        on_either!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        on_either!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}

impl Connection for Io {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
