//! An HTTP/1.1 client that sends exactly the bytes it is given, over TCP or TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Anything that carries bytes both ways.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

/// A response that was read to its end.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// One connection.
pub struct Connection {
    io: Box<dyn Transport>,
    buffer: Vec<u8>,
}

/// A TLS client configuration that trusts one authority.
pub fn tls_config(ca_pem: &str, alpn: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A TLS connection with whatever ALPN the configuration asks for.
pub async fn tls(
    address: SocketAddr,
    name: &str,
    config: Arc<ClientConfig>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(config).connect(name, tcp).await
}

impl Connection {
    pub fn over(io: impl Transport + 'static) -> Self {
        Self {
            io: Box::new(io),
            buffer: Vec::new(),
        }
    }

    pub async fn plain(address: SocketAddr) -> std::io::Result<Self> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        Ok(Self::over(tcp))
    }

    pub async fn secure(address: SocketAddr, name: &str, ca_pem: &str) -> std::io::Result<Self> {
        Ok(Self::over(
            tls(address, name, tls_config(ca_pem, &["http/1.1"])).await?,
        ))
    }

    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// Sends a whole request with a Content-Length (unless the body is empty) and reads the answer.
    pub async fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Response> {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
            head.push_str("Host: localhost\r\n");
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        // A server that refuses early may close while we still send: the answer is what counts.
        let _ = self.send(&bytes).await;
        self.response(method == "HEAD").await
    }

    /// Reads header and body of the next response (interim responses are skipped).
    pub async fn response(&mut self, head_only: bool) -> std::io::Result<Response> {
        loop {
            let mut response = self.head().await?;
            if response.status == 100 {
                continue;
            }
            if head_only || response.status == 204 || response.status == 304 {
                return Ok(response);
            }
            if response
                .header("transfer-encoding")
                .is_some_and(|v| v.contains("chunked"))
            {
                while let Some(chunk) = self.chunk().await? {
                    response.body.extend_from_slice(&chunk);
                }
            } else if let Some(length) = response.header("content-length") {
                let length = length.parse().unwrap();
                self.fill(length).await?;
                response.body = self.buffer.drain(..length).collect();
            } else {
                let mut rest = Vec::new();
                self.io.read_to_end(&mut rest).await?;
                response.body = std::mem::take(&mut self.buffer);
                response.body.extend_from_slice(&rest);
            }
            return Ok(response);
        }
    }

    /// Reads a response header alone; the body follows by [`Connection::chunk`].
    pub async fn head(&mut self) -> std::io::Result<Response> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end);
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|l| l.split(' ').nth(1))
            .and_then(|s| s.parse().ok());
        let headers = lines
            .filter_map(|l| l.split_once(':'))
            .map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()))
            .collect();
        Ok(Response {
            status: status.unwrap_or(0),
            headers,
            body: Vec::new(),
        })
    }

    /// The next chunk of a chunked body; `None` at its end.
    pub async fn chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let line_end = loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                break at;
            }
            self.more().await?;
        };
        let size = String::from_utf8_lossy(&self.buffer[..line_end]).into_owned();
        let size =
            usize::from_str_radix(size.trim(), 16).map_err(|_| std::io::ErrorKind::InvalidData)?;
        self.fill(line_end + 2 + size + 2).await?;
        let chunk = self.buffer[line_end + 2..line_end + 2 + size].to_vec();
        self.buffer.drain(..line_end + 2 + size + 2);
        Ok((size > 0).then_some(chunk))
    }

    /// Reads chunks until the text so far satisfies `enough`; returns the text.
    pub async fn chunks_until(&mut self, enough: impl Fn(&str) -> bool) -> std::io::Result<String> {
        let mut text = String::new();
        while !enough(&text) {
            match self.chunk().await? {
                Some(chunk) => text.push_str(&String::from_utf8_lossy(&chunk)),
                None => return Ok(text),
            }
        }
        Ok(text)
    }

    /// Reads until the server closes; returns what came.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.buffer);
        let mut chunk = [0; 4096];
        while let Ok(count) = self.io.read(&mut chunk).await {
            if count == 0 {
                break;
            }
            rest.extend_from_slice(&chunk[..count]);
        }
        rest
    }

    async fn fill(&mut self, length: usize) -> std::io::Result<()> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Ok(())
    }

    async fn more(&mut self) -> std::io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        match self.io.read(&mut chunk).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }
}
