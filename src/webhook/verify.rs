//! Decides whether a request carries a signature that one of the endpoint's secrets made, over these
//! bytes, at about this time. Does not know whether it came before: that is `webhook::replay`.
//!
//! Order of steps: content encoding → signature header → timestamp's spelling → signature over the
//! raw bytes, against every active secret → age → event id. Nothing is parsed before the signature
//! was found good.

use std::sync::Arc;

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::covers::Covers;
use super::refusal::Refusal;
use super::replay::ReplayKey;
use super::scheme::{Alg, Capture, IdFrom, Inputs, Scheme, TsFrom, TsRule, header};
use super::verifier::Verifier;
use super::{ActiveSecret, Endpoint};
use crate::kernel::clock::UnixMs;

/// More items than this in one signature header are refused.
pub const ITEMS_MAX: usize = 16;
/// How much longer than its timestamp allows an accepted message is remembered, in case the clock
/// is set back.
const SKEW_MS: i64 = 5_000;
const EVENT_ID_BYTES_MAX: usize = 128;

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

/// The event's id and what it rests on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EventId {
    /// The provider's own and covered by its signature: two messages with it are one event.
    Signed(String),
    /// Made by us from the signed bytes.
    Derived(String),
}

impl EventId {
    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Signed(id) | Self::Derived(id) => id,
        }
    }

    /// The id, where the provider gave one and signed it.
    #[must_use]
    pub fn signed(&self) -> Option<&str> {
        match self {
            Self::Signed(id) => Some(id),
            Self::Derived(_) => None,
        }
    }
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
    refuse_content_encoding(request.headers)?;
    match endpoint.scheme.as_ref() {
        Verifier::Grammar(scheme) => by_grammar(endpoint, scheme, request, now),
        Verifier::Special(special) => special.verify(endpoint, request, now),
    }
}

fn by_grammar(
    endpoint: &Endpoint,
    scheme: &Scheme,
    request: &SignedParts<'_>,
    now: UnixMs,
) -> Result<Verified, Refusal> {
    let found = Found::read(scheme, request.headers)?;
    let ts_text = timestamp_text(scheme, &found, request.headers)?;
    let early = scheme
        .ts
        .as_ref()
        .zip(ts_text)
        .map(|(rule, text)| rule.unit.parse(text).ok_or(Refusal::BadTimestamp));
    let early = early.transpose()?;
    let pieces = scheme.signed.render(&Inputs {
        body: request.body,
        ts: ts_text.unwrap_or_default(),
        method: request.method,
        url: &scheme.public_url,
        query: request.query,
        headers: request.headers,
    })?;

    let secret = matching_secret(scheme, &endpoint.secrets, &found, &pieces, now)?;

    let signed_at = match (&scheme.ts, early) {
        (Some(rule), None) => Some(timestamp_in_body(rule, request.body)?),
        (Some(_) | None, early) => early,
    };
    let expires_at = match (&scheme.ts, signed_at) {
        (Some(rule), Some(at)) => Some(check_tolerance((rule.past_s, rule.future_s), at, now)?),
        (Some(_) | None, _) => None,
    };
    let unsigned: &[u8] = match scheme.signs_body() {
        true => &[],
        false => request.body,
    };
    let replay_key = replay_key_over(&endpoint.name, &pieces, unsigned);
    let (event_id, claimed_id) = event_id(endpoint, scheme, request, &replay_key);
    let secret_name = secret.name().clone();
    Ok(Verified {
        replay_key,
        signed_at,
        expires_at,
        event_id,
        claimed_id,
        secret_name,
        covers: covers(scheme),
    })
}

fn covers(scheme: &Scheme) -> Covers {
    match (scheme.signs_body(), scheme.alg) {
        (true, _) => Covers::Body,
        (false, Alg::Equal) => Covers::Token,
        (false, Alg::HmacSha256 | Alg::HmacSha512 | Alg::HmacSha1) => {
            Covers::Fields("of the request only what `signed` of the scheme names")
        }
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

/// What the signature header offers.
struct Found<'a> {
    /// Decoded candidates, all of the right length.
    signatures: Vec<Vec<u8>>,
    ts: Option<&'a [u8]>,
}

impl<'a> Found<'a> {
    fn read(scheme: &Scheme, headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let line = required(headers, &scheme.header)?;
        let (signatures, ts) = items(scheme, line)?;
        if signatures.is_empty() {
            return Err(Refusal::NoSignature);
        }
        let decoded = signatures.iter().filter_map(|text| decode(scheme, text));
        let signatures: Vec<_> = decoded.collect();
        if signatures.is_empty() {
            return Err(Refusal::BadEncoding);
        }
        Ok(Self { signatures, ts })
    }
}

type Items<'a> = (Vec<&'a [u8]>, Option<&'a [u8]>);

/// Sorts the header's items into signatures and the timestamp. Items of no known shape are left
/// alone: providers add versions.
fn items<'a>(scheme: &Scheme, line: &'a [u8]) -> Result<Items<'a>, Refusal> {
    let mut signatures = Vec::new();
    let mut ts = None;
    for (at, item) in split(scheme.split, line).enumerate() {
        if at >= ITEMS_MAX {
            return Err(Refusal::TooManyItems { max: ITEMS_MAX });
        }
        let shape = scheme
            .items
            .iter()
            .find_map(|p| Some((p.capture(), p.find(item)?)));
        match shape {
            None => {}
            Some((Capture::Sig, text)) => signatures.push(text),
            Some((Capture::Ts, _)) if ts.is_some() => return Err(Refusal::DuplicateTimestamp),
            Some((Capture::Ts, text)) => ts = Some(text),
        }
    }
    Ok((signatures, ts))
}

/// Items without the blanks around them; a header that is one item is taken as it is.
fn split(separator: Option<u8>, line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = separator.is_none();
    line.split(move |byte| separator == Some(*byte))
        .map(move |item| if whole { item } else { item.trim_ascii() })
}

/// Bytes to compare with the MAC. A token is compared by digest, so that its length does not show.
fn decode(scheme: &Scheme, text: &[u8]) -> Option<Vec<u8>> {
    let bytes = scheme.encoding.decode(text)?;
    match scheme.alg {
        Alg::Equal => (!bytes.is_empty()).then(|| Sha256::digest(&bytes).to_vec()),
        Alg::HmacSha256 | Alg::HmacSha512 | Alg::HmacSha1 => {
            (bytes.len() == scheme.alg.output_len()).then_some(bytes)
        }
    }
}

/// The timestamp's text where it is known before the body is verified.
fn timestamp_text<'a>(
    scheme: &Scheme,
    found: &Found<'a>,
    headers: &'a HeaderMap,
) -> Result<Option<&'a [u8]>, Refusal> {
    match scheme.ts.as_ref().map(|rule| &rule.from) {
        None | Some(TsFrom::Json(_)) => Ok(None),
        Some(TsFrom::Item) => found.ts.map(Some).ok_or(Refusal::MissingTimestamp),
        Some(TsFrom::Header(name)) => header(headers, name)?
            .map(Some)
            .ok_or(Refusal::MissingTimestamp),
    }
}

fn required<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], Refusal> {
    header(headers, name)?.ok_or_else(|| Refusal::MissingHeader(name.clone()))
}

/// One MAC for each active secret, compared with each candidate; never stops early, so that time
/// does not tell which secret or candidate was the right one.
fn matching_secret<'s, T: AsRef<[u8]>>(
    scheme: &Scheme,
    secrets: &'s [ActiveSecret],
    found: &Found<'_>,
    pieces: &[T],
    now: UnixMs,
) -> Result<&'s ActiveSecret, Refusal> {
    debug_assert!(
        found
            .signatures
            .iter()
            .all(|sig| sig.len() == scheme.alg.output_len())
    );
    let mut matched = None;
    let mut active = 0;
    for secret in secrets.iter().filter(|secret| secret.is_active(now)) {
        active += 1;
        let mac = secret.mac(pieces);
        let hit = found
            .signatures
            .iter()
            .fold(Choice::from(0), |hit, signature| {
                hit | mac.as_slice().ct_eq(signature)
            });
        if bool::from(hit) && matched.is_none() {
            matched = Some(secret);
        }
    }
    if active == 0 {
        return Err(Refusal::NoActiveSecret);
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

/// SHA-256 over endpoint ‖ signed bytes ‖ body where it is unsigned, each with its length. Not over
/// the header: one signature has several spellings, and with two secrets one message has two.
pub(super) fn replay_key_over<T: AsRef<[u8]>>(
    endpoint: &str,
    pieces: &[T],
    unsigned: &[u8],
) -> ReplayKey {
    let mut hash = Sha256::new();
    hash_part(&mut hash, &[endpoint.as_bytes()]);
    hash_part(&mut hash, pieces);
    hash_part(&mut hash, &[unsigned]);
    ReplayKey(hash.finalize().into())
}

fn hash_part<T: AsRef<[u8]>>(hash: &mut Sha256, pieces: &[T]) {
    let len: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
    hash.update(u64::try_from(len).unwrap_or(u64::MAX).to_be_bytes());
    for piece in pieces {
        hash.update(piece.as_ref());
    }
}

/// The id under which the event is delivered, and the unsigned one if there is one.
fn event_id(
    endpoint: &Endpoint,
    scheme: &Scheme,
    request: &SignedParts<'_>,
    key: &ReplayKey,
) -> (EventId, Option<String>) {
    let derived = || EventId::Derived(format!("evt_{}", hex::encode(key.0)));
    let header = |name: &HeaderName| {
        let value = header(request.headers, name).ok().flatten()?;
        std::str::from_utf8(value).ok().map(str::to_owned)
    };
    let signed = |id: Option<String>| {
        let id = id.filter(|id| !id.is_empty());
        id.map_or_else(derived, |id| EventId::Signed(portable(endpoint, id)))
    };
    match &scheme.id {
        None => (derived(), None),
        Some(IdFrom::SignedHeader(name)) => (signed(header(name)), None),
        Some(IdFrom::SignedJson(pointer)) => (signed(pointer.find(request.body)), None),
        Some(IdFrom::UnsignedHeader(name)) => (derived(), harmless(header(name))),
        Some(IdFrom::UnsignedJson(pointer)) => (derived(), harmless(pointer.find(request.body))),
    }
}

/// An id travels in headers and, with dots between the parts, in the delivery's signature. One that
/// cannot is replaced by its digest, which is as stable as the id.
pub(super) fn portable(endpoint: &Endpoint, id: String) -> String {
    if is_portable(&id) {
        return id;
    }
    let mut hash = Sha256::new();
    hash_part(&mut hash, &[endpoint.name.as_bytes()]);
    hash_part(&mut hash, &[id.as_bytes()]);
    format!("evt_{}", hex::encode(hash.finalize()))
}

pub(super) fn is_portable(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':' | b'/' | b'=');
    id.len() <= EVENT_ID_BYTES_MAX && id.bytes().all(plain)
}

fn harmless(id: Option<String>) -> Option<String> {
    id.filter(|id| is_portable(id))
}

#[cfg(test)]
mod tests;
