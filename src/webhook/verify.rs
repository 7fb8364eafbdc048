//! Decides whether a request carries a signature that one of the endpoint's secrets made, over these
//! bytes, at about this time. Does not know whether it came before: that is `webhook::replay`.
//!
//! Order of steps: content encoding → signature header → timestamp's spelling → signature over the
//! raw bytes, against every active secret → age → event id. Nothing is parsed before the signature
//! was found good. What comes before the signature needs no body, so [`Verifier`] takes the body as
//! it arrives; [`verify`] is the same for a body that is there.

mod event_id;
mod offer;

use std::sync::Arc;

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256};

pub use event_id::EventId;
pub(super) use event_id::{is_portable, portable};
pub use offer::ITEMS_MAX;

use super::covers::Covers;
use super::key::{Offered, Running};
use super::refusal::Refusal;
use super::replay::ReplayKey;
use super::rules::Rules;
use super::scheme::{Alg, IdFrom, Inputs, Scheme, TsFrom, TsRule, header};
use super::special::Special;
use super::{ActiveSecret, Endpoint};
use crate::kernel::clock::UnixMs;

/// How much longer than its timestamp allows an accepted message is remembered, in case the clock
/// is set back.
const SKEW_MS: i64 = 5_000;

/// The parts of a request that a provider may have signed, its body apart.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub method: &'a str,
    /// Raw query without `?`; empty where there is none.
    pub query: &'a str,
    pub headers: &'a HeaderMap,
}

/// The parts of a request that a provider may have signed.
#[derive(Clone, Copy, Debug)]
pub struct SignedParts<'a> {
    pub method: &'a str,
    /// Raw query without `?`; empty where there is none.
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    /// Exactly as received.
    pub body: &'a [u8],
}

/// A webhook that its provider signed. Whether it is new is not known yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verified {
    /// Names the signed bytes at this endpoint, however the signature was spelled.
    pub replay_key: ReplayKey,
    /// When the provider signed; `None` for schemes without a timestamp.
    pub signed_at: Option<UnixMs>,
    /// The moment from which the timestamp check alone refuses these bytes; `None` = never.
    pub expires_at: Option<UnixMs>,
    /// What deliveries of this event are called; the same for every attempt.
    pub event_id: EventId,
    /// An id that came unsigned; for the log only.
    pub claimed_id: Option<String>,
    /// Which secret matched, for the metric that shows when an old one is unused.
    pub secret_name: Arc<str>,
    /// What of the message the provider vouches for.
    pub covers: Covers,
}

/// Checks everything that can be checked without memory.
///
/// # Errors
/// The first check that failed; the caller turns it into a `Reject`, which does not say which.
pub fn verify(
    endpoint: &Endpoint,
    request: &SignedParts<'_>,
    now: UnixMs,
) -> Result<Verified, Refusal> {
    let head = Head {
        method: request.method,
        query: request.query,
        headers: request.headers,
    };
    let mut verifier = Verifier::begin(endpoint, &head, now)?;
    verifier.update(request.body);
    verifier.finish(request.body, now)
}

/// A check that takes the body as it arrives, so that it costs nothing more at the body's end. Special
/// schemes look at the body as a whole and begin at its end.
pub struct Verifier<'e>(Part<'e>);

enum Part<'e> {
    Grammar(Box<ByGrammar<'e>>),
    Special(Box<BySpecial<'e>>),
}

impl<'e> Verifier<'e> {
    /// Reads the head. What is refused here needs no body.
    ///
    /// # Errors
    /// A head that cannot belong to a signed request, however its body goes on.
    pub fn begin(endpoint: &'e Endpoint, head: &Head<'_>, now: UnixMs) -> Result<Self, Refusal> {
        refuse_content_encoding(head.headers)?;
        Ok(Self(match endpoint.scheme.as_ref() {
            Rules::Grammar(scheme) => {
                let begun = ByGrammar::begin(endpoint, scheme, head, now)?;
                Part::Grammar(Box::new(begun))
            }
            Rules::Special(special) => Part::Special(Box::new(BySpecial {
                endpoint,
                special,
                method: head.method.to_owned(),
                query: head.query.to_owned(),
                headers: head.headers.clone(),
            })),
        }))
    }

    /// The next bytes of the body, exactly as they were received.
    pub fn update(&mut self, chunk: &[u8]) {
        match &mut self.0 {
            Part::Grammar(begun) => begun.update(chunk),
            Part::Special(_) => {}
        }
    }

    /// The verdict. `body` is everything that `update` has seen; a scheme of the grammar reads it only
    /// for what is said to be in it, and only after the signature was found good.
    ///
    /// # Errors
    /// As [`verify`].
    pub fn finish(self, body: &[u8], now: UnixMs) -> Result<Verified, Refusal> {
        match self.0 {
            Part::Grammar(begun) => begun.finish(body, now),
            Part::Special(begun) => begun.finish(body, now),
        }
    }
}

/// The head of a message of a special scheme.
struct BySpecial<'e> {
    endpoint: &'e Endpoint,
    special: &'e Special,
    method: String,
    query: String,
    headers: HeaderMap,
}

impl BySpecial<'_> {
    fn finish(&self, body: &[u8], now: UnixMs) -> Result<Verified, Refusal> {
        let request = SignedParts {
            method: &self.method,
            query: &self.query,
            headers: &self.headers,
            body,
        };
        self.special.verify(self.endpoint, &request, now)
    }
}

/// Every active secret is tried, whichever was the right one.
struct ByGrammar<'e> {
    endpoint: &'e Endpoint,
    scheme: &'e Scheme,
    offered: Vec<Offered>,
    /// Secrets that were active at the beginning.
    running: Vec<(&'e ActiveSecret, Running)>,
    /// Where it is known before the body is verified.
    signed_at: Option<UnixMs>,
    id_in_header: Option<String>,
    /// What is signed after the body.
    after: Vec<u8>,
    /// Of the signed bytes.
    signed: Sha256,
    /// Of the body, where it is not signed.
    unsigned: Sha256,
    body_bytes: usize,
}

impl<'e> ByGrammar<'e> {
    fn begin(
        endpoint: &'e Endpoint,
        scheme: &'e Scheme,
        head: &Head<'_>,
        now: UnixMs,
    ) -> Result<Self, Refusal> {
        let found = offer::read(scheme, head.headers)?;
        let ts = timestamp_text(scheme, found.ts, head.headers)?;
        let signed_at = scheme
            .ts
            .as_ref()
            .zip(ts)
            .map(|(rule, text)| rule.unit.parse(text).ok_or(Refusal::BadTimestamp));
        let rendered = scheme.signed.render(&Inputs {
            ts: ts.unwrap_or_default(),
            method: head.method,
            url: &scheme.public_url,
            query: head.query,
            headers: head.headers,
        });
        let signed_at = signed_at.transpose()?;
        let rendered = rendered?;
        let active = endpoint.secrets.iter().filter(|s| s.is_active(now));
        let running = active.map(|secret| (secret, secret.begin(&found.offered)));
        let mut verifier = Self {
            endpoint,
            scheme,
            running: running.collect(),
            offered: found.offered,
            signed_at,
            id_in_header: id_in_header(scheme, head.headers),
            after: rendered.after,
            signed: Sha256::new(),
            unsigned: Sha256::new(),
            body_bytes: 0,
        };
        if verifier.running.is_empty() {
            return Err(Refusal::NoActiveSecret);
        }
        verifier.take_signed(&rendered.before);
        Ok(verifier)
    }

    fn update(&mut self, chunk: &[u8]) {
        self.body_bytes += chunk.len();
        if self.scheme.signs_body() {
            self.take_signed(chunk);
        } else {
            self.unsigned.update(chunk);
        }
    }

    fn finish(mut self, body: &[u8], now: UnixMs) -> Result<Verified, Refusal> {
        if body.len() != self.body_bytes {
            debug_assert!(false, "another body than the one that was checked");
            return Err(Refusal::NoMatch);
        }
        let after = std::mem::take(&mut self.after);
        self.take_signed(&after);
        let signed: [u8; 32] = self.signed.finalize().into();
        let secret = matching_secret(self.running, &signed, &self.offered)?;

        let rule = self.scheme.ts.as_ref();
        let signed_at = match (rule, self.signed_at) {
            (Some(rule), None) => Some(timestamp_in_body(rule, body)?),
            (Some(_) | None, early) => early,
        };
        let expires_at = match (rule, signed_at) {
            (Some(rule), Some(at)) => Some(check_tolerance((rule.past_s, rule.future_s), at, now)?),
            (Some(_) | None, _) => None,
        };
        let replay_key = replay_key(self.endpoint, &signed, &self.unsigned.finalize().into());
        let (event_id, claimed_id) = event_id::read(
            self.endpoint,
            self.scheme,
            self.id_in_header,
            body,
            &replay_key,
        );
        Ok(Verified {
            replay_key,
            signed_at,
            expires_at,
            event_id,
            claimed_id,
            secret_name: secret.name().clone(),
            covers: covers(self.scheme),
        })
    }

    fn take_signed(&mut self, bytes: &[u8]) {
        self.signed.update(bytes);
        for (_, running) in &mut self.running {
            running.update(bytes);
        }
    }
}

fn covers(scheme: &Scheme) -> Covers {
    match (scheme.signs_body(), scheme.alg) {
        (true, _) => Covers::Body,
        (false, Alg::Equal) => Covers::Token,
        (
            false,
            Alg::HmacSha256 | Alg::HmacSha512 | Alg::HmacSha1 | Alg::Ed25519 | Alg::EcdsaP256,
        ) => Covers::Fields("of the request only what `signed` of the scheme names"),
    }
}

/// The signature is over the bytes on the wire; what a decoder would make of them is not signed.
fn refuse_content_encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    let plain = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        Ok(())
    } else {
        Err(Refusal::ContentEncoding)
    }
}

/// The timestamp's text where it is known before the body is verified.
fn timestamp_text<'a>(
    scheme: &Scheme,
    in_item: Option<&'a [u8]>,
    headers: &'a HeaderMap,
) -> Result<Option<&'a [u8]>, Refusal> {
    match scheme.ts.as_ref().map(|rule| &rule.from) {
        None | Some(TsFrom::Json(_)) => Ok(None),
        Some(TsFrom::Item) => in_item.map(Some).ok_or(Refusal::MissingTimestamp),
        Some(TsFrom::Header(name)) => header(headers, name)?
            .map(Some)
            .ok_or(Refusal::MissingTimestamp),
    }
}

fn id_in_header(scheme: &Scheme, headers: &HeaderMap) -> Option<String> {
    let name: &HeaderName = match scheme.id.as_ref()? {
        IdFrom::SignedHeader(name) | IdFrom::UnsignedHeader(name) => name,
        IdFrom::SignedJson(_) | IdFrom::UnsignedJson(_) => return None,
    };
    let value = header(headers, name).ok().flatten()?;
    std::str::from_utf8(value).ok().map(str::to_owned)
}

/// Never stops early, so that time does not tell which secret or signature was the right one.
fn matching_secret<'e>(
    running: Vec<(&'e ActiveSecret, Running)>,
    digest: &[u8; 32],
    offered: &[Offered],
) -> Result<&'e ActiveSecret, Refusal> {
    let mut matched = None;
    for (secret, running) in running {
        let hit = running.finish(secret.alg(), digest, offered);
        if hit && matched.is_none() {
            matched = Some(secret);
        }
    }
    matched.ok_or(Refusal::NoMatch)
}

fn timestamp_in_body(rule: &TsRule, body: &[u8]) -> Result<UnixMs, Refusal> {
    let text = match &rule.from {
        TsFrom::Json(pointer) => pointer.find(body),
        TsFrom::Item | TsFrom::Header(_) => None,
    };
    let text = text.ok_or(Refusal::MissingTimestamp)?;
    rule.unit
        .parse(text.as_bytes())
        .ok_or(Refusal::BadTimestamp)
}

/// The moment from which these bytes are refused as stale. It hangs on the timestamp and not on the
/// arrival: a message dated ahead stays good for past + future.
pub(super) fn check_tolerance(
    (past_s, future_s): (u32, u32),
    at: UnixMs,
    now: UnixMs,
) -> Result<UnixMs, Refusal> {
    let age_ms = now.0.saturating_sub(at.0);
    let (past_ms, future_ms) = (i64::from(past_s) * 1000, i64::from(future_s) * 1000);
    if age_ms > past_ms {
        return Err(Refusal::Stale {
            age_s: age_ms.unsigned_abs() / 1000,
        });
    }
    if age_ms < -future_ms {
        return Err(Refusal::Future {
            ahead_s: age_ms.unsigned_abs() / 1000,
        });
    }
    Ok(UnixMs(at.0.saturating_add(past_ms).saturating_add(SKEW_MS)))
}

/// SHA-256 over endpoint ‖ SHA-256 of the signed bytes ‖ SHA-256 of the body where it is unsigned. Not
/// over the header: one signature has several spellings, and with two secrets one message has two.
pub(super) fn replay_key(endpoint: &Endpoint, signed: &[u8; 32], unsigned: &[u8; 32]) -> ReplayKey {
    let mut hash = Sha256::new();
    hash_part(&mut hash, endpoint.name.as_bytes());
    hash.update(signed);
    hash.update(unsigned);
    ReplayKey(hash.finalize().into())
}

/// With its length in front, so that it cannot run into what follows.
fn hash_part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests;
