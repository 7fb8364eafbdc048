//! Webhooks as the platform's own provider signs them, and as attackers bend them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::client::{Connection, Response};
use super::h2c;
use super::keys::{DELIVERY_SECRET, WEBHOOK_SECRET, now_ms};
use super::origin::Seen;

pub const PATH: &str = "/webhooks/billing";
/// The platform's own example.
pub const EXAMPLE: &[u8] = br#"{"event":"invoice.paid","id":"evt_test_123","amount":5000}"#;

/// A signed webhook; fields are bent after signing, or signed anew.
#[derive(Clone)]
pub struct Event {
    pub body: Vec<u8>,
    pub timestamp: String,
    pub signature: String,
    /// Further header lines.
    pub extra: Vec<(String, String)>,
}

impl Event {
    /// Signed now with the current secret.
    pub fn of(body: impl AsRef<[u8]>) -> Self {
        Self::signed(body, WEBHOOK_SECRET, &now_ms().to_string())
    }

    /// A body of its own for each `id`.
    pub fn named(id: &str) -> Self {
        Self::of(format!(r#"{{"event":"invoice.paid","id":"{id}"}}"#))
    }

    /// Signed now, exactly `length` bytes long.
    pub fn sized(length: usize) -> Self {
        Self::of(vec![b'x'; length])
    }

    /// Signed this many milliseconds from now.
    pub fn shifted(by_ms: i64) -> Self {
        Self::signed(EXAMPLE, WEBHOOK_SECRET, &(now_ms() + by_ms).to_string())
    }

    pub fn signed(body: impl AsRef<[u8]>, secret: &str, timestamp: &str) -> Self {
        let body = body.as_ref().to_vec();
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(timestamp.as_bytes());
        mac.update(b".");
        mac.update(&body);
        Self {
            signature: hex::encode(mac.finalize().into_bytes()),
            body,
            timestamp: timestamp.to_owned(),
            extra: Vec::new(),
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.extra.push((name.to_owned(), value.to_owned()));
        self
    }

    /// All header lines.
    pub fn headers(&self) -> Vec<(&str, &str)> {
        let mut headers = vec![
            ("content-type", "application/json"),
            ("x-timestamp", self.timestamp.as_str()),
            ("x-signature", self.signature.as_str()),
        ];
        headers.extend(self.extra.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        headers
    }

    /// The header as HTTP/1 sends it, with these framing lines and without the body.
    pub fn head(&self, framing: &str) -> Vec<u8> {
        let mut head = format!("POST {PATH} HTTP/1.1\r\nHost: localhost\r\n{framing}");
        for (name, value) in self.headers() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    pub async fn post(&self, client: &mut Connection) -> std::io::Result<Response> {
        client
            .request("POST", PATH, &self.headers(), &self.body)
            .await
    }

    pub async fn post_h2(&self, client: &h2c::Connection) -> Result<Response, h2::Error> {
        client
            .request("POST", PATH, &self.headers(), &self.body)
            .await
    }

    /// The body in chunks of `size`, with the last one.
    pub fn chunked(&self, size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for part in self.body.chunks(size) {
            out.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            out.extend_from_slice(part);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n\r\n");
        out
    }
}

/// What the API would find `webhook-signature` to be, made without the edge's code.
pub fn delivery_signature(seen: &Seen) -> String {
    let key = STANDARD
        .decode(DELIVERY_SECRET.strip_prefix("whsec_").unwrap())
        .unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    let (id, time) = (
        seen.header("webhook-id").unwrap(),
        seen.header("webhook-timestamp").unwrap(),
    );
    mac.update(format!("{id}.{time}.").as_bytes());
    mac.update(&seen.body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}
