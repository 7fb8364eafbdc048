//! Decides which connections are accepted and for how long they may stay silent: binding, TLS,
//! certificates, PROXY protocol, caps and deadlines. Knows sockets; does not know requests.
//!
//! Order of steps: [`handover`] binds or inherits the socket; [`accept`] takes a connection, applies
//! the caps, reads the PROXY header ([`proxy_protocol`]) and makes the handshake ([`tls`], with the
//! certificates of [`cert`]), all within one deadline; [`guarded`] watches the request header from
//! then on; [`drain`] says when all of it ends.

pub mod accept;
pub mod cert;
pub mod clients;
pub mod drain;
pub mod event;
pub mod guarded;
pub mod handover;
pub mod proxy_protocol;
pub mod tls;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;

/// One public listener. All but `address` may change while it runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    pub address: SocketAddr,
    /// Peers that must speak the PROXY protocol (v1 or v2) first; everybody else must not.
    pub proxy_protocol_from: Vec<ipnet::IpNet>,
    pub connections_max: usize,
    pub connections_per_ip_max: usize,
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout_ms: u64,
    /// From the first moment a request may come to the end of its header; also for the HTTP/2
    /// preface.
    pub header_timeout_ms: u64,
    /// How long a kept-alive connection may wait for its next request.
    pub keepalive_timeout_ms: u64,
}

/// TLS of the https listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsPolicy {
    /// The first one answers where no name matches.
    pub certificates: Vec<CertificateFiles>,
    pub min_version: TlsVersion,
}

/// A chain and its key, both PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateFiles {
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// Lowest protocol version spoken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}
