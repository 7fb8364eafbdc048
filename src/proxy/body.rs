//! Reads a request body whole, within a byte limit and a total deadline. The bytes are handed on
//! exactly as they arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::proxy::Session;

use super::forward;
use crate::kernel::reject::{Code, Reject};

/// How much of a refused body is read away, so that the client sees the answer and not a reset.
const DRAIN_BYTES_MAX: usize = 4 * 1024 * 1024;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

/// Memory taken for a declared length before its bytes are there.
const AHEAD_BYTES_MAX: usize = 16 * 1024;
/// Bodies held by all requests together. They are read before anything about their sender is proven.
const HELD_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What the process has left for bodies that are held whole.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<AtomicUsize>);

/// One body's share of it, given back when dropped.
#[derive(Debug)]
pub struct Held {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// Bytes held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn hold(&self) -> Held {
        Held {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

impl Held {
    fn grow(&mut self, bytes: usize) -> Result<(), Reject> {
        self.bytes += bytes;
        let before = self.budget.0.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes <= HELD_BYTES_MAX {
            return Ok(());
        }
        let reason = format!("{HELD_BYTES_MAX} bytes of bodies are held already");
        Err(Reject::new(Code::Overloaded, "body_budget", reason).retry_after(1))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

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
    budget: &Budget,
) -> Result<(Bytes, Held), Reject> {
    check_declared(declared, limits.bytes_max)?;
    let read = read(session, limits.bytes_max, declared, budget.hold());
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
    mut held: Held,
) -> Result<(Bytes, Held), Reject> {
    let broken = |error: Box<pingora::Error>| {
        Reject::new(
            Code::BadRequest,
            "body",
            format!("the body broke off: {}", forward::describe(&error)),
        )
    };
    continue_if_asked(session).await.map_err(broken)?;
    let expected = usize::try_from(declared.unwrap_or(0)).unwrap_or(0);
    // A length is a promise: memory is taken as the bytes come.
    let mut body = BytesMut::with_capacity(expected.min(AHEAD_BYTES_MAX));
    while let Some(chunk) = session
        .downstream_session
        .read_request_body()
        .await
        .map_err(broken)?
    {
        if body.len() + chunk.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        held.grow(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    Ok((body.freeze(), held))
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

#[cfg(test)]
mod tests {
    use super::{Budget, HELD_BYTES_MAX};
    use crate::kernel::reject::Code;

    #[test]
    fn bodies_share_one_budget_and_give_it_back() {
        let budget = Budget::default();
        let (mut first, mut second) = (budget.hold(), budget.hold());
        assert!(first.grow(HELD_BYTES_MAX).is_ok());
        assert_eq!(second.grow(1).unwrap_err().code, Code::Overloaded);
        drop(first);
        assert!(second.grow(1).is_ok());
        drop(second);
        assert_eq!(budget.held(), 0);
    }
}
