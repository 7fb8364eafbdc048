//! Verifiers for providers whose scheme is no data: the signature is inside the body, over a sorted
//! form, by a certificate, or not there at all. Each provider is one file with the same verbs in the
//! same order: `build`, `keys`, `verify`, `sign`. The secrets, the algorithm and the spelling of a
//! signature are the grammar's (`keys`); only what is signed is code.
//!
//! Order of steps: [`Special::prepare`] (waits for a certificate, else does nothing) → `verify` →
//! what every scheme gets: replay key, event id, coverage.

mod adyen;
mod braintree;
mod certificates;
mod form;
mod mollie;
mod paypal;
mod toast;
mod twilio;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use subtle::Choice;

use super::covers::Covers;
use super::refusal::Refusal;
use super::scheme::{Scheme, SchemeError, SchemeSpec};
use super::sign::{CannotSign, Signed, Unsigned};
use super::verify::{EventId, SignedParts, Verified, is_portable, portable, replay_key};
use super::{ActiveSecret, Endpoint};
use crate::kernel::clock::UnixMs;

pub use certificates::{CertificateFetch, over_https};

/// A provider that needs code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Payments of Adyen ("standard" webhooks): one signature per item, in the body.
    AdyenStandard,
    Braintree,
    /// Mollie's classic webhooks: an id and nothing else.
    MollieClassic,
    PayPal,
    Toast,
    Twilio,
}

/// What a configuration says about a special scheme; judged by [`Special::build`].
#[derive(Clone, Debug, Default)]
pub struct SpecialSpec {
    /// Twilio: `hmac-sha1` or `hmac-sha256`; the others have no choice.
    pub alg: Option<String>,
    pub replay: Option<String>,
    pub secret_bytes_min: Option<u32>,
    /// Twilio: the URL as it is registered there.
    pub public_url: Option<String>,
    /// PayPal: hosts that a certificate may be fetched from.
    pub certificate_hosts: Vec<String>,
    /// PayPal: PEM of the authorities that its certificate must come from; absent = the public ones.
    pub certificate_ca: Option<Vec<u8>>,
    /// Mollie classic: says that the operator knows.
    pub danger_unsigned: bool,
}

/// A special scheme, ready for use.
#[derive(Clone, Debug)]
pub struct Special {
    provider: Provider,
    keys: Scheme,
}

#[derive(Clone, Debug)]
enum Provider {
    AdyenStandard(adyen::Adyen),
    Braintree(braintree::Braintree),
    MollieClassic(mollie::Mollie),
    PayPal(paypal::PayPal),
    Toast(toast::Toast),
    Twilio(twilio::Twilio),
}

/// What a provider's file found out about a message.
struct Proof {
    /// The signed bytes, in one spelling; they name the message for replay protection.
    signed: Vec<u8>,
    secret: Arc<str>,
    covers: Covers,
    signed_at: Option<UnixMs>,
    expires_at: Option<UnixMs>,
    id: Id,
}

enum Id {
    None,
    Signed(String),
    Claimed(String),
}

impl Proof {
    /// A proof without time and id.
    fn new(secret: &ActiveSecret, signed: Vec<u8>, covers: Covers) -> Self {
        Self {
            signed,
            secret: secret.name().clone(),
            covers,
            signed_at: None,
            expires_at: None,
            id: Id::None,
        }
    }
}

impl Special {
    /// The scheme of `kind` with the settings in `spec`, or everything that is wrong with them.
    ///
    /// # Errors
    /// All problems at once, each with its key.
    pub fn build(
        kind: Kind,
        spec: &SpecialSpec,
        fetch: &Arc<dyn CertificateFetch>,
    ) -> Result<Self, Vec<SchemeError>> {
        let mut errors = Vec::new();
        let provider = match kind {
            Kind::AdyenStandard => adyen::Adyen::build(spec).map(Provider::AdyenStandard),
            Kind::Braintree => braintree::Braintree::build(spec).map(Provider::Braintree),
            Kind::MollieClassic => mollie::Mollie::build(spec).map(Provider::MollieClassic),
            Kind::PayPal => paypal::PayPal::build(spec, fetch).map(Provider::PayPal),
            Kind::Toast => toast::Toast::build(spec).map(Provider::Toast),
            Kind::Twilio => twilio::Twilio::build(spec).map(Provider::Twilio),
        };
        let provider = provider.map_err(|mut e| errors.append(&mut e)).ok();
        let keys = match kind {
            Kind::AdyenStandard => adyen::keys(),
            Kind::Braintree => braintree::keys(),
            Kind::MollieClassic => mollie::keys(),
            Kind::PayPal => paypal::keys(),
            Kind::Toast => toast::keys(),
            Kind::Twilio => twilio::keys(spec),
        };
        let keys = Scheme::build(&SchemeSpec {
            replay: spec.replay.clone(),
            secret_bytes_min: spec.secret_bytes_min,
            ..keys
        });
        let keys = keys.map_err(|mut e| errors.append(&mut e)).ok();
        match (provider, keys, errors.is_empty()) {
            (Some(provider), Some(keys), true) => Ok(Self { provider, keys }),
            (_, _, _) => Err(errors),
        }
    }

    /// See `Rules::prepare`.
    pub(super) async fn prepare(&self, headers: &HeaderMap, now: UnixMs) -> Result<(), Refusal> {
        match &self.provider {
            Provider::PayPal(paypal) => paypal.prepare(headers, now).await,
            Provider::AdyenStandard(_)
            | Provider::Braintree(_)
            | Provider::MollieClassic(_)
            | Provider::Toast(_)
            | Provider::Twilio(_) => Ok(()),
        }
    }

    /// See `webhook::verify`.
    pub(super) fn verify(
        &self,
        endpoint: &Endpoint,
        request: &SignedParts<'_>,
        now: UnixMs,
    ) -> Result<Verified, Refusal> {
        let (keys, secrets) = (&self.keys, endpoint.secrets.as_slice());
        let proof = match &self.provider {
            Provider::AdyenStandard(p) => p.verify(keys, secrets, request, now),
            Provider::Braintree(p) => p.verify(keys, secrets, request, now),
            Provider::MollieClassic(p) => p.verify(keys, secrets, request, now),
            Provider::PayPal(p) => p.verify(keys, secrets, request, now),
            Provider::Toast(p) => p.verify(keys, secrets, request, now),
            Provider::Twilio(p) => p.verify(keys, secrets, request, now),
        }?;
        let digest = |bytes: &[u8]| Sha256::digest(bytes).into();
        let replay_key = replay_key(endpoint, &digest(&proof.signed), &digest(&[]));
        let derived = || EventId::Derived(format!("evt_{}", hex::encode(replay_key.0)));
        let (event_id, claimed_id) = match proof.id {
            Id::Signed(id) if !id.is_empty() => (EventId::Signed(portable(endpoint, id)), None),
            Id::Claimed(id) => (derived(), Some(id).filter(|id| is_portable(id))),
            Id::None | Id::Signed(_) => (derived(), None),
        };
        Ok(Verified {
            replay_key,
            signed_at: proof.signed_at,
            expires_at: proof.expires_at,
            event_id,
            claimed_id,
            secret_name: proof.secret,
            covers: proof.covers,
        })
    }

    /// See `webhook::sign`.
    pub(super) fn sign(
        &self,
        secret: &ActiveSecret,
        request: &Unsigned<'_>,
        now: UnixMs,
    ) -> Result<Signed, CannotSign> {
        let keys = &self.keys;
        match &self.provider {
            Provider::AdyenStandard(p) => p.sign(keys, secret, request, now),
            Provider::Braintree(p) => p.sign(keys, secret, request, now),
            Provider::MollieClassic(p) => p.sign(keys, secret, request, now),
            Provider::PayPal(p) => p.sign(keys, secret, request, now),
            Provider::Toast(p) => p.sign(keys, secret, request, now),
            Provider::Twilio(p) => p.sign(keys, secret, request, now),
        }
    }

    /// Braintree's answer to the challenge with which it tries out a URL.
    pub(super) fn challenge_answer(
        &self,
        secret: &ActiveSecret,
        challenge: &str,
    ) -> Option<String> {
        match &self.provider {
            Provider::Braintree(p) => p.challenge_answer(secret, challenge),
            Provider::AdyenStandard(_)
            | Provider::MollieClassic(_)
            | Provider::PayPal(_)
            | Provider::Toast(_)
            | Provider::Twilio(_) => None,
        }
    }

    pub(super) fn keys(&self) -> &Scheme {
        &self.keys
    }

    pub(super) fn signs_body(&self) -> bool {
        match &self.provider {
            Provider::Toast(_) => true,
            Provider::AdyenStandard(_)
            | Provider::Braintree(_)
            | Provider::MollieClassic(_)
            | Provider::PayPal(_)
            | Provider::Twilio(_) => false,
        }
    }

    pub(super) fn tolerance_s(&self) -> Option<(u32, u32)> {
        match &self.provider {
            Provider::PayPal(_) => Some(paypal::TOLERANCE_S),
            Provider::Toast(_) => Some(toast::TOLERANCE_S),
            Provider::AdyenStandard(_)
            | Provider::Braintree(_)
            | Provider::MollieClassic(_)
            | Provider::Twilio(_) => None,
        }
    }

    pub(super) fn has_secrets(&self) -> bool {
        match &self.provider {
            Provider::MollieClassic(_) => false,
            Provider::AdyenStandard(_)
            | Provider::Braintree(_)
            | Provider::PayPal(_)
            | Provider::Toast(_)
            | Provider::Twilio(_) => true,
        }
    }

    /// Whether each secret must say what the provider calls it.
    #[must_use]
    pub fn names_keys(&self) -> bool {
        match &self.provider {
            Provider::Braintree(_) => true,
            Provider::AdyenStandard(_)
            | Provider::MollieClassic(_)
            | Provider::PayPal(_)
            | Provider::Toast(_)
            | Provider::Twilio(_) => false,
        }
    }
}

/// The active secret that `accepts` says yes to. All are asked, so that time does not tell which one
/// it was.
fn matching(
    secrets: &[ActiveSecret],
    now: UnixMs,
    mut accepts: impl FnMut(&ActiveSecret) -> Choice,
) -> Result<&ActiveSecret, Refusal> {
    let mut matched = None;
    let mut active = 0;
    for secret in secrets.iter().filter(|secret| secret.is_active(now)) {
        active += 1;
        if bool::from(accepts(secret)) && matched.is_none() {
            matched = Some(secret);
        }
    }
    if active == 0 {
        return Err(Refusal::NoActiveSecret);
    }
    matched.ok_or(Refusal::NoMatch)
}

/// A signature header's line, or the refusal that it is not there.
fn required<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<&'h [u8], Refusal> {
    let name = HeaderName::from_static(name);
    let line = super::scheme::header(headers, &name)?;
    line.ok_or(Refusal::MissingHeader(name))
}

/// The bytes that `text` spells, where they are as many as a MAC has.
fn decode(keys: &Scheme, text: &[u8]) -> Result<Vec<u8>, Refusal> {
    let bytes = keys.encoding.decode(text).ok_or(Refusal::BadEncoding)?;
    match Some(bytes.len()) == keys.alg.output_len() {
        true => Ok(bytes),
        false => Err(Refusal::BadEncoding),
    }
}

/// The signature of `pieces` as this scheme spells it.
fn spell(keys: &Scheme, secret: &ActiveSecret, pieces: &[&[u8]]) -> Vec<u8> {
    keys.encoding.encode(&secret.mac(pieces))
}

/// A signature in a header of a request that we make.
fn line(name: &'static str, value: &[u8]) -> Result<(HeaderName, HeaderValue), Refusal> {
    let mut value = HeaderValue::from_bytes(value).map_err(|_| Refusal::BadEncoding)?;
    value.set_sensitive(true);
    Ok((HeaderName::from_static(name), value))
}

#[cfg(test)]
mod tests;
