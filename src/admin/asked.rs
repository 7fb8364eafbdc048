//! Reads a request's body: bounded in bytes and time, JSON with known fields only.

use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::answer::Problem;

/// Room for ten thousand ids.
pub(super) const BODY_BYTES_MAX: usize = 512 * 1024;
/// Whole time for it to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(5);

/// The body as `T`, or what is wrong with it.
pub(super) async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, Problem> {
    let whole = Limited::new(body, BODY_BYTES_MAX).collect();
    let bytes = match tokio::time::timeout(BODY_TIME_MAX, whole).await {
        Ok(Ok(whole)) => whole.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                format!("a body has at most {BODY_BYTES_MAX} bytes; use a filter instead of ids"),
            ));
        }
        Ok(Err(error)) => return Err(Problem::bad(format!("the body did not arrive: {error}"))),
        Err(_) => {
            return Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "too-slow",
                format!(
                    "the body did not arrive within {} s",
                    BODY_TIME_MAX.as_secs()
                ),
            ));
        }
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::bad(format!("the body is not what this path takes: {error}")))
}
