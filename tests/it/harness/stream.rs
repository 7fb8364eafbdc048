//! Event streams on both ends: feeds that a test writes into at the origin, clients that read over
//! HTTP/1 or HTTP/2, and an edge with a stream route between them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::edge::{Edge, Setup};
use super::keys::TokenIssuer;
use super::origin::{Origin, Script};
use super::{client, h2c, until, within};

pub const TARGET: &str = "/stream/kpis?orgId=org_a";
pub const HEARTBEAT: &str = "event: heartbeat\ndata: {\"status\":\"ok\"}\n\n";
pub const BOTH: [Protocol; 2] = [Protocol::H1, Protocol::H2];

/// The origin's side of every stream that was opened, in order.
#[derive(Clone, Default)]
pub struct Feeds(Arc<Mutex<Vec<Feed>>>);

/// `None` once the stream was ended.
type Feed = Option<UnboundedSender<Vec<u8>>>;

impl Feeds {
    pub fn script(&self) -> Script {
        let (feed, events) = unbounded_channel();
        self.0.lock().unwrap().push(Some(feed));
        Script::Stream(events)
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Writes into one stream; nobody may be there any more.
    pub fn send(&self, index: usize, bytes: impl AsRef<[u8]>) {
        if let Some(feed) = &self.0.lock().unwrap()[index] {
            let _ = feed.send(bytes.as_ref().to_vec());
        }
    }

    /// Writes into every stream.
    pub fn send_all(&self, text: &str) {
        (0..self.count()).for_each(|index| self.send(index, text));
    }

    /// Ends one stream.
    pub fn end(&self, index: usize) {
        self.0.lock().unwrap()[index] = None;
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    H1,
    H2,
}

/// A client's side of one stream.
pub struct Events {
    pub head: client::Response,
    /// All that came so far.
    pub seen: String,
    body: Body,
}

enum Body {
    H1(client::Connection),
    H2 {
        events: RecvStream,
        request: SendStream<Bytes>,
        _connection: h2c::Connection,
    },
}

impl Events {
    pub async fn open(edge: &Edge, protocol: Protocol, headers: &[(&str, &str)]) -> Self {
        Self::open_at(edge, protocol, TARGET, headers).await
    }

    pub async fn open_at(
        edge: &Edge,
        protocol: Protocol,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        match protocol {
            Protocol::H1 => Self::over_h1(edge.connect().await, target, headers).await,
            Protocol::H2 => Self::over_h2(edge.connect_h2().await, target, headers).await,
        }
    }

    pub async fn over_h1(
        mut connection: client::Connection,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        let mut request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        connection.send(request.as_bytes()).await.unwrap();
        let head = within("the header", connection.head()).await.unwrap();
        Self {
            head,
            seen: String::new(),
            body: Body::H1(connection),
        }
    }

    pub async fn over_h2(
        connection: h2c::Connection,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        let (answer, request) = connection
            .start("GET", target, headers, true)
            .await
            .unwrap();
        let (parts, events) = within("the header", answer).await.unwrap().into_parts();
        let text = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
        let headers = parts.headers.iter();
        let head = client::Response {
            status: parts.status.as_u16(),
            headers: headers.map(|(n, v)| (n.to_string(), text(v))).collect(),
            body: Vec::new(),
        };
        let body = Body::H2 {
            events,
            request,
            _connection: connection,
        };
        Self {
            head,
            seen: String::new(),
            body,
        }
    }

    /// Takes the next piece in. `Some(true)` when the stream ended as it should, `Some(false)` when it
    /// broke off, `None` when it goes on.
    async fn advance(&mut self) -> Option<bool> {
        let piece = match &mut self.body {
            Body::H1(connection) => match connection.chunk().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Some(true),
                Err(_) => return Some(false),
            },
            Body::H2 { events, .. } => match events.data().await {
                Some(Ok(piece)) => {
                    let _ = events.flow_control().release_capacity(piece.len());
                    piece.to_vec()
                }
                Some(Err(_)) => return Some(false),
                None => return Some(true),
            },
        };
        self.seen.push_str(&String::from_utf8_lossy(&piece));
        None
    }

    /// Reads until all that came so far satisfies `enough`.
    pub async fn until(&mut self, what: &str, enough: impl Fn(&str) -> bool) {
        within(what, async {
            while !enough(&self.seen) {
                let ended = self.advance().await;
                assert_eq!(ended, None, "ended before {what:?}: {:?}", self.seen);
            }
        })
        .await;
    }

    /// Reads until this text came.
    pub async fn expect(&mut self, text: &str) {
        self.until(text, |seen| seen.contains(text)).await;
    }

    /// Reads to the end; whether it ended as it should.
    pub async fn finish(&mut self) -> bool {
        within("the end of the stream", async {
            loop {
                if let Some(clean) = self.advance().await {
                    return clean;
                }
            }
        })
        .await
    }

    /// Leaves with RST_STREAM and keeps the connection.
    pub fn reset(self) -> h2c::Connection {
        match self.body {
            Body::H2 {
                mut request,
                _connection,
                ..
            } => {
                request.send_reset(h2::Reason::CANCEL);
                _connection
            }
            Body::H1(_) => panic!("HTTP/1 has no RST_STREAM"),
        }
    }

    /// `reason` and `retry` of the edge's last word, if it said one.
    pub fn goodbye(&self) -> Option<(String, u64)> {
        let (_, close) = self.seen.rsplit_once("retry: ")?;
        let (retry, close) = close.split_once("\nevent: close\ndata: {\"reason\":\"")?;
        let reason = close.strip_suffix("\"}\n\n")?;
        Some((reason.to_owned(), retry.parse().ok()?))
    }
}

/// An issuer, an origin with feeds, and an edge before it.
pub struct Stage {
    pub issuer: TokenIssuer,
    pub origin: Origin,
    pub feeds: Feeds,
    pub edge: Edge,
}

impl Stage {
    /// `stream` are keys of the stream's table.
    pub async fn with(stream: &str) -> Self {
        Self::of(stream, "", Vec::new()).await
    }

    pub async fn of(stream: &str, extra: &str, replace: Vec<(&str, &str)>) -> Self {
        let feeds = Feeds::default();
        let feed = feeds.clone();
        Self::before(feeds, stream, extra, replace, move |_| feed.script()).await
    }

    /// An edge whose streams are answered by `script`. Other requests: `/open/slow` after half a
    /// second, `/open/hang` never, the rest at once.
    pub async fn before(
        feeds: Feeds,
        stream: &str,
        extra: &str,
        replace: Vec<(&str, &str)>,
        script: impl Fn(&super::origin::Seen) -> Script + Send + Sync + 'static,
    ) -> Self {
        let issuer = TokenIssuer::new();
        let origin = Origin::start(issuer.jwks(), move |seen| match seen.target.as_str() {
            "/open/slow" => Script::Late(Duration::from_millis(500)),
            "/open/hang" => Script::Hang,
            target if target.starts_with("/stream/") => script(seen),
            _ => Script::json("{\"ok\":true}"),
        })
        .await;
        let extra = format!(
            "[streams.live]\n{stream}\n[[routes]]\npath = \"/stream/kpis\"\n\
             org_query = \"orgId\"\nstream = \"live\"\nlimits = []\n{extra}"
        );
        let edge = Edge::start(Setup {
            origins: vec![origin.address],
            extra: &extra,
            replace,
        })
        .await;
        Self {
            issuer,
            origin,
            feeds,
            edge,
        }
    }

    /// `Authorization` of a member of `org_a`.
    pub fn bearer(&self, user: &str) -> String {
        format!("Bearer {}", self.issuer.token(user, &["org_a"], "ENT"))
    }

    /// An open stream, and its place among the feeds.
    pub async fn open(&self, protocol: Protocol, user: &str) -> (Events, usize) {
        let index = self.feeds.count();
        let token = self.bearer(user);
        let events = Events::open(&self.edge, protocol, &[("authorization", &token)]).await;
        assert_eq!(events.head.status, 200, "{:?}", events.head);
        (events, index)
    }

    /// Streams of this route that ended for this reason.
    pub async fn closed(&self, reason: &str) -> f64 {
        let labels = format!("{{reason=\"{reason}\",route=\"/stream/kpis\"}}");
        let series = format!("maitred_streams_closed_total{labels}");
        self.edge.metric(&series).await
    }

    /// Waits for a stream of this route to have ended for this reason.
    pub async fn until_closed(&self, reason: &str, times: f64) {
        until(reason, || async {
            (self.closed(reason).await >= times).then_some(())
        })
        .await;
    }

    /// Waits until no stream is open at the edge.
    pub async fn until_idle(&self) {
        let series = "maitred_streams_open{route=\"/stream/kpis\"}";
        until("no open stream", || async {
            (self.edge.metric(series).await == 0.0).then_some(())
        })
        .await;
    }
}
