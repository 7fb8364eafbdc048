//! A small HTTP/1.1 client: one connection per request, and a reader of event streams.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

/// Far above what anything here takes: reaching it is a failure.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{}",
            self.text
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        problem["code"].as_str().unwrap().to_owned()
    }

    /// The fields a refusal for validation names, in order.
    pub(crate) fn faults(&self) -> Vec<String> {
        assert_eq!(self.code(), "validation_failed");
        let problem = self.json();
        let errors = problem["errors"].as_array().unwrap();
        errors
            .iter()
            .map(|error| error["field"].as_str().unwrap().to_owned())
            .collect()
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }
}

/// A request being put together.
#[derive(Clone)]
pub(crate) struct Call {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Call {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: "GET",
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    pub(crate) fn post(path: impl Into<String>, body: &Value) -> Self {
        Self::post_bytes(path, body.to_string()).header("content-type", "application/json")
    }

    pub(crate) fn post_bytes(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            method: "POST",
            path: path.into(),
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn identity(self, assertion: &str) -> Self {
        self.header("x-maitred-identity", assertion)
    }

    pub(crate) async fn send(self, address: SocketAddr) -> Answer {
        timeout(DEADLINE, async {
            let response = self.open(address).await;
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            Answer {
                status: parts.status.as_u16(),
                headers: parts.headers,
                text,
            }
        })
        .await
        .expect("an answer within the deadline")
    }

    /// Opens an event stream.
    pub(crate) async fn stream(self, address: SocketAddr) -> Events {
        let response = timeout(DEADLINE, self.open(address))
            .await
            .expect("a head in time");
        assert_eq!(response.status().as_u16(), 200);
        let kind = response.headers()["content-type"].to_str().unwrap();
        assert_eq!(kind, "text/event-stream");
        Events {
            body: response.into_body(),
            text: String::new(),
            ready: VecDeque::new(),
        }
    }

    async fn open(self, address: SocketAddr) -> hyper::Response<Incoming> {
        let socket = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(self.method)
            .uri(&self.path)
            .header("host", address.to_string());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        sender
            .send_request(request.body(Full::new(self.body)).unwrap())
            .await
            .unwrap()
    }
}

#[derive(Debug, PartialEq)]
pub(crate) struct Received {
    pub(crate) id: i64,
    pub(crate) event: String,
    pub(crate) data: Value,
}

pub(crate) struct Events {
    body: Incoming,
    text: String,
    ready: VecDeque<Received>,
}

impl Events {
    pub(crate) async fn next(&mut self) -> Received {
        self.next_or_end()
            .await
            .expect("one more event before the end of the stream")
    }

    /// `None` when the server ended the stream.
    pub(crate) async fn next_or_end(&mut self) -> Option<Received> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let frame = timeout(DEADLINE, self.body.frame())
                .await
                .expect("an event in time");
            let data = frame?.unwrap().into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&data).unwrap());
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                self.ready.push_back(parse(event));
                self.text = rest.to_owned();
            }
        }
    }
}

fn parse(text: &str) -> Received {
    let field = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("{name} in {text:?}"))
    };
    Received {
        id: field("id").parse().unwrap(),
        event: field("event").to_owned(),
        data: serde_json::from_str(field("data")).unwrap(),
    }
}
