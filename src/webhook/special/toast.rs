//! Toast: HMAC over the body followed by the timestamp that is inside the body. One value has to be
//! read before anything is verified; it is read strictly, and nothing is done with it but hashing.

use subtle::ConstantTimeEq;

use super::{Id, Proof, SpecialSpec, decode, line, matching, required, spell};
use crate::kernel::clock::UnixMs;
use crate::webhook::ActiveSecret;
use crate::webhook::covers::Covers;
use crate::webhook::pointer::Pointer;
use crate::webhook::refusal::Refusal;
use crate::webhook::scheme::{Scheme, SchemeError, SchemeSpec, Unit};
use crate::webhook::sign::{CannotSign, Signed, Unsigned};
use crate::webhook::verify::{SignedParts, check_tolerance};

/// Past and future. Toast sends again after 5 and after 10 more minutes, the same bytes; an hour
/// leaves room for its queue.
pub(super) const TOLERANCE_S: (u32, u32) = (3_600, 300);

const SIGNATURE: &str = "toast-signature";

#[derive(Clone, Debug)]
pub(super) struct Toast {
    timestamp: Pointer,
    guid: Pointer,
}

impl Toast {
    pub(super) fn build(_: &SpecialSpec) -> Result<Self, Vec<SchemeError>> {
        let pointer = |text: &str| {
            let error = || SchemeError::new("special", "no pointer", "");
            Pointer::parse(text).ok_or_else(|| vec![error()])
        };
        Ok(Self {
            timestamp: pointer("/timestamp")?,
            guid: pointer("/guid")?,
        })
    }

    pub(super) fn verify(
        &self,
        keys: &Scheme,
        secrets: &[ActiveSecret],
        request: &SignedParts<'_>,
        now: UnixMs,
    ) -> Result<Proof, Refusal> {
        let given = decode(keys, required(request.headers, SIGNATURE)?)?;
        let (text, at) = self.moment(request.body)?;
        let secret = matching(secrets, now, |secret| {
            let mac = secret.mac(&[request.body, text.as_bytes()]);
            mac.as_slice().ct_eq(&given)
        })?;
        let expires_at = check_tolerance(TOLERANCE_S, at, now)?;
        // The timestamp is in the body, so the body alone says which message it is.
        let mut proof = Proof::new(secret, request.body.to_vec(), Covers::Body);
        proof.signed_at = Some(at);
        proof.expires_at = Some(expires_at);
        proof.id = self.guid.find(request.body).map_or(Id::None, Id::Signed);
        Ok(proof)
    }

    pub(super) fn sign(
        &self,
        keys: &Scheme,
        secret: &ActiveSecret,
        request: &Unsigned<'_>,
        _: UnixMs,
    ) -> Result<Signed, CannotSign> {
        let (text, _) = self.moment(request.body)?;
        let signature = spell(keys, secret, &[request.body, text.as_bytes()]);
        Ok(Signed {
            headers: vec![line(SIGNATURE, &signature)?],
            ..Signed::default()
        })
    }

    fn moment(&self, body: &[u8]) -> Result<(String, UnixMs), Refusal> {
        let text = self.timestamp.find(body);
        let text = text.ok_or(Refusal::MissingTimestamp)?;
        let at = Unit::Rfc3339.parse(text.as_bytes());
        let at = at.ok_or(Refusal::BadTimestamp)?;
        Ok((text, at))
    }
}

pub(super) fn keys() -> SchemeSpec {
    SchemeSpec {
        header: SIGNATURE.into(),
        encoding: Some("base64".into()),
        key: Some("utf8".into()),
        signed: Some("{body}".into()),
        ..SchemeSpec::default()
    }
}
