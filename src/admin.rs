//! The operator's window and tools: metrics, the state of every part, recent refusals, the inbox and
//! what can be done with it. Listens on an address of its own and is never reachable through the
//! public listeners. Decides what is served under which path; who may is `door`'s.
//!
//! Order of steps: `door` (token, Host, origin) → path and method → a handler below → headers that
//! keep browsers in check.
//!
//! Bounds: connections, time for a header and a body, bytes of a body, watchers, exports; a client
//! that reads nothing is cut.

mod answer;
mod asked;
mod door;
mod filter;
mod inbox;
mod live;
mod page;
mod query;
mod refusals;
mod shown;
mod stalled;
mod verbs;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};

use crate::kernel::clock::Clock;
use crate::kernel::secret::Secret;
use crate::telemetry::refusals::Entry;
use crate::webhook::inbox::Inbox;
use answer::{Answer, Problem};
use door::{Door, Kind, Who};
use live::Watch;
use verbs::Verb;

/// Connections served at once; one more waits.
const CONNECTIONS_MAX: usize = 64;
/// A client that does not finish its header in this time is cut.
const HEADER_TIME_MAX: Duration = Duration::from_secs(5);
/// So is one that takes nothing of an answer for this long.
const STALL_MAX: Duration = Duration::from_secs(30);

/// What `GET /` names, for programs.
const ENDPOINTS: [&str; 14] = [
    "/metrics",
    "/healthz",
    "/health/detailed",
    "/refusals",
    "/version",
    "/config",
    "/events",
    "/inbox",
    "/inbox/events",
    "/inbox/events/{id}",
    "/inbox/events/{id}/body",
    "/inbox/export",
    "/inbox/redeliver",
    "/inbox/discard",
];

/// What the window shows. `app` fills it in, so that this module knows no other part's insides.
pub struct View {
    /// `None` where the configuration switches metrics off.
    pub metrics: Box<dyn Fn() -> Option<String> + Send + Sync>,
    pub detail: Box<dyn Fn() -> Value + Send + Sync>,
    /// Newest first.
    pub refusals: Box<dyn Fn() -> Vec<Entry> + Send + Sync>,
    pub version: Box<dyn Fn() -> Value + Send + Sync>,
    pub config: Box<dyn Fn() -> Value + Send + Sync>,
    /// Webhooks since the start: objects with `endpoint`, `outcome` and `count`.
    pub webhooks: Box<dyn Fn() -> Value + Send + Sync>,
    /// `None` where no endpoint keeps its webhooks.
    pub inbox: Box<dyn Fn() -> Option<Inbox> + Send + Sync>,
    /// What opens the door, as the configuration has it now.
    pub token: Box<dyn Fn() -> Option<Secret> + Send + Sync>,
    pub clock: Clock,
}

/// Serves until the future is dropped.
pub async fn serve(address: SocketAddr, view: Arc<View>) -> std::io::Result<()> {
    serve_on(TcpListener::bind(address).await?, view).await
}

/// As [`serve`], on a listener that is bound already.
pub async fn serve_on(listener: TcpListener, view: Arc<View>) -> std::io::Result<()> {
    let desk = Arc::new(Desk {
        bound: listener.local_addr()?,
        view,
        watch: Watch::new(),
        exports: Arc::new(Semaphore::new(inbox::EXPORTS_MAX)),
        turn: Arc::new(Mutex::new(())),
    });
    tokio::select! {
        ended = accept(&listener, &desk) => ended,
        () = desk.watch.look(&desk.view) => Ok(()),
    }
}

/// What all connections share.
struct Desk {
    bound: SocketAddr,
    view: Arc<View>,
    watch: Watch,
    exports: Arc<Semaphore>,
    turn: verbs::Turn,
}

/// Who asks, for the log.
#[derive(Clone, Copy, Debug)]
struct Caller {
    who: Who,
    peer: SocketAddr,
}

async fn accept(listener: &TcpListener, desk: &Arc<Desk>) -> std::io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return Ok(());
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "admin listener could not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let desk = desk.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request| {
                let desk = desk.clone();
                async move { Ok::<_, Infallible>(desk.answer(request, peer).await) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME_MAX);
            let stream = TokioIo::new(stalled::Impatient::new(stream, STALL_MAX));
            if let Err(error) = http.serve_connection(stream, service).await {
                tracing::debug!(%error, "admin connection ended");
            }
        });
    }
}

impl Desk {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let (parts, body) = request.into_parts();
        let answered = match self.enter(&parts, peer) {
            Ok(caller) => self.route(&parts, body, caller).await,
            Err(problem) => Err(problem),
        };
        answer::guarded(answered.unwrap_or_else(Problem::into_answer))
    }

    fn enter(&self, parts: &Parts, peer: SocketAddr) -> Result<Caller, Problem> {
        let token = (self.view.token)();
        let door = Door {
            bound: self.bound,
            token: token.as_ref(),
        };
        let kind = match (parts.uri.path(), &parts.method) {
            ("/metrics" | "/healthz", _) => Kind::Open,
            (_, &Method::GET | &Method::HEAD) => Kind::Read,
            (_, _) => Kind::Change,
        };
        match door::enter(parts, kind, &door) {
            Ok(who) => Ok(Caller { who, peer }),
            Err(problem) => {
                tracing::info!(
                    admin.peer = %peer,
                    admin.problem = problem.slug,
                    http.method = %parts.method,
                    http.path = parts.uri.path(),
                    "the admin listener has refused a request"
                );
                Err(problem)
            }
        }
    }

    async fn route(
        &self,
        parts: &Parts,
        body: Incoming,
        caller: Caller,
    ) -> Result<Answer, Problem> {
        let (path, query) = (parts.uri.path(), parts.uri.query());
        let verb = match path {
            "/inbox/redeliver" => Some(Verb::Redeliver),
            "/inbox/discard" => Some(Verb::Discard),
            _ => None,
        };
        match (verb, &parts.method) {
            (Some(verb), &Method::POST) => self.change(verb, query, body, caller).await,
            (Some(_), _) => Err(Problem::method("POST")),
            (None, &Method::GET | &Method::HEAD) => self.read(path, query, parts).await,
            (None, _) => Err(Problem::method("GET, HEAD")),
        }
    }

    async fn change(
        &self,
        verb: Verb,
        query: Option<&str>,
        body: Incoming,
        caller: Caller,
    ) -> Result<Answer, Problem> {
        query::Query::parse(query, &[])?;
        let inbox = self.inbox()?;
        let request = asked::read(body).await?;
        let now = self.view.clock.unix();
        let done = verbs::run(verb, request, inbox, &self.turn, caller, now).await?;
        Ok(answer::json(&done))
    }

    async fn read(
        &self,
        path: &str,
        query: Option<&str>,
        parts: &Parts,
    ) -> Result<Answer, Problem> {
        let view = &self.view;
        match path {
            // Scrapers may say what they like.
            "/metrics" => {
                let text = (view.metrics)();
                let text = text.ok_or_else(|| Problem::not_found("telemetry.metrics is false"))?;
                Ok(answer::whole(
                    "text/plain; version=0.0.4; charset=utf-8",
                    text,
                ))
            }
            "/healthz" => Ok(answer::json(&json!({ "status": "ok" }))),
            "/" if door::wants_html(&parts.headers) => page::overview(view, query).await,
            "/inbox/export" => inbox::export(self.inbox()?, query, &self.exports),
            "/inbox/events" => inbox::list(&self.inbox()?, query).await,
            "/refusals" => {
                let picked = refusals::Asked::parse(query)?.pick((view.refusals)());
                let shown: Value = picked.iter().map(refusals::shown).collect();
                Ok(answer::json(&shown))
            }
            _ => {
                query::Query::parse(query, &[])?;
                self.plain(path, parts).await
            }
        }
    }

    /// Paths without a query.
    async fn plain(&self, path: &str, parts: &Parts) -> Result<Answer, Problem> {
        let view = &self.view;
        let json = |value: Value| Ok(answer::json(&value));
        match path {
            "/" => json(json!({ "endpoints": ENDPOINTS })),
            "/assets/page.css" => Ok(page::style()),
            "/assets/page.js" => Ok(page::script()),
            "/health/detailed" => json((view.detail)()),
            "/version" => json((view.version)()),
            "/config" => json((view.config)()),
            "/events" => self.watch.stream(),
            "/inbox" => json(inbox::stats(&self.inbox()?, view.clock.unix()).await?),
            _ => match path.strip_prefix("/inbox/events/") {
                Some(rest) => self.entry(rest, parts).await,
                None => Err(Problem::not_found(format!(
                    "nothing is served here; there is {}",
                    ENDPOINTS.join(", ")
                ))),
            },
        }
    }

    /// `{id}` or `{id}/body`.
    async fn entry(&self, rest: &str, parts: &Parts) -> Result<Answer, Problem> {
        let inbox = self.inbox()?;
        if let Some(id) = rest.strip_suffix("/body") {
            return inbox::body(&inbox, id).await;
        }
        let found = inbox::find(&inbox, rest).await?;
        Ok(match door::wants_html(&parts.headers) {
            true => page::entry(&self.view, &found),
            false => answer::json(&shown::whole(&found)),
        })
    }

    fn inbox(&self) -> Result<Inbox, Problem> {
        (self.view.inbox)().ok_or_else(inbox::absent)
    }
}
