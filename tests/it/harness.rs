//! What the integration tests share: a real edge process, a scripted origin that records every byte,
//! clients that speak HTTP/1 byte by byte and HTTP/2, keys and tokens. No sleeps: waits are on
//! conditions with a deadline.

pub mod client;
pub mod demo;
pub mod edge;
pub mod either;
pub mod frames;
pub mod h2c;
pub mod hook;
pub mod keys;
pub mod load;
pub mod origin;
pub mod redis;
pub mod stream;

use std::future::Future;
use std::time::Duration;

/// Longest wait for a condition. Generous, because the machine may be busy; never waited out when
/// things work.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `condition` gives something.
pub async fn until<T, F, Fut>(what: &str, mut condition: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < end, "gave up waiting: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// `future` within the deadline.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("gave up waiting: {what}"),
    }
}
