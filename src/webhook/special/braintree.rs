//! Braintree: a form of a payload and of signatures by public key. The MAC's key is the SHA-1 of the
//! private key. Nothing but `bt_payload` is signed.
//!
//! The challenge with which Braintree tries out a URL is answered with a MAC under the same key, for
//! anybody who asks. A payload that could be such a challenge is therefore refused: its signature
//! can be had for the asking.

use hmac::{Hmac, KeyInit, Mac};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use sha1::{Digest, Sha1};
use subtle::{Choice, ConstantTimeEq};

use super::{Proof, SpecialSpec, form, matching};
use crate::kernel::clock::UnixMs;
use crate::webhook::ActiveSecret;
use crate::webhook::covers::Covers;
use crate::webhook::refusal::Refusal;
use crate::webhook::scheme::{Encoding, Scheme, SchemeError, SchemeSpec};
use crate::webhook::sign::{CannotSign, Signed, Unsigned};
use crate::webhook::verify::{ITEMS_MAX, SignedParts};

const COVERED: &str = "of the form only bt_payload";
const MAC_BYTES: usize = 20;
/// Digits of a challenge.
const CHALLENGE: std::ops::RangeInclusive<usize> = 20..=32;

#[derive(Clone, Debug)]
pub(super) struct Braintree;

impl Braintree {
    #[expect(
        clippy::unnecessary_wraps,
        reason = "the shape that all providers have"
    )]
    pub(super) fn build(_: &SpecialSpec) -> Result<Self, Vec<SchemeError>> {
        Ok(Self)
    }

    #[expect(clippy::unused_self, reason = "the shape that all providers have")]
    pub(super) fn verify(
        &self,
        _: &Scheme,
        secrets: &[ActiveSecret],
        request: &SignedParts<'_>,
        now: UnixMs,
    ) -> Result<Proof, Refusal> {
        if !form::is_declared(request.headers) {
            return Err(Refusal::BadBody("declared to be a form"));
        }
        let fields = form::read(request.body).ok_or(Refusal::BadBody("a form"))?;
        let field = |name: &'static str| {
            let value = form::only(&fields, name.as_bytes());
            let value = value.filter(|v| !v.is_empty());
            value.ok_or(Refusal::MissingField(name))
        };
        let (signatures, payload) = (field("bt_signature")?, field("bt_payload")?);
        let base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'\n');
        if !payload.iter().all(base64) {
            return Err(Refusal::BadBody("a form with base64 in bt_payload"));
        }
        let text = payload.trim_ascii_end();
        if is_challenge(text) {
            return Err(Refusal::Ambiguous);
        }
        let pairs = pairs(signatures)?;
        let secret = matching(secrets, now, |secret| {
            let macs = [mac(secret, &[payload]), mac(secret, &[payload, b"\n"])];
            let ours = pairs.iter().filter(|(id, _)| secret.is_called(id));
            ours.flat_map(|(_, given)| macs.each_ref().map(|mac| mac.as_slice().ct_eq(given)))
                .fold(Choice::from(0), |hit, one| hit | one)
        })?;
        // Signed with or without its last line break it is the same payload.
        Ok(Proof::new(secret, text.to_vec(), Covers::Fields(COVERED)))
    }

    /// Signs `request.body`, the XML of a notification.
    #[expect(clippy::unused_self, reason = "the shape that all providers have")]
    pub(super) fn sign(
        &self,
        _: &Scheme,
        secret: &ActiveSecret,
        request: &Unsigned<'_>,
        _: UnixMs,
    ) -> Result<Signed, CannotSign> {
        let mut payload = Encoding::Base64.encode(request.body);
        payload.push(b'\n');
        let id = secret.key_id().ok_or(CannotSign::OnlyProvider)?;
        let signature = format!("{id}|{}", hex::encode(mac(secret, &[&payload])));
        let body = form::write(&[
            ("bt_signature", signature.as_bytes()),
            ("bt_payload", &payload),
        ]);
        Ok(Signed {
            headers: vec![form_type()],
            body: Some(body),
            ..Signed::default()
        })
    }

    #[expect(clippy::unused_self, reason = "the shape that all providers have")]
    pub(super) fn challenge_answer(
        &self,
        secret: &ActiveSecret,
        challenge: &str,
    ) -> Option<String> {
        let id = secret
            .key_id()
            .filter(|_| is_challenge(challenge.as_bytes()))?;
        let mac = mac(secret, &[challenge.as_bytes()]);
        Some(format!("{id}|{}", hex::encode(mac)))
    }
}

pub(super) fn keys() -> SchemeSpec {
    SchemeSpec {
        // There is none; the grammar wants a name.
        header: "bt-signature".into(),
        // Its own MAC is below: the key is a digest of the secret.
        alg: Some("equal".into()),
        unsigned_body: true,
        ..SchemeSpec::default()
    }
}

pub(super) fn form_type() -> (HeaderName, HeaderValue) {
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    (CONTENT_TYPE, form)
}

fn is_challenge(text: &[u8]) -> bool {
    let digit = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    CHALLENGE.contains(&text.len()) && text.iter().all(digit)
}

/// A public key and a MAC.
type Pair<'t> = (&'t [u8], Vec<u8>);

/// `public|signature` joined with `&`; what is of another form is left alone.
fn pairs(text: &[u8]) -> Result<Vec<Pair<'_>>, Refusal> {
    let mut found = Vec::new();
    for (at, pair) in text.split(|b| *b == b'&').enumerate() {
        if at >= ITEMS_MAX {
            return Err(Refusal::TooManyItems { max: ITEMS_MAX });
        }
        let mut halves = pair.split(|b| *b == b'|');
        if let (Some(id), Some(mac), None) = (halves.next(), halves.next(), halves.next()) {
            let mac = Encoding::HexLower.decode(mac);
            found.extend(mac.filter(|m| m.len() == MAC_BYTES).map(|m| (id, m)));
        }
    }
    match found.is_empty() {
        true => Err(Refusal::NoSignature),
        false => Ok(found),
    }
}

fn mac(secret: &ActiveSecret, pieces: &[&[u8]]) -> Vec<u8> {
    let key = Sha1::digest(secret.token());
    // A key of any length is one; the empty MAC equals no signature.
    let Ok(mut state) = Hmac::<Sha1>::new_from_slice(&key) else {
        return Vec::new();
    };
    pieces.iter().for_each(|piece| state.update(piece));
    state.finalize().into_bytes().to_vec()
}
