//! One client for tests that must hold over both protocols.

use super::client::{self, Response};
use super::edge::Edge;
use super::{h2c, within};

/// What the client speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Speaks {
    Http1,
    Http2,
}

pub const BOTH: [Speaks; 2] = [Speaks::Http1, Speaks::Http2];

/// A connection of either kind.
pub enum Client {
    Http1(client::Connection),
    Http2(h2c::Connection),
}

impl Client {
    pub async fn open(edge: &Edge, speaks: Speaks) -> Self {
        match speaks {
            Speaks::Http1 => Self::Http1(edge.connect().await),
            Speaks::Http2 => Self::Http2(edge.connect_h2().await),
        }
    }

    /// A whole exchange; the error says that the response broke off.
    pub async fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, String> {
        match self {
            Self::Http1(connection) => {
                let answer = connection.request(method, target, headers, body);
                within("answer", answer).await.map_err(|e| e.to_string())
            }
            Self::Http2(connection) => {
                let answer = connection.request(method, target, headers, body);
                within("answer", answer).await.map_err(|e| e.to_string())
            }
        }
    }

    pub async fn get(&mut self, target: &str, headers: &[(&str, &str)]) -> Response {
        self.request("GET", target, headers, b"").await.unwrap()
    }
}
