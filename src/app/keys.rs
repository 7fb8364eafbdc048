//! Fetches issuers' keys: from a path on one of our pools, or from a URL.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::auth::KeysFrom;
use crate::auth::jwks::{FetchError, JWKS_BYTES_MAX, KeyFetch};
use crate::egress;
use crate::upstream::pool::Pool;

const WITHIN: Duration = Duration::from_secs(4);

/// Knows where the pools are.
pub(super) struct Fetcher {
    pub(super) pools: HashMap<Arc<str>, Arc<Pool>>,
}

#[async_trait]
impl KeyFetch for Fetcher {
    async fn fetch(&self, from: &KeysFrom) -> Result<Bytes, FetchError> {
        let failed = |e: &dyn std::fmt::Display| FetchError(e.to_string());
        match from {
            KeysFrom::Url(url) => egress::get(url, JWKS_BYTES_MAX, WITHIN)
                .await
                .map_err(|e| failed(&e)),
            KeysFrom::Upstream { pool, path } => {
                let pool = self
                    .pools
                    .get(pool)
                    .ok_or_else(|| FetchError("no such pool".into()))?;
                fetch_from(pool, path).await
            }
        }
    }
}

/// Asks one endpoint after the other: breaker and health are for requests, and without keys there
/// are none.
async fn fetch_from(pool: &Pool, path: &str) -> Result<Bytes, FetchError> {
    let mut last = FetchError("the pool has no endpoints".into());
    for endpoint in pool.endpoints().iter() {
        let request = Request::get(path)
            .body(Full::default())
            .map_err(|e| FetchError(e.to_string()))?;
        match endpoint.client().send(request, WITHIN).await {
            Ok(response) if response.status().is_success() => {
                let body = egress::read_whole(response.into_body(), JWKS_BYTES_MAX, WITHIN).await;
                return body.map_err(|e| FetchError(e.to_string()));
            }
            Ok(response) => last = FetchError(format!("{} on {path}", response.status())),
            Err(error) => last = FetchError(error.to_string()),
        }
    }
    Err(last)
}
