//! The operator's window: metrics, the state of every part, the recent refusals. Listens on an address
//! of its own and is never reachable through the public listeners.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::kernel::reply::Reply;

/// Connections served at once; one more waits.
const CONNECTIONS_MAX: usize = 64;
/// A client that does not finish its header in this time is cut.
const HEADER_TIME_MAX: Duration = Duration::from_secs(5);

/// What the window shows. `app` fills it in, so that this module knows no other part's insides.
pub struct View {
    /// `None` where the configuration switches metrics off.
    pub metrics: Box<dyn Fn() -> Option<String> + Send + Sync>,
    pub detail: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    pub refusals: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    pub version: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    pub config: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
}

/// Serves until the future is dropped.
pub async fn serve(address: SocketAddr, view: Arc<View>) -> std::io::Result<()> {
    serve_on(TcpListener::bind(address).await?, view).await
}

/// As [`serve`], on a listener that is bound already.
pub async fn serve_on(listener: TcpListener, view: Arc<View>) -> std::io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return Ok(());
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin listener could not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let view = view.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request| {
                let view = view.clone();
                async move { Ok::<_, Infallible>(into_response(answer(&request, &view))) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME_MAX);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "admin connection ended");
            }
        });
    }
}

fn answer(request: &Request<Incoming>, view: &View) -> Reply {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Reply::empty(StatusCode::METHOD_NOT_ALLOWED)
            .with(http::header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    let json = |value: serde_json::Value| Reply::json(StatusCode::OK, &value);
    match request.uri().path() {
        "/metrics" => (view.metrics)().map_or(Reply::empty(StatusCode::NOT_FOUND), metrics_reply),
        "/healthz" => json(serde_json::json!({ "status": "ok" })),
        "/health/detailed" => json((view.detail)()),
        "/refusals" => json((view.refusals)()),
        "/version" => json((view.version)()),
        "/config" => json((view.config)()),
        "/" => json(serde_json::json!({
            "endpoints": ["/metrics", "/healthz", "/health/detailed", "/refusals", "/version", "/config"],
        })),
        _ => Reply::empty(StatusCode::NOT_FOUND),
    }
}

fn metrics_reply(text: String) -> Reply {
    let mut reply = Reply::empty(StatusCode::OK).with(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    reply.body = text.into();
    reply
}

fn into_response(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    response.headers_mut().extend(reply.headers);
    response
}
