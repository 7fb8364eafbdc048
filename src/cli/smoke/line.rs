//! Connections to the deployment: TLS with exactly the protocol that is to be tried, one request after
//! the other over HTTP/1.1, many at a time over HTTP/2.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{Pending, pending};
use http::header::HOST;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Either, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::report::Miss;
use crate::cli::client::chain;

const CONNECT_MAX: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: usize = 1_048_576;

/// A protocol that is tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Protocol {
    H1,
    H2,
}

impl Protocol {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
        }
    }

    pub(super) fn alpn(self) -> &'static str {
        match self {
            Self::H1 => "http/1.1",
            Self::H2 => "h2",
        }
    }
}

/// Whole, or announced and never sent.
type Payload = Either<Full<Bytes>, StreamBody<Pending<Result<Frame<Bytes>, Infallible>>>>;

/// A request without where it goes.
pub(super) struct Ask {
    method: Method,
    target: String,
    headers: HeaderMap,
    payload: Payload,
}

impl Ask {
    pub(super) fn get(target: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            target: target.into(),
            headers: HeaderMap::new(),
            payload: Either::Left(Full::default()),
        }
    }

    pub(super) fn post(target: impl Into<String>, headers: HeaderMap, body: Bytes) -> Self {
        Self {
            method: Method::POST,
            target: target.into(),
            headers,
            payload: Either::Left(Full::new(body)),
        }
    }

    /// A POST that says how long its body is and sends nothing of it.
    pub(super) fn announce(target: impl Into<String>, headers: HeaderMap) -> Self {
        Self {
            method: Method::POST,
            target: target.into(),
            headers,
            payload: Either::Right(StreamBody::new(pending())),
        }
    }

    pub(super) fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers.extend(headers);
        self
    }
}

/// An answer, read whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// A header's text; empty where there is none.
    pub(super) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|v| v.to_str().ok()).unwrap_or("")
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Passes only with this status.
    pub(super) fn must_be(&self, status: StatusCode) -> Result<(), Miss> {
        if self.status == status {
            return Ok(());
        }
        let mut seen = format!("{} instead of {}", self.brief(), status.as_u16());
        let id = self.header("x-request-id");
        if !id.is_empty() {
            seen.push_str(&format!(", request {id}"));
        }
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            let wait = self.header("retry-after");
            let look = format!("a limit is used up, perhaps by others; again in {wait} s");
            return Err(Miss::look(seen, look));
        }
        Err(Miss::fail(seen))
    }

    /// The status, and the refusal's own words where there are any.
    pub(super) fn brief(&self) -> String {
        let code = self.status.as_u16();
        let body = self.json();
        match body["detail"].as_str().or(body["title"].as_str()) {
            Some(words) => format!("{code} ({words})"),
            None => code.to_string(),
        }
    }
}

/// Where the deployment listens.
pub(super) struct Door {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: rustls::ClientConfig,
}

impl Door {
    /// As it stands in a URL.
    pub(super) fn authority(&self) -> String {
        authority(&self.host, self.port, 443)
    }

    pub(super) async fn connect(&self, protocol: Protocol) -> Result<Line, String> {
        let attempt = async {
            let tcp = dial(&self.host, self.port).await?;
            let name = ServerName::try_from(self.host.clone()).map_err(|e| e.to_string())?;
            let mut tls = self.tls.clone();
            tls.alpn_protocols = vec![protocol.alpn().into()];
            let secure = TlsConnector::from(Arc::new(tls)).connect(name, tcp);
            let secure = secure.await.map_err(|e| e.to_string())?;
            let session = secure.get_ref().1;
            let handshake = Handshake {
                version: session.protocol_version(),
                alpn: session.alpn_protocol().map(<[u8]>::to_vec),
                leaf: session
                    .peer_certificates()
                    .and_then(|chain| chain.first())
                    .map(|leaf| leaf.to_vec()),
            };
            let io = TokioIo::new(secure);
            let (sender, task) = match protocol {
                Protocol::H1 => h1(io).await?,
                Protocol::H2 => h2(io).await?,
            };
            Ok(Line {
                sender,
                authority: self.authority(),
                handshake: Some(handshake),
                _task: task,
            })
        };
        within(CONNECT_MAX, attempt).await
    }
}

/// A connection without TLS, for the redirect.
pub(super) async fn connect_plain(host: &str, port: u16) -> Result<Line, String> {
    let attempt = async {
        let (sender, task) = h1(TokioIo::new(dial(host, port).await?)).await?;
        Ok(Line {
            sender,
            authority: authority(host, port, 80),
            handshake: None,
            _task: task,
        })
    };
    within(CONNECT_MAX, attempt).await
}

/// `host` or `host:port`, with brackets where the host is an IPv6 address.
pub(super) fn authority(host: &str, port: u16, default_port: u16) -> String {
    let host = match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    };
    match port == default_port {
        true => host,
        false => format!("{host}:{port}"),
    }
}

/// What TLS agreed on.
pub(super) struct Handshake {
    pub(super) version: Option<rustls::ProtocolVersion>,
    pub(super) alpn: Option<Vec<u8>>,
    /// The server's own certificate, DER.
    pub(super) leaf: Option<Vec<u8>>,
}

enum Sender {
    H1(http1::SendRequest<Payload>),
    H2(http2::SendRequest<Payload>),
}

/// An open connection; closed when dropped.
pub(super) struct Line {
    sender: Sender,
    authority: String,
    pub(super) handshake: Option<Handshake>,
    _task: AbortOnDrop,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Line {
    pub(super) async fn ask(&mut self, ask: Ask) -> Result<Answer, Miss> {
        let exchange = async {
            let response = self.send(ask).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|e| chain(e.as_ref()))?.to_bytes();
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body,
            })
        };
        within(ANSWER_MAX, exchange).await.map_err(Miss::fail)
    }

    /// The answer's header; its body is still to be read.
    pub(super) async fn open(&mut self, ask: Ask) -> Result<Response<Incoming>, Miss> {
        within(ANSWER_MAX, self.send(ask)).await.map_err(Miss::fail)
    }

    /// Whether the server still takes requests here.
    pub(super) fn is_open(&self) -> bool {
        match &self.sender {
            Sender::H1(sender) => !sender.is_closed(),
            Sender::H2(sender) => !sender.is_closed(),
        }
    }

    async fn send(&mut self, ask: Ask) -> Result<Response<Incoming>, String> {
        let mut request = Request::new(ask.payload);
        *request.method_mut() = ask.method;
        *request.headers_mut() = ask.headers;
        let outcome = match &mut self.sender {
            Sender::H1(sender) => {
                *request.uri_mut() = uri(&ask.target)?;
                let host = self.authority.parse().map_err(|_| "no such host")?;
                request.headers_mut().insert(HOST, host);
                sender.ready().await.map_err(|e| chain(&e))?;
                sender.send_request(request).await
            }
            Sender::H2(sender) => {
                *request.uri_mut() = uri(&format!("https://{}{}", self.authority, ask.target))?;
                sender.ready().await.map_err(|e| chain(&e))?;
                sender.send_request(request).await
            }
        };
        outcome.map_err(|e| chain(&e))
    }
}

fn uri(text: &str) -> Result<Uri, String> {
    text.parse().map_err(|e| format!("`{text}`: {e}"))
}

async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let tcp = TcpStream::connect((host, port)).await;
    let tcp = tcp.map_err(|e| format!("{host}:{port}: {e}"))?;
    tcp.set_nodelay(true).map_err(|e| e.to_string())?;
    Ok(tcp)
}

async fn h1<T>(io: TokioIo<T>) -> Result<(Sender, AbortOnDrop), String>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await.map_err(|e| chain(&e))?;
    // How it ends shows in the answers, or in that there are none.
    let task = tokio::spawn(async { drop(connection.await) });
    Ok((Sender::H1(sender), AbortOnDrop(task)))
}

async fn h2<T>(io: TokioIo<T>) -> Result<(Sender, AbortOnDrop), String>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http2::handshake(TokioExecutor::new(), io);
    let (sender, connection) = handshake.await.map_err(|e| chain(&e))?;
    let task = tokio::spawn(async { drop(connection.await) });
    Ok((Sender::H2(sender), AbortOnDrop(task)))
}

async fn within<T>(
    limit: Duration,
    task: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, task).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
    }
}
