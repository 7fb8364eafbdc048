//! PayPal: an RSA signature over `id|time|webhook id|crc32(body)` by the key of a certificate that the
//! message names. The certificate is fetched only from hosts in the configuration and believed only
//! with a chain to an authority and a name under `paypal.com`; the algorithm is this file's choice.
//!
//! The body is covered by a CRC-32 and nothing else: whoever has one signed message can make another
//! body for it. [`Covers::Crc32`] tells the API.

use std::sync::Arc;

use http::HeaderMap;
use subtle::Choice;

use super::certificates::{CertificateFetch, Certificates};
use super::{Id, Proof, SpecialSpec, matching, required};
use crate::kernel::clock::UnixMs;
use crate::webhook::ActiveSecret;
use crate::webhook::covers::Covers;
use crate::webhook::refusal::Refusal;
use crate::webhook::scheme::{Encoding, Scheme, SchemeError, SchemeSpec, Unit};
use crate::webhook::sign::{CannotSign, Signed, Unsigned};
use crate::webhook::verify::{SignedParts, check_tolerance};

/// Past and future. PayPal tries for three days.
pub(super) const TOLERANCE_S: (u32, u32) = (4 * 24 * 3_600, 300);

const TRANSMISSION_ID: &str = "paypal-transmission-id";
const TRANSMISSION_TIME: &str = "paypal-transmission-time";
const TRANSMISSION_SIG: &str = "paypal-transmission-sig";
const CERT_URL: &str = "paypal-cert-url";
const AUTH_ALGO: &str = "paypal-auth-algo";
const ALGORITHM: &[u8] = b"SHA256withRSA";

/// Every certificate's name and every host are under this.
const DOMAIN: &str = ".paypal.com";
const CERT_PATH: &str = "/v1/notifications/certs/";
const ID_BYTES_MAX: usize = 64;
/// 4096 bits, the most that a signing key has.
const SIGNATURE_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

#[derive(Clone, Debug)]
pub(super) struct PayPal {
    /// Exact hosts that a certificate is fetched from.
    hosts: Vec<String>,
    certificates: Arc<Certificates>,
}

/// What the headers say, spelled as it must be.
struct Transmission<'h> {
    id: &'h str,
    time: &'h str,
    at: UnixMs,
    url: &'h str,
    signature: Vec<u8>,
}

impl PayPal {
    pub(super) fn build(
        spec: &SpecialSpec,
        fetch: &Arc<dyn CertificateFetch>,
    ) -> Result<Self, Vec<SchemeError>> {
        let mut errors = Vec::new();
        let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '.');
        let usable = |host: &String| host.ends_with(DOMAIN) && host.chars().all(plain);
        if spec.certificate_hosts.is_empty() || !spec.certificate_hosts.iter().all(usable) {
            errors.push(SchemeError::new(
                "certificate_hosts",
                "certificates are fetched from hosts under paypal.com only",
                "[\"api.paypal.com\"], or [\"api.sandbox.paypal.com\"] for the sandbox",
            ));
        }
        let certificates = Certificates::new(fetch.clone(), spec.certificate_ca.as_deref(), DOMAIN);
        let error = |problem: &'static str| {
            let hint = "a PEM file of the authorities that PayPal's certificate must come from";
            errors.push(SchemeError::new("certificate_ca_file", problem, hint));
        };
        let certificates = certificates.map_err(error).ok();
        match certificates {
            Some(certificates) if errors.is_empty() => Ok(Self {
                hosts: spec.certificate_hosts.clone(),
                certificates: Arc::new(certificates),
            }),
            Some(_) | None => Err(errors),
        }
    }

    /// Has the certificate ready that the message names. What does not look like PayPal's, or is too
    /// old, costs no fetch.
    pub(super) async fn prepare(&self, headers: &HeaderMap, now: UnixMs) -> Result<(), Refusal> {
        let Ok(transmission) = self.read(headers) else {
            return Ok(());
        };
        if check_tolerance(TOLERANCE_S, transmission.at, now).is_err() {
            return Ok(());
        }
        self.certificates.prepare(transmission.url, now).await
    }

    pub(super) fn verify(
        &self,
        _: &Scheme,
        secrets: &[ActiveSecret],
        request: &SignedParts<'_>,
        now: UnixMs,
    ) -> Result<Proof, Refusal> {
        let given = self.read(request.headers)?;
        let crc = crc32fast::hash(request.body);
        let message = |webhook_id: &[u8]| {
            let (id, time) = (given.id.as_bytes(), given.time.as_bytes());
            [id, time, webhook_id, crc.to_string().as_bytes()].join(&b'|')
        };
        let mut chain = Ok(());
        let secret = matching(secrets, now, |secret| {
            let message = message(secret.token());
            let good = (self.certificates).verify(given.url, &message, &given.signature, now);
            let hit = matches!(good, Ok(true));
            chain = chain.clone().and(good.map(|_| ()));
            Choice::from(u8::from(hit))
        });
        chain?;
        let secret = secret?;
        let expires_at = check_tolerance(TOLERANCE_S, given.at, now)?;
        let signed = message(secret.token());
        let mut proof = Proof::new(secret, signed, Covers::Crc32);
        proof.signed_at = Some(given.at);
        proof.expires_at = Some(expires_at);
        proof.id = Id::Signed(given.id.to_owned());
        Ok(proof)
    }

    #[expect(clippy::unused_self, reason = "the shape that all providers have")]
    pub(super) fn sign(
        &self,
        _: &Scheme,
        _: &ActiveSecret,
        _: &Unsigned<'_>,
        _: UnixMs,
    ) -> Result<Signed, CannotSign> {
        // With a private key that only PayPal has.
        Err(CannotSign::OnlyProvider)
    }

    fn read<'h>(&self, headers: &'h HeaderMap) -> Result<Transmission<'h>, Refusal> {
        let line = |name| {
            let text = std::str::from_utf8(required(headers, name)?);
            text.map_err(|_| Refusal::BadEncoding)
        };
        let (id, time, url) = (
            line(TRANSMISSION_ID)?,
            line(TRANSMISSION_TIME)?,
            line(CERT_URL)?,
        );
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(plain) {
            return Err(Refusal::BadEncoding);
        }
        let at = Unit::Rfc3339.parse(time.as_bytes());
        let at = at.ok_or(Refusal::BadTimestamp)?;
        if required(headers, AUTH_ALGO)? != ALGORITHM {
            return Err(Refusal::NoSignature);
        }
        if !self.may_fetch(url) {
            return Err(Refusal::CertificatePlace);
        }
        let signature = Encoding::Base64.decode(required(headers, TRANSMISSION_SIG)?);
        let signature = signature.filter(|bytes| SIGNATURE_BYTES.contains(&bytes.len()));
        Ok(Transmission {
            id,
            time,
            at,
            url,
            signature: signature.ok_or(Refusal::BadEncoding)?,
        })
    }

    /// Whether this is `https://HOST/v1/notifications/certs/NAME` with one of our hosts, byte for byte.
    fn may_fetch(&self, url: &str) -> bool {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let name = url.strip_prefix("https://").and_then(|rest| {
            let (host, path) = rest.split_at(rest.find('/')?);
            let ours = self.hosts.iter().any(|known| known == host);
            path.strip_prefix(CERT_PATH).filter(|_| ours)
        });
        name.is_some_and(|n| !n.is_empty() && n.len() <= ID_BYTES_MAX && n.bytes().all(plain))
    }
}

pub(super) fn keys() -> SchemeSpec {
    SchemeSpec {
        header: TRANSMISSION_SIG.into(),
        // The webhook's id stands where others have a secret: it ties a message to this endpoint.
        alg: Some("equal".into()),
        unsigned_body: true,
        ..SchemeSpec::default()
    }
}
