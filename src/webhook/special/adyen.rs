//! Adyen's standard webhooks: each item of a batch carries its own signature inside the body, over
//! eight of its fields. Every item must verify; fields outside the eight are nobody's word.

use serde::Deserialize;
use subtle::{Choice, ConstantTimeEq};

use super::{Id, Proof, SpecialSpec, decode, matching, spell};
use crate::kernel::clock::UnixMs;
use crate::webhook::ActiveSecret;
use crate::webhook::covers::Covers;
use crate::webhook::refusal::Refusal;
use crate::webhook::scheme::{Scheme, SchemeError, SchemeSpec};
use crate::webhook::sign::{CannotSign, Signed, Unsigned};
use crate::webhook::verify::{ITEMS_MAX, SignedParts};

const COVERED: &str = "of each item only pspReference, originalReference, merchantAccountCode, \
                       merchantReference, amount, eventCode and success";

#[derive(Clone, Debug)]
pub(super) struct Adyen;

#[derive(Deserialize)]
struct Batch {
    #[serde(rename = "notificationItems")]
    items: Vec<Wrapper>,
}

#[derive(Deserialize)]
struct Wrapper {
    #[serde(rename = "NotificationRequestItem")]
    item: Item,
}

/// A key that is there twice is an error; the reader behind us might take the other one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    psp_reference: String,
    original_reference: Option<String>,
    merchant_account_code: String,
    merchant_reference: Option<String>,
    amount: Amount,
    event_code: String,
    success: String,
    additional_data: Option<AdditionalData>,
}

#[derive(Deserialize)]
struct Amount {
    value: i64,
    currency: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AdditionalData {
    hmac_signature: Option<String>,
}

impl Adyen {
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
        keys: &Scheme,
        secrets: &[ActiveSecret],
        request: &SignedParts<'_>,
        now: UnixMs,
    ) -> Result<Proof, Refusal> {
        let batch: Batch = serde_json::from_slice(request.body)
            .map_err(|_| Refusal::BadBody("a batch of notification items in JSON"))?;
        if batch.items.len() > ITEMS_MAX {
            return Err(Refusal::TooManyItems { max: ITEMS_MAX });
        }
        let mut signed = Vec::new();
        let mut first = None;
        for Wrapper { item } in &batch.items {
            let text = item.signed()?;
            let given = item.additional_data.as_ref();
            let given = given.and_then(|data| data.hmac_signature.as_deref());
            let given = given.ok_or(Refusal::MissingField("additionalData.hmacSignature"))?;
            let given = decode(keys, given.as_bytes())?;
            let secret = matching(secrets, now, |secret| -> Choice {
                secret.mac(&[&text]).as_slice().ct_eq(&given)
            })?;
            // Each with its length, so that two items do not run together.
            signed.extend(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            signed.extend(text);
            first.get_or_insert(secret);
        }
        // Every item of an empty batch is signed, and it says nothing.
        let secret = first.ok_or(Refusal::NothingSigned)?;
        let mut proof = Proof::new(secret, signed, Covers::Fields(COVERED));
        if let [Wrapper { item }] = batch.items.as_slice() {
            let id = [&item.psp_reference, &item.event_code, &item.success].map(String::as_str);
            proof.id = Id::Signed(id.join(":"));
        }
        Ok(proof)
    }

    #[expect(clippy::unused_self, reason = "the shape that all providers have")]
    pub(super) fn sign(
        &self,
        keys: &Scheme,
        secret: &ActiveSecret,
        request: &Unsigned<'_>,
        _: UnixMs,
    ) -> Result<Signed, CannotSign> {
        let wrong = Refusal::BadBody("a batch of notification items in JSON");
        let batch: Batch = serde_json::from_slice(request.body).map_err(|_| wrong.clone())?;
        let mut json: serde_json::Value =
            serde_json::from_slice(request.body).map_err(|_| wrong.clone())?;
        for (at, Wrapper { item }) in batch.items.iter().enumerate() {
            let place = format!("/notificationItems/{at}/NotificationRequestItem");
            let target = json.pointer_mut(&place).and_then(|v| v.as_object_mut());
            let data = target.ok_or(wrong.clone())?.entry("additionalData");
            let data = data
                .or_insert_with(|| serde_json::json!({}))
                .as_object_mut();
            let text = spell(keys, secret, &[&item.signed()?]);
            let text = String::from_utf8_lossy(&text).into_owned();
            data.ok_or(wrong.clone())?
                .insert("hmacSignature".into(), text.into());
        }
        Ok(Signed {
            body: Some(json.to_string().into_bytes()),
            ..Signed::default()
        })
    }
}

pub(super) fn keys() -> SchemeSpec {
    SchemeSpec {
        // There is none; the grammar wants a name.
        header: "hmacsignature".into(),
        encoding: Some("base64".into()),
        key: Some("hex".into()),
        signed: Some("{body}".into()),
        ..SchemeSpec::default()
    }
}

impl Item {
    /// The eight fields with `:` between them. Only the merchant's reference may have one inside:
    /// with two such fields the same text could be cut in two ways.
    fn signed(&self) -> Result<Vec<u8>, Refusal> {
        let value = self.amount.value.to_string();
        let original = self.original_reference.as_deref().unwrap_or_default();
        let reference = self.merchant_reference.as_deref().unwrap_or_default();
        let plain = [
            &self.psp_reference,
            original,
            &self.merchant_account_code,
            &self.amount.currency,
            &self.event_code,
        ];
        if plain.iter().any(|field| field.contains(':')) {
            return Err(Refusal::Ambiguous);
        }
        if !matches!(self.success.as_str(), "true" | "false") {
            return Err(Refusal::BadBody(
                "a notification with success true or false",
            ));
        }
        let fields = [
            &self.psp_reference,
            original,
            &self.merchant_account_code,
            reference,
            &value,
            &self.amount.currency,
            &self.event_code,
            &self.success,
        ];
        Ok(fields.join(":").into_bytes())
    }
}
