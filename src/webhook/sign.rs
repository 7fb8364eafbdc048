//! Signs as a provider would, for `maitred sign`, `maitred send` and tests. The other half of
//! `webhook::verify`; never used on what arrives.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::ActiveSecret;
use super::refusal::Refusal;
use super::scheme::{Alg, Capture, Inputs, Scheme, TsFrom};
use super::verifier::Verifier;
use crate::kernel::clock::UnixMs;

/// What is to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned<'a> {
    pub method: &'a str,
    pub query: &'a str,
    /// Value for every header that the scheme signs, e.g. `webhook-id`.
    pub event_id: &'a str,
    pub body: &'a [u8],
}

/// What a signed request has that the unsigned one had not.
#[derive(Clone, Debug, Default)]
pub struct Signed {
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// For schemes that put something into it.
    pub query: Option<String>,
    /// The body to send instead, for schemes whose signature is inside.
    pub body: Option<Vec<u8>>,
}

/// What makes `request` acceptable to an endpoint with this verifier and secret.
///
/// # Errors
/// A scheme that signs what `request` does not have, e.g. a query parameter, or with a key that only
/// the provider has.
pub fn sign(
    verifier: &Verifier,
    secret: &ActiveSecret,
    request: &Unsigned<'_>,
    now: UnixMs,
) -> Result<Signed, Refusal> {
    match verifier {
        Verifier::Grammar(scheme) => by_grammar(scheme, secret, request, now),
        Verifier::Special(special) => special.sign(secret, request, now),
    }
}

fn by_grammar(
    scheme: &Scheme,
    secret: &ActiveSecret,
    request: &Unsigned<'_>,
    now: UnixMs,
) -> Result<Signed, Refusal> {
    let ts = scheme
        .ts
        .as_ref()
        .map(|rule| rule.unit.print(now))
        .unwrap_or_default();
    let mut headers = HeaderMap::new();
    for name in scheme.signed.headers() {
        headers.insert(name.clone(), value(request.event_id.as_bytes())?);
    }
    let pieces = scheme.signed.render(&Inputs {
        body: request.body,
        ts: ts.as_bytes(),
        method: request.method,
        url: &scheme.public_url,
        query: request.query,
        headers: &headers,
    })?;
    let signature = match scheme.alg {
        Alg::Equal => scheme.encoding.encode(secret.token().expose()),
        Alg::HmacSha256 | Alg::HmacSha512 | Alg::HmacSha1 => {
            scheme.encoding.encode(&secret.mac(&pieces))
        }
    };
    let items: Vec<_> = scheme
        .items
        .iter()
        .map(|pattern| match pattern.capture() {
            Capture::Sig => pattern.fill(&signature),
            Capture::Ts => pattern.fill(ts.as_bytes()),
        })
        .collect();
    let separator = scheme.split.as_slice();
    let mut line = value(&items.join(separator))?;
    line.set_sensitive(true);
    headers.insert(scheme.header.clone(), line);
    if let Some(TsFrom::Header(name)) = scheme.ts.as_ref().map(|rule| &rule.from) {
        headers.insert(name.clone(), value(ts.as_bytes())?);
    }
    let lines = headers.iter();
    Ok(Signed {
        headers: lines.map(|(n, v)| (n.clone(), v.clone())).collect(),
        ..Signed::default()
    })
}

fn value(bytes: &[u8]) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_bytes(bytes).map_err(|_| Refusal::BadEncoding)
}
