//! Verifies a delivery of the edge (Standard Webhooks) and names its parts. Pure: `now` is given.

use axum::http::HeaderMap;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use zeroize::Zeroizing;

use crate::{
    config,
    kernel::{clock::Millis, secret::Secret},
};

const TOLERANCE_SECONDS: i64 = 300;
const EVENT_ID_CHARS_MAX: usize = 255;
/// The header may carry several signatures while a key is being rotated.
const SIGNATURES_MAX: usize = 8;
const NAME_CHARS_MAX: usize = 64;

/// A delivery whose signature was good.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub event_id: String,
    pub provider: String,
    /// When the edge took the event in; `now` if it does not say.
    pub received_at: Millis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Expired,
    Incomplete,
    Signature,
}

#[derive(Clone)]
pub(crate) struct DeliveryKey(Zeroizing<Vec<u8>>);

impl DeliveryKey {
    /// `None` if the secret is not well formed.
    pub(crate) fn new(secret: &Secret) -> Option<Self> {
        config::delivery_key(secret).map(|key| Self(Zeroizing::new(key)))
    }

    pub(crate) fn verify(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: Millis,
    ) -> Result<Delivery, Refusal> {
        let event_id = header(headers, "webhook-id")
            .filter(|id| id.len() <= EVENT_ID_CHARS_MAX)
            .ok_or(Refusal::Incomplete)?;
        let timestamp = header(headers, "webhook-timestamp").ok_or(Refusal::Incomplete)?;
        let signatures = header(headers, "webhook-signature").ok_or(Refusal::Incomplete)?;
        // The text itself is signed, so only its plain decimal form is accepted.
        let seconds = timestamp
            .parse::<i64>()
            .ok()
            .filter(|seconds| seconds.to_string() == timestamp)
            .ok_or(Refusal::Incomplete)?;
        if !self.signed(event_id, timestamp, body, signatures) {
            return Err(Refusal::Signature);
        }
        if now.seconds().abs_diff(seconds) > TOLERANCE_SECONDS.unsigned_abs() {
            return Err(Refusal::Expired);
        }
        let provider = header(headers, "x-maitred-provider").unwrap_or("unknown");
        Ok(Delivery {
            event_id: event_id.to_owned(),
            provider: provider.chars().take(NAME_CHARS_MAX).collect(),
            received_at: header(headers, "x-maitred-received-at")
                .and_then(moment)
                .unwrap_or(now),
        })
    }

    fn signed(&self, event_id: &str, timestamp: &str, body: &[u8], signatures: &str) -> bool {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            return false;
        };
        for part in [event_id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        signatures
            .split(' ')
            .take(SIGNATURES_MAX)
            .filter_map(|signature| signature.strip_prefix("v1,"))
            .filter_map(|encoded| STANDARD.decode(encoded).ok())
            .any(|tag| mac.clone().verify_slice(&tag).is_ok())
    }
}

/// A header that is there exactly once, as visible text.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    value.to_str().ok().filter(|text| !text.is_empty())
}

fn moment(text: &str) -> Option<Millis> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(parsed.unix_timestamp_nanos() / 1_000_000)
        .ok()
        .map(Millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_732_183_200_000);
    const BODY: &[u8] = br#"{"event":"invoice.paid","id":"evt_test_123","amount":5000}"#;

    fn key() -> DeliveryKey {
        DeliveryKey::new(&Secret::new(config::development_delivery_secret())).unwrap()
    }

    fn headers(seconds: i64, body: &[u8]) -> HeaderMap {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key().0).unwrap();
        mac.update(format!("evt_1.{seconds}.").as_bytes());
        mac.update(body);
        let tag = STANDARD.encode(mac.finalize().into_bytes());
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "evt_1".parse().unwrap());
        headers.insert("webhook-timestamp", seconds.into());
        headers.insert(
            "webhook-signature",
            format!("v1,AAAA v1,{tag}").parse().unwrap(),
        );
        headers.insert(
            "x-maitred-received-at",
            "2024-11-21T10:00:00.000Z".parse().unwrap(),
        );
        headers
    }

    #[test]
    fn a_genuine_delivery_passes_with_any_of_its_signatures() {
        let delivery = key()
            .verify(&headers(NOW.seconds(), BODY), BODY, NOW)
            .unwrap();
        assert_eq!(delivery.event_id, "evt_1");
        assert_eq!(delivery.received_at, NOW);
    }

    #[test]
    fn changed_bytes_old_times_and_doubled_headers_are_refused() {
        let refusal = |headers: &HeaderMap, body| key().verify(headers, body, NOW).unwrap_err();
        let seconds = NOW.seconds();
        assert_eq!(refusal(&headers(seconds, BODY), b"{}"), Refusal::Signature);
        assert_eq!(
            refusal(&headers(seconds - 301, BODY), BODY),
            Refusal::Expired
        );
        assert_eq!(
            refusal(&headers(seconds + 301, BODY), BODY),
            Refusal::Expired
        );
        let mut doubled = headers(seconds, BODY);
        doubled.append("webhook-id", "evt_2".parse().unwrap());
        assert_eq!(refusal(&doubled, BODY), Refusal::Incomplete);
        let mut padded = headers(seconds, BODY);
        padded.insert("webhook-timestamp", format!("+{seconds}").parse().unwrap());
        assert_eq!(refusal(&padded, BODY), Refusal::Incomplete);
        assert_eq!(refusal(&HeaderMap::new(), BODY), Refusal::Incomplete);
    }
}
