//! Twilio: HMAC over the URL and, for a form, its sorted names and values run together; for JSON the
//! URL has the body's SHA-256 in its query. The URL is the configured one, the algorithm too: what
//! `X-Twilio-Webhooks-Signature-Settings` says is the sender's wish.
//!
//! Names and values are signed without anything between them, so a captured form can be cut in other
//! places and still fit; it is the same message to replay protection.

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::{Id, Proof, SpecialSpec, braintree, decode, form, line, matching, required, spell};
use crate::kernel::clock::UnixMs;
use crate::webhook::ActiveSecret;
use crate::webhook::covers::Covers;
use crate::webhook::refusal::Refusal;
use crate::webhook::scheme::{Scheme, SchemeError, SchemeSpec};
use crate::webhook::sign::{CannotSign, Signed, Unsigned};
use crate::webhook::verify::SignedParts;

const COVERED: &str = "names and values of the form run together, not where each begins";
const SIGNATURE: &str = "x-twilio-signature";
const IDEMPOTENCY: &str = "i-twilio-idempotency-token";
const BODY_HASH: &[u8] = b"bodySHA256";

#[derive(Clone, Debug)]
pub(super) struct Twilio {
    /// The URL without and with its port; Twilio signs either.
    urls: [String; 2],
}

impl Twilio {
    pub(super) fn build(spec: &SpecialSpec) -> Result<Self, Vec<SchemeError>> {
        let url = spec.public_url.as_deref().unwrap_or_default();
        let mut errors = Vec::new();
        let urls = urls(url);
        if urls.is_none() {
            errors.push(SchemeError::new(
                "public_url",
                "the URL is signed and there is no usable public_url",
                "write the https URL as it is registered at Twilio, without its query",
            ));
        }
        if !matches!(
            spec.alg.as_deref(),
            None | Some("hmac-sha1" | "hmac-sha256")
        ) {
            errors.push(SchemeError::new(
                "alg",
                "Twilio signs with HMAC-SHA1 (auth token) or HMAC-SHA256 (shared key)",
                "use hmac-sha1 or hmac-sha256",
            ));
        }
        match urls {
            Some(urls) if errors.is_empty() => Ok(Self { urls }),
            Some(_) | None => Err(errors),
        }
    }

    pub(super) fn verify(
        &self,
        keys: &Scheme,
        secrets: &[ActiveSecret],
        request: &SignedParts<'_>,
        now: UnixMs,
    ) -> Result<Proof, Refusal> {
        let given = decode(keys, required(request.headers, SIGNATURE)?)?;
        let query = Query::read(request.query)?;
        let (params, covers) = match query.body_hash {
            Some(hash) => {
                refuse_other_body(hash, request.body)?;
                (Vec::new(), Covers::Body)
            }
            None => {
                let declared = form::is_declared(request.headers);
                let params = declared.then(|| run_together(request.body)).flatten();
                let params =
                    params.ok_or(Refusal::BadBody("a form, nor has the URL bodySHA256"))?;
                (params, Covers::Fields(COVERED))
            }
        };
        let [tail, rest] = [query.tail.as_bytes(), params.as_slice()];
        let secret = matching(secrets, now, |secret| {
            let mac = |url: &String| secret.mac(&[url.as_bytes(), tail, rest]);
            let hits = self
                .urls
                .each_ref()
                .map(|url| mac(url).as_slice().ct_eq(&given));
            hits.into_iter().fold(Choice::from(0), |hit, one| hit | one)
        })?;
        let mut proof = Proof::new(secret, [tail, rest].concat(), covers);
        let token = request.headers.get(IDEMPOTENCY);
        if let Some(token) = token.and_then(|value| value.to_str().ok()) {
            proof.id = Id::Claimed(token.to_owned());
        }
        Ok(proof)
    }

    /// JSON gets its hash into the query; everything else must be a form.
    pub(super) fn sign(
        &self,
        keys: &Scheme,
        secret: &ActiveSecret,
        request: &Unsigned<'_>,
        _: UnixMs,
    ) -> Result<Signed, CannotSign> {
        let [url, _] = &self.urls;
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(request.body).is_ok();
        if !is_json {
            let params = run_together(request.body).ok_or(Refusal::BadBody("a form or JSON"))?;
            let signature = spell(keys, secret, &[url.as_bytes(), &params]);
            return Ok(Signed {
                headers: vec![line(SIGNATURE, &signature)?, braintree::form_type()],
                ..Signed::default()
            });
        }
        let query = format!("bodySHA256={}", hex::encode(Sha256::digest(request.body)));
        let signature = spell(keys, secret, &[url.as_bytes(), b"?", query.as_bytes()]);
        Ok(Signed {
            headers: vec![line(SIGNATURE, &signature)?],
            query: Some(query),
            ..Signed::default()
        })
    }
}

pub(super) fn keys(spec: &SpecialSpec) -> SchemeSpec {
    SchemeSpec {
        header: SIGNATURE.into(),
        // The other choices are refused by `build`.
        alg: spec.alg.clone().or(Some("hmac-sha1".into())),
        encoding: Some("base64".into()),
        key: Some("utf8".into()),
        signed: Some("{body}".into()),
        ..SchemeSpec::default()
    }
}

/// What the query adds to the signed URL, and the hash of the body where it is in it.
struct Query<'q> {
    tail: String,
    body_hash: Option<&'q [u8]>,
}

impl<'q> Query<'q> {
    fn read(query: &'q str) -> Result<Self, Refusal> {
        if query.is_empty() {
            return Ok(Self {
                tail: String::new(),
                body_hash: None,
            });
        }
        let mut body_hash = None;
        for pair in query.as_bytes().split(|b| *b == b'&') {
            let mut halves = pair.splitn(2, |b| *b == b'=');
            let name = halves.next().unwrap_or_default();
            if name == BODY_HASH {
                let value = halves.next().unwrap_or_default();
                if body_hash.replace(value).is_some() {
                    return Err(Refusal::BadQuery("bodySHA256".into()));
                }
            }
        }
        Ok(Self {
            tail: format!("?{query}"),
            body_hash,
        })
    }
}

/// The hash is not secret and anybody can make one: what counts is that it is in the signed URL.
fn refuse_other_body(hash: &[u8], body: &[u8]) -> Result<(), Refusal> {
    match hex::encode(Sha256::digest(body)).as_bytes() == hash {
        true => Ok(()),
        false => Err(Refusal::NoMatch),
    }
}

/// Names in order, each with its different values in order. An empty form would leave a signed URL
/// alone, and Twilio sends none.
fn run_together(body: &[u8]) -> Option<Vec<u8>> {
    let mut fields = form::read(body).filter(|fields| !fields.is_empty())?;
    fields.sort();
    fields.dedup();
    let parts = fields.into_iter().flat_map(|(name, value)| [name, value]);
    Some(parts.flatten().collect())
}

/// `None` unless it is an https URL without query and fragment.
pub(super) fn urls(url: &str) -> Option<[String; 2]> {
    let rest = url.strip_prefix("https://")?;
    let bad = |c: char| matches!(c, '?' | '#') || !c.is_ascii_graphic();
    if rest.contains(bad) || url.parse::<http::Uri>().is_err() {
        return None;
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host_at = authority.rfind('@').map_or(0, |at| at + 1);
    // A colon begins the port only after the bracket of an IPv6 address.
    let name_at = authority.rfind(']').unwrap_or(host_at);
    let (host, port) = match authority.get(name_at..)?.find(':') {
        Some(at) => authority.split_at(name_at + at),
        None => (authority, ":443"),
    };
    (host.len() > host_at).then(|| {
        [
            format!("https://{host}{path}"),
            format!("https://{host}{port}{path}"),
        ]
    })
}
