//! Signs as a provider would, for `maitred sign`, `maitred send` and tests. The other half of
//! `webhook::verify`; never used on what arrives.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::ActiveSecret;
use super::refusal::Refusal;
use super::rules::Rules;
use super::scheme::{Capture, Inputs, Scheme, TsFrom};
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

/// Why nothing can be signed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CannotSign {
    /// What is to be signed would be refused, or lacks something that the scheme signs.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Whoever checks has no more than the public key.
    #[error("the key of this scheme is public")]
    PublicKey,
    /// Nothing that could be handed to the edge would do.
    #[error("only the provider can sign this")]
    OnlyProvider,
}

impl CannotSign {
    /// What an operator can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.hint(),
            Self::PublicKey => "signing takes the private key: --private-key FILE",
            Self::OnlyProvider => "try the provider's own test message",
        }
    }
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

/// What makes `request` acceptable to an endpoint with these rules and secret.
///
/// # Errors
/// A scheme that signs what `request` does not have, e.g. a query parameter.
pub fn sign(
    rules: &Rules,
    secret: &ActiveSecret,
    request: &Unsigned<'_>,
    now: UnixMs,
) -> Result<Signed, CannotSign> {
    match rules {
        Rules::Grammar(scheme) => by_grammar(scheme, secret, request, now),
        Rules::Special(special) => special.sign(secret, request, now),
    }
}

fn by_grammar(
    scheme: &Scheme,
    secret: &ActiveSecret,
    request: &Unsigned<'_>,
    now: UnixMs,
) -> Result<Signed, CannotSign> {
    let ts = scheme
        .ts
        .as_ref()
        .map(|rule| rule.unit.print(now))
        .unwrap_or_default();
    let mut headers = HeaderMap::new();
    for name in scheme.signed.headers() {
        headers.insert(name.clone(), value(request.event_id.as_bytes())?);
    }
    let rendered = scheme.signed.render(&Inputs {
        ts: ts.as_bytes(),
        method: request.method,
        url: &scheme.public_url,
        query: request.query,
        headers: &headers,
    })?;
    let signature = secret.sign(&rendered.pieces(request.body));
    let signature = signature.ok_or(CannotSign::PublicKey)?;
    let signature = scheme.encoding.encode(&signature);
    // An item of an algorithm that this secret is not for is left out.
    let items: Vec<_> = scheme
        .items
        .iter()
        .filter_map(|pattern| match pattern.capture() {
            Capture::Sig(alg) => (alg == secret.alg()).then(|| pattern.fill(&signature)),
            Capture::Ts => Some(pattern.fill(ts.as_bytes())),
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
