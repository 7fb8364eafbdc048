//! The routes of auth.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};

use crate::{
    app::App,
    auth::{
        assertion::Caller,
        keys,
        model::{self, Credentials, Registration},
        service::{self, TokenPair},
    },
    error::ApiResult,
    router::JsonBody,
};

/// How long the edge and others may keep the key set.
const JWKS_CACHE: &str = "public, max-age=300";

pub(crate) fn public() -> Router<Arc<App>> {
    Router::new()
        .route("/auth/register", post(register))
        .route("/auth/login", post(login))
        .route("/auth/refresh", post(refresh))
        .route("/.well-known/jwks.json", get(jwks))
}

pub(crate) fn private() -> Router<Arc<App>> {
    Router::new()
        .route("/auth/logout", post(logout))
        .route("/auth/me", get(me))
}

async fn register(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> ApiResult<Response> {
    let created = service::register(&app, Registration::parse(&body)?).await?;
    Ok((StatusCode::CREATED, Json(created)).into_response())
}

async fn login(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> ApiResult<Response> {
    Ok(tokens(
        &service::login(&app, Credentials::parse(&body)?).await?,
    ))
}

async fn refresh(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> ApiResult<Response> {
    Ok(tokens(
        &service::refresh(&app, model::refresh_token(&body)?).await?,
    ))
}

async fn logout(State(app): State<Arc<App>>, caller: Caller) -> ApiResult<StatusCode> {
    service::logout(&app, &caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn me(State(app): State<Arc<App>>, caller: Caller) -> ApiResult<Response> {
    Ok(Json(service::me(&app, &caller).await?).into_response())
}

async fn jwks(State(app): State<Arc<App>>) -> ApiResult<Response> {
    let keys = keys::published(&app.store).await?;
    let cache = [(header::CACHE_CONTROL, HeaderValue::from_static(JWKS_CACHE))];
    Ok((cache, Json(keys)).into_response())
}

fn tokens(pair: &TokenPair) -> Response {
    let cache = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (cache, Json(pair.json())).into_response()
}
