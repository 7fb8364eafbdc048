//! The TLS side of a listener: versions, ALPN, tickets and the running certificates. Decides what a
//! handshake may agree on; reading certificates from files is `cert`'s part.
//!
//! Invariant: the ticket keys outlive every reload, so clients resume across it; open connections
//! keep the configuration they started with.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerConfig};
use rustls::version::{TLS12, TLS13};
use rustls::{ProtocolVersion, ServerConnection, SupportedProtocolVersion};

use super::cert::{CertError, CertStore, SniResolver};
use super::guarded::TlsInfo;
use super::{TlsPolicy, TlsVersion};

const ALPN_H2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// The running TLS configuration of a listener; swapped whole.
#[derive(Debug)]
pub struct Tls {
    config: ArcSwap<ServerConfig>,
    certificates: Arc<ArcSwap<CertStore>>,
    tickets: Arc<dyn ProducesTickets>,
}

impl Tls {
    /// Loads the certificates and makes the first configuration.
    pub fn new(policy: &TlsPolicy) -> Result<Arc<Self>, CertError> {
        let certificates = Arc::new(ArcSwap::from_pointee(CertStore::load(policy)?));
        let tickets = ring::Ticketer::new().map_err(CertError::provider)?;
        let config = build(policy.min_version, &certificates, &tickets)?;
        Ok(Arc::new(Self {
            config: ArcSwap::from_pointee(config),
            certificates,
            tickets,
        }))
    }

    /// Loads everything anew and swaps it in; after an error the old one stays as it was.
    pub fn reload(&self, policy: &TlsPolicy) -> Result<(), CertError> {
        let store = CertStore::load(policy)?;
        let config = build(policy.min_version, &self.certificates, &self.tickets)?;
        self.certificates.store(Arc::new(store));
        self.config.store(Arc::new(config));
        Ok(())
    }

    /// The certificates that are served now.
    #[must_use]
    pub fn certificates(&self) -> Arc<CertStore> {
        self.certificates.load_full()
    }

    /// The configuration for the next handshake.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

fn build(
    min_version: TlsVersion,
    certificates: &Arc<ArcSwap<CertStore>>,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, CertError> {
    const FROM_12: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
    const FROM_13: &[&SupportedProtocolVersion] = &[&TLS13];
    let versions = match min_version {
        TlsVersion::Tls12 => FROM_12,
        TlsVersion::Tls13 => FROM_13,
    };
    // The provider is named, because a process-wide default is whatever was installed first.
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .map_err(CertError::provider)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SniResolver(certificates.clone())));
    config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
    config.ticketer = tickets.clone();
    // Tickets hold the state, at the client; a store here would be bounded memory for nothing.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// What a finished handshake agreed on.
#[must_use]
pub fn info(session: &ServerConnection) -> TlsInfo {
    let alpn = match session.alpn_protocol() {
        Some(ALPN_H2) => Some("h2"),
        Some(ALPN_HTTP1) => Some("http/1.1"),
        Some(_) | None => None,
    };
    let suite = session.negotiated_cipher_suite();
    let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    TlsInfo {
        sni: session.server_name().map(str::to_ascii_lowercase),
        version: version_name(session.protocol_version()),
        cipher: suite
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or_default(),
        alpn,
        resumed,
    }
}

fn version_name(version: Option<ProtocolVersion>) -> &'static str {
    if version == Some(ProtocolVersion::TLSv1_3) {
        "TLSv1.3"
    } else if version == Some(ProtocolVersion::TLSv1_2) {
        "TLSv1.2"
    } else {
        ""
    }
}
