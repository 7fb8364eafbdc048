//! One connection: TCP or a Unix socket, TLS where it is asked for, login. Decides nothing about what
//! is sent over it.
//!
//! TLS is a stream of our own under the client, so that the provider (ring) and the authorities are
//! named here and not by what a dependency finds installed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, RedisConnectionInfo};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::{Address, RedisError, Settings, TlsSettings};

/// Bytes and requests that may wait to be written.
const PIPELINE_MAX: usize = 1_024;

/// Makes connections to one server.
pub(super) struct Dialer {
    address: Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    login: RedisConnectionInfo,
}

/// An open connection; closed when dropped.
pub(super) struct Link {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
}

impl Link {
    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Dialer {
    pub(super) fn new(settings: &Settings) -> Result<Self, RedisError> {
        let mut login = RedisConnectionInfo::default().set_db(i64::from(settings.db));
        if let Some(username) = &settings.username {
            login = login.set_username(username);
        }
        if let Some(password) = &settings.password {
            let password = std::str::from_utf8(password.expose())
                .map_err(|_| RedisError::Settings("the password is not text".into()))?;
            login = login.set_password(password);
        }
        let tls = match (&settings.tls, &settings.address) {
            (None, _) => None,
            (Some(_), Address::Unix(_)) => {
                let why = "TLS over a Unix socket is not supported";
                return Err(RedisError::Settings(why.into()));
            }
            (Some(tls), Address::Tcp { host, .. }) => {
                let name = ServerName::try_from(host.clone()).map_err(|_| {
                    RedisError::Settings(format!("`{host}` is no name a certificate can have"))
                })?;
                Some((TlsConnector::from(Arc::new(client_config(tls)?)), name))
            }
        };
        Ok(Self {
            address: settings.address.clone(),
            tls,
            login,
        })
    }

    /// Connects and logs in. `ended` is told when the connection ends by itself.
    pub(super) async fn connect(&self, ended: &Arc<Notify>) -> Result<Link, RedisError> {
        match &self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|e| away(&path.display().to_string(), &e))?;
                self.login(stream, ended).await
            }
            Address::Tcp { host, port } => {
                let at = format!("{host}:{port}");
                let stream = TcpStream::connect((host.as_str(), *port)).await;
                let stream = stream.map_err(|e| away(&at, &e))?;
                prepare(&stream).map_err(|e| away(&at, &e))?;
                match &self.tls {
                    None => self.login(stream, ended).await,
                    Some((connector, name)) => {
                        let stream = connector.connect(name.clone(), stream).await;
                        let stream = stream.map_err(|e| away(&at, &e))?;
                        self.login(stream, ended).await
                    }
                }
            }
        }
    }

    async fn login<S>(&self, stream: S, ended: &Arc<Notify>) -> Result<Link, RedisError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Time-outs are the caller's: one clock for the whole call, not one for each step of it.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE_MAX);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&self.login, stream, config)
                .await
                .map_err(|e| RedisError::Away(format!("login: {e}")))?;
        let ended = ended.clone();
        let driver = tokio::spawn(async move {
            driver.await;
            ended.notify_one();
        });
        Ok(Link { connection, driver })
    }
}

fn away(at: &str, error: &std::io::Error) -> RedisError {
    RedisError::Away(format!("{at}: {error}"))
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let probes = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    socket2::SockRef::from(stream).set_tcp_keepalive(&probes)
}

fn client_config(tls: &TlsSettings) -> Result<ClientConfig, RedisError> {
    let roots = match &tls.ca_file {
        Some(path) => authorities(path)?,
        None => RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        },
    };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| RedisError::Settings(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn authorities(path: &Path) -> Result<RootCertStore, RedisError> {
    let bad = |why: String| RedisError::Settings(format!("CA file {}: {why}", path.display()));
    let pem = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| bad(e.to_string()))?;
        roots.add(certificate).map_err(|e| bad(e.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(bad("it needs CERTIFICATE blocks in PEM".into())),
        false => Ok(roots),
    }
}
