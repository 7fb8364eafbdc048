//! What is known of a request before any policy looks at it. Written once by `proxy/facts.rs`.

use std::net::IpAddr;

use http::Method;

use super::id::RequestId;

/// The protocol the client speaks to us, for logs and for what differs between versions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Whether the request came over TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    Http,
    Https,
}

/// Plain data about one request; every decision downstream uses these and not the raw request line.
#[derive(Clone, Debug)]
pub struct Facts {
    pub request_id: RequestId,
    pub method: Method,
    pub scheme: Scheme,
    pub protocol: Protocol,
    /// Lower-case host without port, as the client named it.
    pub host: String,
    /// Normalised path: the one that routes, keys caches and goes upstream.
    pub path: String,
    /// Raw query without `?`; `None` where there was none.
    pub query: Option<String>,
    /// The client's address after trusted hops were peeled off.
    pub client_ip: IpAddr,
    /// Server name from the TLS handshake.
    pub sni: Option<String>,
    /// Declared body length.
    pub content_length: Option<u64>,
}
