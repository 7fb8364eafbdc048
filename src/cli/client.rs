//! HTTP requests that commands make: one at a time, with a deadline and a bound on the answer. The edge
//! itself goes out through `egress`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

const DEADLINE: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 1_048_576;

/// Blocks until the answer is there; a command has nothing else to do.
pub(super) struct Client {
    inner: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: tokio::runtime::Runtime,
    deadline: Duration,
}

/// An answer, read whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Client {
    /// Trusts the authorities that browsers trust, or `ca` alone.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, String> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(ca)?)
            .https_or_http()
            .enable_http1()
            .build();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Ok(Self {
            inner: legacy::Client::builder(TokioExecutor::new()).build(connector),
            runtime: runtime.map_err(|e| format!("cannot start: {e}"))?,
            deadline: DEADLINE,
        })
    }

    pub(super) fn get(&self, url: &str) -> Result<Answer, String> {
        self.get_with(url, &[])
    }

    pub(super) fn get_with(
        &self,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Answer, String> {
        self.send(url, asking(url, headers)?)
    }

    /// Hands the body of a 2xx to `sink` piece by piece, however long it is and takes; another answer
    /// is read whole and given back.
    pub(super) fn stream(
        &self,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        sink: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<Option<Answer>, String> {
        let request = asking(url, headers)?;
        let late = |_| format!("{url}: nothing for {} s", DEADLINE.as_secs());
        self.runtime.block_on(async {
            let response = tokio::time::timeout(DEADLINE, self.inner.request(request)).await;
            let response = response.map_err(late)?;
            let response = response.map_err(|e| format!("{url}: {}", chain(&e)))?;
            let status = response.status();
            let mut body = response.into_body();
            if !status.is_success() {
                let whole = Limited::new(body, ANSWER_BYTES_MAX).collect();
                let whole = tokio::time::timeout(DEADLINE, whole).await.map_err(late)?;
                let body = whole.map_err(|e| format!("{url}: {e}"))?.to_bytes();
                return Ok(Some(Answer { status, body }));
            }
            while let Some(frame) = tokio::time::timeout(DEADLINE, body.frame())
                .await
                .map_err(late)?
            {
                let frame = frame.map_err(|e| format!("{url}: cut short: {}", chain(&e)))?;
                if let Some(piece) = frame.data_ref() {
                    sink(piece)?;
                }
            }
            Ok(None)
        })
    }

    pub(super) fn post(
        &self,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> Result<Answer, String> {
        let mut request = Request::post(url)
            .body(Full::new(body))
            .map_err(|e| format!("`{url}`: {e}"))?;
        request
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in headers {
            request.headers_mut().insert(name, value.clone());
        }
        self.send(url, request)
    }

    /// The same client with more patience, for what is known to take long.
    pub(super) fn patient(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    fn send(&self, url: &str, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let exchange = async {
            let response = self.inner.request(request).await.map_err(|e| chain(&e))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
            let body = body.await.map_err(|e| e.to_string())?.to_bytes();
            Ok(Answer { status, body })
        };
        let outcome = self
            .runtime
            .block_on(async { tokio::time::timeout(self.deadline, exchange).await });
        match outcome {
            Ok(answer) => answer.map_err(|e: String| format!("{url}: {e}")),
            Err(_) => Err(format!(
                "{url}: no answer within {} s",
                self.deadline.as_secs()
            )),
        }
    }
}

fn asking(
    url: &str,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<Request<Full<Bytes>>, String> {
    let mut request = Request::get(url)
        .body(Full::default())
        .map_err(|e| format!("`{url}`: {e}"))?;
    request.headers_mut().extend(headers.iter().cloned());
    Ok(request)
}

/// Trusts the authorities that browsers trust, or `ca` alone.
pub(super) fn tls_config(ca: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = match ca {
        Some(file) => builder.with_root_certificates(roots(file)?),
        None => builder.with_webpki_roots(),
    };
    Ok(builder.with_no_client_auth())
}

/// hyper's own message says little; what caused it says more.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn roots(file: &Path) -> Result<rustls::RootCertStore, String> {
    let shown = file.display();
    let mut roots = rustls::RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(file).map_err(|e| format!("{shown}: {e}"))?;
    for certificate in found {
        let certificate = certificate.map_err(|e| format!("{shown}: {e}"))?;
        roots
            .add(certificate)
            .map_err(|e| format!("{shown}: {e}"))?;
    }
    match roots.is_empty() {
        true => Err(format!("{shown} has no certificate")),
        false => Ok(roots),
    }
}
