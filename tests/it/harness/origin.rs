//! A scripted origin. It speaks HTTP/1.1 by hand, records every byte that reaches it apart from
//! health checks and key fetches, and answers each request as its script says.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

/// What to do with a request.
pub enum Script {
    /// A whole answer.
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// An event stream: what the channel brings is written at once; its end closes the connection.
    Stream(mpsc::UnboundedReceiver<Vec<u8>>),
    /// Bytes exactly as given, then the connection is closed.
    Raw(Vec<u8>),
    /// Bytes exactly as given, then the connection is reset.
    RawThenReset(Vec<u8>),
    /// Wait this long, then answer 200.
    Late(Duration),
    /// Never answer; hold until the peer goes.
    Hang,
    /// Do the rest once the gate is open.
    Held(Gate, Box<Script>),
}

/// Holds answers back until a test opens it.
#[derive(Clone)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        // The sender lives as long as this gate, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

impl Script {
    pub fn json(body: &str) -> Self {
        Self::Answer {
            status: 200,
            headers: vec![("content-type", "application/json".into())],
            body: body.as_bytes().to_vec(),
        }
    }

    pub fn status(status: u16) -> Self {
        Self::Answer {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }
}

type Handler = Arc<dyn Fn(&Seen) -> Script + Send + Sync>;

/// The running origin.
pub struct Origin {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    handler: Handler,
    jwks: Value,
    seen: Mutex<Vec<Seen>>,
    /// Everything that arrived on connections which were not health checks or key fetches.
    bytes: Mutex<Vec<u8>>,
    key_fetches: AtomicUsize,
    healthy: AtomicBool,
    /// Connections whose request is not over.
    busy: AtomicUsize,
    /// Requests whose body is on its way.
    arriving: AtomicUsize,
}

impl Origin {
    pub async fn start(
        jwks: Value,
        handler: impl Fn(&Seen) -> Script + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, jwks, handler)
    }

    pub fn on(
        listener: TcpListener,
        jwks: Value,
        handler: impl Fn(&Seen) -> Script + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler: Arc::new(handler),
            jwks,
            seen: Mutex::default(),
            bytes: Mutex::default(),
            key_fetches: AtomicUsize::new(0),
            healthy: AtomicBool::new(true),
            busy: AtomicUsize::new(0),
            arriving: AtomicUsize::new(0),
        });
        let inner = shared.clone();
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = inner.clone();
                open.spawn(async move {
                    let _ = serve(stream, &shared).await;
                });
                while open.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            shared,
            task,
        }
    }

    /// Requests so far, health checks and key fetches left out.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Whether these bytes ever arrived.
    pub fn received(&self, needle: &[u8]) -> bool {
        let bytes = self.shared.bytes.lock().unwrap();
        bytes.windows(needle.len()).any(|w| w == needle)
    }

    /// How many bytes arrived.
    pub fn byte_count(&self) -> usize {
        self.shared.bytes.lock().unwrap().len()
    }

    pub fn key_fetches(&self) -> usize {
        self.shared.key_fetches.load(Ordering::Relaxed)
    }

    pub fn set_healthy(&self, healthy: bool) {
        self.shared.healthy.store(healthy, Ordering::Relaxed);
    }

    /// Requests being answered at this moment (streams included).
    pub fn busy(&self) -> usize {
        self.shared.busy.load(Ordering::Relaxed)
    }
}

impl Origin {
    /// Requests whose header is here and whose body is not.
    pub fn arriving(&self) -> usize {
        self.shared.arriving.load(Ordering::Relaxed)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let Some((seen, raw)) = read_request(&mut stream, &mut buffer, shared).await? else {
            return Ok(());
        };
        if seen.target == "/ready" {
            let status = if shared.healthy.load(Ordering::Relaxed) {
                200
            } else {
                503
            };
            write_answer(&mut stream, status, &[], b"").await?;
            continue;
        }
        if seen.target == "/.well-known/jwks.json" {
            shared.key_fetches.fetch_add(1, Ordering::Relaxed);
            let body = shared.jwks.to_string();
            write_answer(&mut stream, 200, &[], body.as_bytes()).await?;
            continue;
        }
        drop(raw);
        shared.seen.lock().unwrap().push(seen.clone());
        shared.busy.fetch_add(1, Ordering::Relaxed);
        let _busy = Busy(&shared.busy);
        let mut script = (shared.handler)(&seen);
        while let Script::Held(gate, then) = script {
            gate.passed().await;
            script = *then;
        }
        match script {
            Script::Held(..) => unreachable!("unwrapped above"),
            Script::Answer {
                status,
                headers,
                body,
            } => {
                let body = if seen.method == "HEAD" {
                    Vec::new()
                } else {
                    body
                };
                write_answer(&mut stream, status, &headers, &body).await?;
            }
            Script::Late(after) => {
                tokio::time::sleep(after).await;
                write_answer(&mut stream, 200, &[], b"late").await?;
            }
            Script::Stream(events) => return stream_events(&mut stream, events).await,
            Script::Raw(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Script::RawThenReset(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                return Ok(());
            }
            Script::Hang => {
                let mut rest = [0; 1024];
                while stream.read(&mut rest).await? > 0 {}
                return Ok(());
            }
        }
    }
}

async fn stream_events(
    stream: &mut TcpStream,
    mut events: mpsc::UnboundedReceiver<Vec<u8>>,
) -> std::io::Result<()> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let mut gone = [0; 1];
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => {
                    let mut chunk = format!("{:x}\r\n", event.len()).into_bytes();
                    chunk.extend_from_slice(&event);
                    chunk.extend_from_slice(b"\r\n");
                    stream.write_all(&chunk).await?;
                }
                None => return stream.write_all(b"0\r\n\r\n").await,
            },
            read = stream.read(&mut gone) => if read? == 0 { return Ok(()) },
        }
    }
}

async fn write_answer(
    stream: &mut TcpStream,
    status: u16,
    headers: &[(&'static str, String)],
    body: &[u8],
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    stream.write_all(&bytes).await
}

/// Reads one request. `None` when the peer closed between requests. Lenient on purpose: what an
/// origin would make of ambiguous bytes is the point of some tests.
async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    shared: &Shared,
) -> std::io::Result<Option<(Seen, Vec<u8>)>> {
    let mut recorded = 0;
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        let mut chunk = [0; 16 * 1024];
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            record(shared, &buffer[recorded..]);
            return Ok(None);
        }
        buffer.extend_from_slice(&chunk[..count]);
        let own = buffer.starts_with(b"GET /ready") || buffer.starts_with(b"GET /.well-known");
        if !own && !b"GET /ready".starts_with(&buffer[..buffer.len().min(10)]) {
            record(shared, &buffer[recorded..]);
            recorded = buffer.len();
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    let mut lines = head.split("\r\n");
    let first: Vec<&str> = lines.next().unwrap_or("").split(' ').collect();
    let headers: Vec<(String, String)> = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(n, v)| (n.trim().to_ascii_lowercase(), v.trim().to_owned()))
        .collect();
    let mut seen = Seen {
        method: (*first.first().unwrap_or(&"")).to_owned(),
        target: (*first.get(1).unwrap_or(&"")).to_owned(),
        headers,
        body: Vec::new(),
    };
    let raw: Vec<u8> = buffer.drain(..head_end).collect();
    recorded = recorded.saturating_sub(head_end);
    if seen.header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    shared.arriving.fetch_add(1, Ordering::Relaxed);
    let _arriving = Busy(&shared.arriving);
    if seen.header("transfer-encoding").is_some() {
        seen.body = read_chunked(stream, buffer, shared, recorded).await?;
    } else if let Some(length) = seen.header("content-length").and_then(|v| v.parse().ok()) {
        fill(stream, buffer, length, shared, recorded).await?;
        seen.body = buffer.drain(..length).collect();
    }
    Ok(Some((seen, raw)))
}

fn record(shared: &Shared, bytes: &[u8]) {
    shared.bytes.lock().unwrap().extend_from_slice(bytes);
}

async fn fill(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    length: usize,
    shared: &Shared,
    mut recorded: usize,
) -> std::io::Result<()> {
    while buffer.len() < length {
        let mut chunk = [0; 16 * 1024];
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        buffer.extend_from_slice(&chunk[..count]);
        record(shared, &buffer[recorded..]);
        recorded = buffer.len();
    }
    Ok(())
}

async fn read_chunked(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    shared: &Shared,
    recorded: usize,
) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let mut recorded = recorded;
    loop {
        let line_end = loop {
            if let Some(at) = buffer.windows(2).position(|w| w == b"\r\n") {
                break at;
            }
            let want = buffer.len() + 1;
            fill(stream, buffer, want, shared, recorded).await?;
            recorded = buffer.len();
        };
        let size = String::from_utf8_lossy(&buffer[..line_end]).into_owned();
        let size = usize::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16)
            .map_err(|_| std::io::ErrorKind::InvalidData)?;
        let whole = line_end + 2 + size + 2;
        fill(stream, buffer, whole, shared, recorded).await?;
        body.extend_from_slice(&buffer[line_end + 2..line_end + 2 + size]);
        buffer.drain(..whole);
        recorded = buffer.len();
        if size == 0 {
            return Ok(body);
        }
    }
}
