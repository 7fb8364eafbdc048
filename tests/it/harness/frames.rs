//! HTTP/2 frame by frame, for what no well-behaved client would send. Header blocks use literals
//! without indexing, so that they need no state.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::client::{tls, tls_config};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What became of a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fate {
    /// A response; the status where HPACK has it in its static table, else 0.
    Answered(u16),
    Reset(u32),
    /// The whole connection ended.
    Gone,
}

/// Bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// A header block.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            // A length of 127 and more would go on in further bytes.
            assert!(text.len() < 127, "{text}");
            out.push(u8::try_from(text.len()).unwrap());
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

/// A connection after the preface.
pub struct Connection {
    io: TlsStream<TcpStream>,
}

impl Connection {
    pub async fn open(address: SocketAddr, name: &str, ca_pem: &str) -> Self {
        let mut connection = Self::silent(address, name, ca_pem).await;
        connection.send(PREFACE).await.unwrap();
        connection.send(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        connection
    }

    /// HTTP/2 was agreed on; nothing of it has been sent.
    pub async fn silent(address: SocketAddr, name: &str, ca_pem: &str) -> Self {
        let io = tls(address, name, tls_config(ca_pem, &["h2"]))
            .await
            .unwrap();
        Self { io }
    }

    /// Waits until the server closes, without answering anything.
    pub async fn ended(&mut self) {
        let mut rest = Vec::new();
        let _ = self.io.read_to_end(&mut rest).await;
    }

    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    pub async fn headers(
        &mut self,
        stream: u32,
        flags: u8,
        fields: &[(&str, &str)],
    ) -> std::io::Result<()> {
        let frame = frame(HEADERS, flags | END_HEADERS, stream, &block(fields));
        self.send(&frame).await
    }

    /// The next frame; `None` when the connection is over. Settings are acknowledged.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.io.read_exact(&mut payload).await.ok()?;
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        };
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            let _ = self.send(&self::frame(SETTINGS, ACK, 0, &[])).await;
        }
        Some(frame)
    }

    /// Reads until it is clear what becomes of `stream`.
    pub async fn fate(&mut self, stream: u32) -> Fate {
        while let Some(frame) = self.next().await {
            match frame.kind {
                HEADERS if frame.stream == stream => return Fate::Answered(status(&frame.payload)),
                RST_STREAM if frame.stream == stream => {
                    let code = frame.payload.as_slice().try_into().unwrap();
                    return Fate::Reset(u32::from_be_bytes(code));
                }
                GOAWAY => return Fate::Gone,
                _ => {}
            }
        }
        Fate::Gone
    }
}

/// `:status` from the static table, which is where encoders begin.
fn status(block: &[u8]) -> u16 {
    match block.iter().find(|b| **b & 0xe0 != 0x20) {
        Some(0x88) => 200,
        Some(0x8b) => 304,
        Some(0x8c) => 400,
        Some(0x8d) => 404,
        Some(0x8e) => 500,
        _ => 0,
    }
}
