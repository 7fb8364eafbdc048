//! The route the edge delivers to.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::header,
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::json;

use crate::{
    app::App,
    error::{ApiError, ApiResult},
    inbound::{model::Refusal, service},
    kernel::id,
    router,
};

pub(crate) const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

pub(crate) fn signed() -> Router<Arc<App>> {
    Router::new()
        .route("/internal/webhooks/{endpoint}", post(take))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

async fn take(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    request: Request,
) -> ApiResult<Response> {
    if !id::plausible(&endpoint) {
        return Err(ApiError::NotFound { what: "endpoint" });
    }
    let (parts, body) = request.into_parts();
    let body = router::read_whole(body, BODY_BYTES_MAX).await?;
    let delivery = app
        .delivery_key
        .verify(&parts.headers, &body, app.clock.now())
        .map_err(unauthenticated)?;
    let content_type = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let outcome = service::take(&app, &endpoint, &delivery, content_type, &body).await?;
    app.metrics
        .webhooks
        .with_label_values(&[outcome.as_str()])
        .inc();
    Ok(Json(json!({ "status": outcome.as_str() })).into_response())
}

fn unauthenticated(refusal: Refusal) -> ApiError {
    let (code, detail) = match refusal {
        Refusal::Expired => (
            "signature_expired",
            "the delivery's timestamp is out of tolerance",
        ),
        Refusal::Incomplete => ("signature_missing", "the delivery's headers are incomplete"),
        Refusal::Signature => ("signature_invalid", "the delivery's signature is wrong"),
    };
    ApiError::Unauthenticated { code, detail }
}
