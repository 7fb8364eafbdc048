//! The routes of purchasing.

use std::sync::Arc;

use axum::{Router, extract::State, http::HeaderMap, response::Response, routing::post};

use crate::{
    app::App,
    auth::assertion::Caller,
    error::ApiResult,
    purchasing::{model::Receipt, service},
    router::{self, JsonBody},
};

const RECEIVE: &str = "/procurement/purchase-orders/receive";

pub(crate) fn private() -> Router<Arc<App>> {
    Router::new().route(RECEIVE, post(receive))
}

async fn receive(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> ApiResult<Response> {
    let key = router::idempotency_key(&headers, &caller, RECEIVE, &body)?;
    let receipt = Receipt::parse(&body)?;
    let kept = service::receive(&app, &caller, &receipt, key.as_ref()).await?;
    router::mutation(kept, &receipt.org_id)
}
