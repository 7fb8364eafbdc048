//! An HTTP/2 client over TLS, on the `h2` crate: frames are under the test's control.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::Request;
use rustls::ClientConfig;

use super::client::{Response, tls, tls_config};

/// One HTTP/2 connection.
#[derive(Clone)]
pub struct Connection {
    send: SendRequest<Bytes>,
}

impl Connection {
    pub async fn open(address: SocketAddr, name: &str, ca_pem: &str) -> Self {
        Self::try_open(address, name, tls_config(ca_pem, &["h2"]))
            .await
            .unwrap()
    }

    /// The same where a refusal is not the test's end.
    pub async fn try_open(
        address: SocketAddr,
        name: &str,
        config: Arc<ClientConfig>,
    ) -> std::io::Result<Self> {
        let io = tls(address, name, config).await?;
        assert_eq!(io.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let handshake = h2::client::handshake(io).await;
        let (send, connection) = handshake.map_err(std::io::Error::other)?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { send })
    }

    /// Starts a request; the body is the caller's to send.
    pub async fn start(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://localhost{target}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut ready = self.send.clone().ready().await?;
        ready.send_request(request.body(()).unwrap(), ends)
    }

    /// A whole exchange. The body is sent as flow control allows.
    pub async fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, h2::Error> {
        let (answer, mut stream) = self.start(method, target, headers, body.is_empty()).await?;
        let body = Bytes::copy_from_slice(body);
        let upload = async move {
            let mut left = body;
            while !left.is_empty() {
                stream.reserve_capacity(left.len());
                match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                    Some(Ok(count)) => {
                        let part = left.split_to(count.min(left.len()));
                        if stream.send_data(part, left.is_empty()).is_err() {
                            return;
                        }
                    }
                    // The server answered early; the answer is what counts.
                    Some(Err(_)) | None => return,
                }
            }
        };
        let (response, ()) = tokio::join!(answer, upload);
        let (parts, mut stream) = response?.into_parts();
        let mut whole = Vec::new();
        while let Some(chunk) = stream.data().await {
            let chunk = chunk?;
            let _ = stream.flow_control().release_capacity(chunk.len());
            whole.extend_from_slice(&chunk);
        }
        let headers = parts
            .headers
            .iter()
            .map(|(n, v)| {
                (
                    n.to_string(),
                    String::from_utf8_lossy(v.as_bytes()).into_owned(),
                )
            })
            .collect();
        Ok(Response {
            status: parts.status.as_u16(),
            headers,
            body: whole,
        })
    }
}

/// Reads events until the text so far satisfies `enough`, or the stream ends.
pub async fn read_until(stream: &mut RecvStream, enough: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    while !enough(&text) {
        match stream.data().await {
            Some(Ok(chunk)) => {
                let _ = stream.flow_control().release_capacity(chunk.len());
                text.push_str(&String::from_utf8_lossy(&chunk));
            }
            Some(Err(_)) | None => break,
        }
    }
    text
}
