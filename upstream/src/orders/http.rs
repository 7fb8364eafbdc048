//! The routes of orders.

use std::sync::Arc;

use axum::{Router, extract::State, http::HeaderMap, response::Response, routing::post};

use crate::{
    app::App,
    auth::assertion::Caller,
    error::ApiResult,
    orders::{model::NewOrder, service},
    router::{self, JsonBody},
};

pub(crate) fn private() -> Router<Arc<App>> {
    Router::new().route("/orders", post(close))
}

async fn close(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> ApiResult<Response> {
    let key = router::idempotency_key(&headers, &caller, "POST /orders", &body)?;
    let order = NewOrder::parse(&body)?;
    let kept = service::close(&app, &caller, &order, key.as_ref()).await?;
    router::mutation(kept, &order.org_id)
}
