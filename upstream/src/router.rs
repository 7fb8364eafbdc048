//! All routes, in four rooms by who may enter: anyone, an asserted caller, a signed delivery, the
//! edge itself. A context adds its routes to a room; it cannot forget the room's door.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{FromRequest, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::{
    app::App,
    auth::{
        self,
        assertion::{self, Caller},
    },
    error::{ApiError, ApiResult},
    event::FIGURES_GROUPS,
    franchise, health, inbound,
    kernel::input::Fault,
    orders, purchasing,
    store::idempotency::{KEY_CHARS_MAX, Kept, Key},
    stream,
};

const BODY_BYTES_MAX: usize = 256 * 1024;
/// Above the statement time-out, so that the database gives up first and says why.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(35);
const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");
const IDEMPOTENCY_KEY: &str = "idempotency-key";

pub(crate) fn build(app: &Arc<App>) -> Router {
    let public = health::public().merge(auth::http::public());
    let private = auth::http::private()
        .merge(franchise::http::private())
        .merge(orders::http::private())
        .merge(purchasing::http::private());
    let asserted = || from_fn_with_state(Arc::clone(app), assertion::require);
    let timed = public
        .merge(private.route_layer(asserted()))
        .merge(inbound::http::signed())
        .layer(from_fn(in_time));
    let streams = stream::http::private().route_layer(asserted()).merge(
        stream::http::edge()
            .route_layer(from_fn_with_state(Arc::clone(app), assertion::require_edge)),
    );
    timed
        .merge(streams)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(Arc::clone(app), observe))
        .with_state(Arc::clone(app))
}

/// A JSON object, whatever its content type says, in a body of bounded size.
pub(crate) struct JsonBody(pub Value);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> ApiResult<Self> {
        let bytes = read_whole(request.into_body(), BODY_BYTES_MAX).await?;
        match serde_json::from_slice(&bytes) {
            Ok(value @ Value::Object(_)) => Ok(Self(value)),
            Ok(_) | Err(_) => Err(ApiError::BodyNotJson),
        }
    }
}

pub(crate) async fn read_whole(body: Body, bytes_max: usize) -> ApiResult<Bytes> {
    axum::body::to_bytes(body, bytes_max)
        .await
        .map_err(|error| {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            // The crate that limits does not export its error through axum; its text is stable.
            if cause.to_string() == "length limit exceeded" {
                ApiError::BodyTooLarge
            } else {
                ApiError::BodyUnreadable
            }
        })
}

pub(crate) fn idempotency_key(
    headers: &HeaderMap,
    caller: &Caller,
    operation: &'static str,
    body: &Value,
) -> ApiResult<Option<Key>> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= KEY_CHARS_MAX => {
            Ok(Some(Key::new(&caller.user_id, operation, key, body)))
        }
        Ok(_) | Err(_) => {
            let message = format!("must be 1 to {KEY_CHARS_MAX} visible characters");
            Err(vec![Fault {
                field: "Idempotency-Key".to_owned(),
                message,
            }]
            .into())
        }
    }
}

/// The answer to a mutation that changes what `overview` and `rankings` show.
pub(crate) fn mutation(kept: Kept, org_id: &str) -> ApiResult<Response> {
    let status = StatusCode::from_u16(kept.status).map_err(anyhow::Error::new)?;
    let labels = FIGURES_GROUPS.map(|group| format!("\"{group}\";org=\"{org_id}\""));
    let labels = HeaderValue::try_from(labels.join(", ")).map_err(anyhow::Error::new)?;
    let json = HeaderValue::from_static("application/json");
    let headers = [
        (CACHE_GROUP_INVALIDATION, labels),
        (header::CONTENT_TYPE, json),
    ];
    Ok((status, headers, kept.body).into_response())
}

async fn in_time(request: Request, next: Next) -> Response {
    match timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::Unavailable {
            detail: "the request took too long; try again",
        }
        .into_response(),
    }
}

async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let method = request.method().clone();
    let started = Instant::now();
    let response = next.run(request).await;
    let elapsed = started.elapsed();
    let status = response.status();
    // Only methods that a route knows become a label.
    let label = if status == StatusCode::METHOD_NOT_ALLOWED || route == "none" {
        "other"
    } else {
        method.as_str()
    };
    app.metrics
        .requests
        .with_label_values(&[label, route.as_str(), status.as_str()])
        .inc();
    app.metrics
        .request_seconds
        .with_label_values(&[&route])
        .observe(elapsed.as_secs_f64());
    tracing::debug!(
        http.method = %method,
        http.route = route,
        http.status = status.as_u16(),
        elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        "answered"
    );
    response
}

async fn no_route() -> ApiError {
    ApiError::NotFound { what: "route" }
}

async fn no_method() -> ApiError {
    ApiError::MethodNotAllowed
}
