//! The routes of the franchise pages. Both answers may be cached by the edge, per organisation, until
//! a mutation names their group.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{RawQuery, State},
    http::{HeaderName, HeaderValue},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{
    app::App,
    auth::assertion::Caller,
    error::ApiResult,
    franchise::{
        model::{OverviewQuery, RankingsQuery},
        service,
    },
    kernel::input::query_value,
};

const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");

pub(crate) fn private() -> Router<Arc<App>> {
    Router::new()
        .route("/franchise/overview", get(overview))
        .route("/franchise/rankings", get(rankings))
}

async fn overview(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    let query = OverviewQuery::parse(&query_value(query.as_deref()), app.clock.now().day())?;
    let body = service::overview(&app, &caller, &query).await?;
    Ok((
        [(CACHE_GROUPS, HeaderValue::from_static("\"overview\""))],
        Json(body),
    )
        .into_response())
}

async fn rankings(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    let query = RankingsQuery::parse(&query_value(query.as_deref()), app.clock.now().day())?;
    let body = service::rankings(&app, &caller, &query).await?;
    Ok((
        [(CACHE_GROUPS, HeaderValue::from_static("\"rankings\""))],
        Json(body),
    )
        .into_response())
}
