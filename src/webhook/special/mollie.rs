//! Mollie's classic webhooks: `id=tr_…` and no signature. Anybody can send one, so nothing but an id
//! gets through, and it is told to the API that nothing is authenticated: the API asks Mollie about
//! the id. The same id comes again at each change of state, so no arrival is a replay.

use super::{Proof, SpecialSpec, form};
use crate::kernel::clock::UnixMs;
use crate::webhook::ActiveSecret;
use crate::webhook::covers::Covers;
use crate::webhook::refusal::Refusal;
use crate::webhook::scheme::{Scheme, SchemeError, SchemeSpec};
use crate::webhook::sign::{CannotSign, Signed, Unsigned};
use crate::webhook::verify::SignedParts;

/// Longest id.
const ID_BYTES_MAX: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct Mollie;

impl Mollie {
    pub(super) fn build(spec: &SpecialSpec) -> Result<Self, Vec<SchemeError>> {
        if spec.danger_unsigned {
            return Ok(Self);
        }
        Err(vec![SchemeError::new(
            "danger_unsigned",
            "mollie-classic messages are not signed, and anybody can send one",
            "use Mollie's next-gen webhooks, or write danger_unsigned = true and have the API ask \
             Mollie about each id",
        )])
    }

    #[expect(clippy::unused_self, reason = "the shape that all providers have")]
    pub(super) fn verify(
        &self,
        _: &Scheme,
        _: &[ActiveSecret],
        request: &SignedParts<'_>,
        now: UnixMs,
    ) -> Result<Proof, Refusal> {
        let id = request.body.strip_prefix(b"id=");
        let id = id.filter(|id| form::is_declared(request.headers) && is_id(id));
        let id = id.ok_or(Refusal::BadBody("a form of one id such as tr_…"))?;
        // Each arrival is an event of its own.
        let mut signed = now.0.to_be_bytes().to_vec();
        signed.extend(id);
        Ok(Proof {
            signed,
            secret: "none".into(),
            covers: Covers::Nothing,
            signed_at: None,
            expires_at: Some(now),
            id: super::Id::Claimed(String::from_utf8_lossy(id).into_owned()),
        })
    }

    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the shape that all providers have"
    )]
    pub(super) fn sign(
        &self,
        _: &Scheme,
        _: &ActiveSecret,
        _: &Unsigned<'_>,
        _: UnixMs,
    ) -> Result<Signed, CannotSign> {
        Ok(Signed {
            headers: vec![super::braintree::form_type()],
            ..Signed::default()
        })
    }
}

pub(super) fn keys() -> SchemeSpec {
    SchemeSpec {
        // There is none; the grammar wants a name.
        header: "x-unsigned".into(),
        alg: Some("equal".into()),
        unsigned_body: true,
        ..SchemeSpec::default()
    }
}

/// A kind, `_` and letters or digits, e.g. `tr_WDqYK6vllg`.
fn is_id(id: &[u8]) -> bool {
    let Some(at) = id.iter().position(|b| *b == b'_') else {
        return false;
    };
    let (kind, rest) = id.split_at(at);
    let rest = rest.get(1..).unwrap_or_default();
    let plain = |b: &u8| b.is_ascii_alphanumeric();
    id.len() <= ID_BYTES_MAX
        && !kind.is_empty()
        && kind.iter().all(u8::is_ascii_lowercase)
        && !rest.is_empty()
        && rest.iter().all(plain)
}
