//! Decides which connections are accepted and for how long they may stay silent: binding, TLS,
//! certificates, PROXY protocol, caps and deadlines. Knows sockets; does not know requests.

pub mod accept;
pub mod cert;
pub mod guarded;
pub mod proxy_protocol;
pub mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;

/// One public listener.
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
