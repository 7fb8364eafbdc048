//! Reads a request body whole, within a byte limit and a total deadline. The bytes are handed on
//! exactly as they arrived.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::proxy::Session;

use crate::kernel::reject::{Code, Reject};

/// How much of a refused body is read away, so that the client sees the answer and not a reset.
const DRAIN_BYTES_MAX: usize = 4 * 1024 * 1024;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

/// The body's limits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bytes_max: usize,
    /// For the whole body; a client that drips does not extend it.
    pub within: Duration,
}

/// A declared length that is already too large is refused before the client is told to go on.
pub fn check_declared(length: Option<u64>, bytes_max: usize) -> Result<(), Reject> {
    match length {
        Some(length) if length > bytes_max as u64 => Err(too_large(bytes_max)),
        Some(_) | None => Ok(()),
    }
}

/// Reads the body to its end.
pub async fn read_whole(
    session: &mut Session,
    limits: Limits,
    declared: Option<u64>,
) -> Result<Bytes, Reject> {
    check_declared(declared, limits.bytes_max)?;
    let read = read(session, limits.bytes_max, declared);
    match tokio::time::timeout(limits.within, read).await {
        Ok(result) => result,
        Err(_) => Err(too_slow(limits.within)),
    }
}

/// Reads what is left of a refused body, within bounds, so that an HTTP/2 client does not lose the
/// answer to a reset of its stream.
pub async fn drain(session: &mut Session) {
    let read = async {
        let mut left = DRAIN_BYTES_MAX;
        while let Ok(Some(chunk)) = session.downstream_session.read_request_body().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    // Running out of time is as good as running out of bytes: the answer has been sent.
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, read).await;
}

/// 413.
pub fn too_large(bytes_max: usize) -> Reject {
    let reason = format!("the body passed the limit of {bytes_max} bytes");
    Reject::new(Code::PayloadTooLarge, "body_size", reason)
}

/// 408.
pub fn too_slow(within: Duration) -> Reject {
    let reason = format!("the body was not complete after {} ms", within.as_millis());
    Reject::new(Code::RequestTimeout, "body_time", reason)
}

async fn read(
    session: &mut Session,
    bytes_max: usize,
    declared: Option<u64>,
) -> Result<Bytes, Reject> {
    let broken = |error: Box<pingora::Error>| {
        Reject::new(
            Code::BadRequest,
            "body",
            format!("the body broke off: {error}"),
        )
    };
    continue_if_asked(session).await.map_err(broken)?;
    let expected = usize::try_from(declared.unwrap_or(0)).unwrap_or(0);
    let mut body = BytesMut::with_capacity(expected.min(bytes_max));
    while let Some(chunk) = session
        .downstream_session
        .read_request_body()
        .await
        .map_err(broken)?
    {
        if body.len() + chunk.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Pingora relays an upstream's 100; where the edge reads the body itself it must send its own.
async fn continue_if_asked(session: &mut Session) -> pingora::Result<()> {
    let asked = session
        .req_header()
        .headers
        .contains_key(http::header::EXPECT);
    if asked && !session.downstream_session.is_http2() {
        session.downstream_session.write_continue_response().await?;
    }
    Ok(())
}
