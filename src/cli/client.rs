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
        })
    }

    pub(super) fn get(&self, url: &str) -> Result<Answer, String> {
        let request = Request::get(url).body(Full::default());
        self.send(url, request.map_err(|e| format!("`{url}`: {e}"))?)
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
            .block_on(async { tokio::time::timeout(DEADLINE, exchange).await });
        match outcome {
            Ok(answer) => answer.map_err(|e: String| format!("{url}: {e}")),
            Err(_) => Err(format!("{url}: no answer within {} s", DEADLINE.as_secs())),
        }
    }
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
