//! An answer that the edge gives by itself.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};

/// A complete response with a small body.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

impl Reply {
    /// A response without a body.
    #[must_use]
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// A JSON response.
    #[must_use]
    pub fn json(status: StatusCode, value: &serde_json::Value) -> Self {
        let json = HeaderValue::from_static("application/json");
        Self {
            status,
            headers: vec![(CONTENT_TYPE, json)],
            body: value.to_string().into(),
        }
    }

    /// The same reply with one more header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}
