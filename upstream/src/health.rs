//! Whether this process lives, whether it can serve, what it is and what it counts.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

use crate::{
    app::App,
    error::{ApiError, ApiResult},
    store::Engine,
};

pub(crate) fn public() -> Router<Arc<App>> {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
}

async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn ready(State(app): State<Arc<App>>) -> ApiResult<Json<Value>> {
    if *app.stop.borrow() {
        return Err(ApiError::Unavailable {
            detail: "shutting down",
        });
    }
    if let Err(error) = app.store.ping().await {
        tracing::warn!(error.cause = %error, "not ready: the database does not answer");
        return Err(ApiError::Unavailable {
            detail: "the database does not answer",
        });
    }
    Ok(Json(json!({ "status": "ready" })))
}

async fn version(State(app): State<Arc<App>>) -> Json<Value> {
    let database = match app.store.engine() {
        Engine::Postgres => "postgres",
        Engine::Sqlite => "sqlite",
    };
    Json(json!({
        "name": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
        "database": database,
    }))
}

async fn metrics(State(app): State<Arc<App>>) -> ApiResult<Response> {
    let text = app.metrics.render(app.streams_open())?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
