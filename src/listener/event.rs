//! What a listener tells whoever counts: connections opened, closed and refused. Decides nothing;
//! scanners cause most of it, so it goes to counters and the debug log, never to the error log.

use std::sync::Arc;

/// Receives every [`Event`]; called on the connection's own task, so it must not block.
pub type Observer = Arc<dyn Fn(Event) + Send + Sync>;

/// One thing that happened to a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// Counted against the caps.
    Opened,
    /// No longer counted.
    Closed,
    /// Ended by the listener and not by the client or the application.
    Refused(Refusal),
}

/// Why a listener ended a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The process has as many connections as it may.
    ConnectionsMax,
    /// The client's address has as many connections as it may.
    PerIpMax,
    /// A PROXY header was due and did not come, or was malformed.
    ProxyHeader,
    /// The TLS handshake failed.
    Handshake,
    /// PROXY header and TLS handshake took too long.
    HandshakeTimeout,
    /// A request header, or the HTTP/2 preface, took too long.
    HeaderTimeout,
    /// More bytes than a request header may have.
    HeaderBytes,
    /// The system gave no connection (descriptors or memory used up).
    AcceptFailed,
}

impl Refusal {
    /// Every reason, for the registration of counters.
    pub const ALL: [Self; 8] = [
        Self::ConnectionsMax,
        Self::PerIpMax,
        Self::ProxyHeader,
        Self::Handshake,
        Self::HandshakeTimeout,
        Self::HeaderTimeout,
        Self::HeaderBytes,
        Self::AcceptFailed,
    ];

    /// The metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ConnectionsMax => "connections_max",
            Self::PerIpMax => "per_ip_max",
            Self::ProxyHeader => "proxy_header",
            Self::Handshake => "handshake",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HeaderTimeout => "header_timeout",
            Self::HeaderBytes => "header_bytes",
            Self::AcceptFailed => "accept_failed",
        }
    }
}

/// Counts nothing.
#[must_use]
pub fn unobserved() -> Observer {
    Arc::new(|_| {})
}
