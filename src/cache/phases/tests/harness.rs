//! A proxy that does nothing but cache, a scripted origin and a client, over sockets.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use http::Method;
use pingora::apps::ServerApp;
use pingora::cache::key::HashBinary;
use pingora::cache::{CacheKey, CacheMeta, ForcedFreshness, HitHandler, RespCacheable};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::l4::stream::Stream;
use pingora::proxy::{ProxyHttp, Session, http_proxy};
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::cache::phases::{
    Cache, Change, cacheable, finish_header, may_fetch, outcome, should_serve_stale,
    upstream_response, vary,
};
use crate::cache::status::Outcome;
use crate::cache::{Bypass, ClientNoCache, Limits, Lookup, Policy, Question, Scope, consider, key};
use crate::kernel::clock::{Clock, UnixMs};
use crate::kernel::facts::{Facts, Protocol, Scheme};
use crate::kernel::id::Random;
use crate::kernel::principal::Principal;

pub(super) fn policy(scope: Scope) -> Policy {
    Policy {
        name: "overview".into(),
        ttl_s: 60,
        scope,
        query: None,
        stale_while_revalidate_s: 0,
        stale_if_error_s: 0,
        object_bytes_max: 100_000,
        client_no_cache: ClientNoCache::Ignore,
    }
}

/// The proxy: what the real one does for its cached routes, and no more. `x-org` names the caller's
/// organisations, the first of which the request is about.
struct Edge {
    cache: Cache,
    clock: Clock,
    policy: Arc<Policy>,
    origin: SocketAddr,
}

pub(super) struct Ctx {
    lookup: std::result::Result<Lookup, Bypass>,
    facts: Option<Facts>,
    principal: Option<Principal>,
    org: Option<String>,
}

impl Edge {
    fn admit(&self, session: &Session, ctx: &mut Ctx) {
        let request = session.req_header();
        let host = request.headers.get("host").unwrap().to_str().unwrap();
        let facts = Facts {
            request_id: Random::seeded(1).request_id(),
            method: request.method.clone(),
            scheme: Scheme::Https,
            protocol: Protocol::Http1,
            host: host.to_owned(),
            path: request.uri.path().to_owned(),
            query: request.uri.query().map(Into::into),
            client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            sni: None,
            content_length: None,
        };
        let orgs = request.headers.get("x-org").map(|v| v.to_str().unwrap());
        ctx.principal = orgs.map(|orgs| Principal {
            subject: format!("usr of {orgs}"),
            token_id: String::new(),
            orgs: orgs.split(',').map(|o| (o.into(), "m".into())).collect(),
            plan: "PRO".into(),
            scopes: Vec::new(),
            expires_at: UnixMs(i64::MAX),
        });
        ctx.org = orgs.and_then(|o| o.split(',').next()).map(Into::into);
        ctx.lookup = consider(&Question {
            policy: &self.policy,
            prefix: "test",
            request,
            facts: &facts,
            principal: ctx.principal.as_ref(),
            org: ctx.org.as_deref(),
        });
        ctx.facts = Some(facts);
    }
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx {
            lookup: Err(Bypass::Off),
            facts: None,
            principal: None,
            org: None,
        }
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        self.admit(session, ctx);
        Ok(false)
    }

    fn request_cache_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        if let Ok(lookup) = &ctx.lookup {
            self.cache.enable(&mut session.cache, lookup);
        }
        Ok(())
    }

    fn cache_key_callback(&self, _session: &Session, ctx: &mut Ctx) -> Result<CacheKey> {
        Ok(self.cache.key(ctx.lookup.as_ref().unwrap()))
    }

    async fn cache_hit_filter(
        &self,
        session: &mut Session,
        meta: &CacheMeta,
        handler: &mut HitHandler,
        _is_fresh: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<ForcedFreshness>> {
        let lookup = ctx.lookup.as_ref().unwrap();
        let now = self.clock.unix();
        Ok(self.cache.hit(&session.cache, meta, handler, lookup, now))
    }

    fn cache_vary_filter(
        &self,
        meta: &CacheMeta,
        _ctx: &mut Ctx,
        request: &RequestHeader,
    ) -> Option<HashBinary> {
        vary(meta, request)
    }

    async fn proxy_upstream_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let Ok(Err(reject)) = ctx.lookup.as_ref().map(may_fetch) else {
            return Ok(true);
        };
        session.respond_error(reject.status().as_u16()).await?;
        Ok(false)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Ctx) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.origin, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        self.cache.fetch_starts(&session.cache);
        if let Ok(lookup) = &ctx.lookup {
            let path = request.uri.path().to_owned();
            let query = lookup.key.query().map(|q| format!("?{q}"));
            let target = format!("{path}{}", query.unwrap_or_default());
            request.set_uri(target.parse().unwrap());
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let facts = ctx.facts.as_ref().unwrap();
        let change = Change {
            method: &facts.method,
            target: &key::target(&facts.host, &facts.path),
            principal: ctx.principal.as_ref(),
            org: ctx.org.as_deref(),
        };
        self.cache.changed(&change, response);
        if let Ok(lookup) = &mut ctx.lookup {
            upstream_response(lookup, response);
        }
        Ok(())
    }

    fn response_cache_filter(
        &self,
        _session: &Session,
        response: &ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<RespCacheable> {
        let lookup = ctx.lookup.as_ref().unwrap();
        Ok(cacheable(response, lookup, self.clock.unix()))
    }

    fn should_serve_stale(
        &self,
        session: &mut Session,
        _ctx: &mut Ctx,
        error: Option<&Error>,
    ) -> bool {
        should_serve_stale(session.req_header(), error)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let now = self.clock.unix();
        let outcome = match &ctx.lookup {
            Ok(_) => outcome(&session.cache, now),
            Err(bypass) => Outcome::Bypass(*bypass),
        };
        finish_header(outcome, &session.cache, response, now);
        Ok(())
    }
}

/// What the origin says to its n-th request.
pub(super) type Script = dyn Fn(usize, &str) -> Answer + Send + Sync;

/// One scripted response.
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    /// Sent only once this is true.
    pub(super) when: Option<watch::Receiver<bool>>,
}

pub(super) fn answer(status: u16, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let framing = match status {
        304 => String::new(),
        _ => format!("content-length: {length}\r\n"),
    };
    Answer {
        bytes: format!("HTTP/1.1 {status} X\r\n{framing}{headers}\r\n{body}").into_bytes(),
        when: None,
    }
}

/// A running edge with its origin.
pub(super) struct World {
    edge: SocketAddr,
    pub(super) cache: Cache,
    /// Request heads that the origin saw.
    seen: Arc<Mutex<Vec<String>>>,
    seen_count: watch::Receiver<usize>,
    // Connections end when it goes.
    _shutdown: watch::Sender<bool>,
}

impl World {
    pub(super) async fn new(
        policy: Policy,
        script: impl Fn(usize, &str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (seen_sender, seen_count) = watch::channel(0);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = listener.local_addr().unwrap();
        let script: Arc<Script> = Arc::new(script);
        tokio::spawn(serve_origin(
            listener,
            script,
            seen.clone(),
            Arc::new(seen_sender),
        ));
        let clock = Clock::system();
        let cache = Cache::leak(&Limits::default(), clock.clone());
        let edge = Edge {
            cache,
            clock,
            policy: Arc::new(policy),
            origin,
        };
        let (shutdown, watch) = watch::channel(false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Arc::new(http_proxy(&Arc::new(ServerConf::default()), edge));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (app, watch) = (app.clone(), watch.clone());
                tokio::spawn(async move {
                    app.process_new(Box::new(Stream::from(stream)), &watch)
                        .await;
                });
            }
        });
        Self {
            edge: address,
            cache,
            seen,
            seen_count,
            _shutdown: shutdown,
        }
    }

    pub(super) async fn get(&self, path: &str) -> Got {
        self.ask(&Method::GET, path, "").await
    }

    pub(super) async fn get_with(&self, path: &str, headers: &str) -> Got {
        self.ask(&Method::GET, path, headers).await
    }

    /// One request on its own connection.
    pub(super) async fn ask(&self, method: &Method, path: &str, headers: &str) -> Got {
        let mut stream = TcpStream::connect(self.edge).await.unwrap();
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        Got::parse(&bytes)
    }

    /// What the origin was asked so far.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until the origin has been asked so often.
    pub(super) async fn seen_at_least(&self, count: usize) {
        let mut seen = self.seen_count.clone();
        let waited = seen.wait_for(|seen| *seen >= count);
        let deadline = std::time::Duration::from_secs(10);
        let waited = tokio::time::timeout(deadline, waited).await;
        waited.expect("in time").expect("the origin runs");
    }

    /// Waits until `path` is answered so.
    pub(super) async fn until(&self, path: &str, x_cache: &str) -> Got {
        for _ in 0..500 {
            let got = self.get(path).await;
            if got.header("x-cache") == x_cache {
                return got;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("never {x_cache}");
    }
}

async fn serve_origin(
    listener: TcpListener,
    script: Arc<Script>,
    seen: Arc<Mutex<Vec<String>>>,
    count: Arc<watch::Sender<usize>>,
) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (script, seen, count) = (script.clone(), seen.clone(), count.clone());
        tokio::spawn(async move {
            while let Some(head) = read_head(&mut stream).await {
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(head.clone());
                    seen.len()
                };
                count.send_replace(number);
                let answer = script(number, &head);
                if let Some(mut when) = answer.when {
                    when.wait_for(|ready| *ready).await.unwrap();
                }
                stream.write_all(&answer.bytes).await.unwrap();
            }
        });
    }
}

/// A request's head; bodies are not expected.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(bytes).unwrap())
}

/// A response as the client got it.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: u16,
    headers: HashMap<String, String>,
    pub(super) body: String,
}

impl Got {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let mut headers = HashMap::new();
        for (name, value) in lines.filter_map(|l| l.split_once(": ")) {
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let chunked = headers
            .get("transfer-encoding")
            .is_some_and(|v| v == "chunked");
        let body = if chunked {
            dechunk(body)
        } else {
            body.to_owned()
        };
        Self {
            status: status.parse().unwrap(),
            headers,
            body,
        }
    }

    /// Empty where there is none.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v)
    }
}

fn dechunk(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body.push_str(&rest[..size]);
        text = &rest[(size + 2).min(rest.len())..];
    }
    body
}
