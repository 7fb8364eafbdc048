//! Builds the headers of a delivery to the API: which event, which attempt, and our own signature
//! over it (Standard Webhooks), so that the API can verify a redelivery hours later. Sends nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

use super::scheme::print_rfc3339;
use crate::kernel::clock::UnixMs;
use crate::kernel::header::{
    IDEMPOTENCY_KEY, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, X_MAITRED_ATTEMPT,
    X_MAITRED_AUTHENTICATED, X_MAITRED_PROVIDER, X_MAITRED_RECEIVED_AT,
};
use crate::kernel::secret::Secret;

/// Sizes that Standard Webhooks allows for a key.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Signs what the edge delivers; made once from `EDGE_DELIVERY_SECRET`.
#[derive(Clone)]
pub struct Signer(Hmac<Sha256>);

/// A secret that cannot sign deliveries.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("must be whsec_ and base64 of 24 to 64 bytes; `openssl rand -base64 32` makes one")]
pub struct BadSecret;

/// One attempt to deliver one event.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    pub event_id: &'a str,
    pub provider: &'a str,
    pub received_at: UnixMs,
    /// 1, 2, …
    pub attempt: u32,
    /// What the provider vouches for; see `Covers`.
    pub authenticated: &'a str,
    /// As the provider sent it.
    pub content_type: Option<&'a HeaderValue>,
    pub body: &'a [u8],
}

impl Signer {
    /// From the secret's text, `whsec_…`.
    ///
    /// # Errors
    /// [`BadSecret`] where it is something else.
    pub fn new(secret: &Secret) -> Result<Self, BadSecret> {
        let text = secret.expose().strip_prefix(b"whsec_").ok_or(BadSecret)?;
        let key = STANDARD
            .decode(text)
            .map(Secret::new)
            .map_err(|_| BadSecret)?;
        if !KEY_BYTES.contains(&key.len()) {
            return Err(BadSecret);
        }
        Hmac::new_from_slice(key.expose())
            .map(Self)
            .map_err(|_| BadSecret)
    }

    /// The headers of `delivery`, signed at `now`.
    #[must_use]
    pub fn headers(&self, delivery: &Delivery<'_>, now: UnixMs) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(12);
        let mut set = |name: HeaderName, value: &str| {
            // Ids are checked where they enter and the rest is ours, so nothing is left out.
            let value = HeaderValue::from_str(value);
            debug_assert!(value.is_ok(), "{name}");
            if let Ok(value) = value {
                headers.insert(name, value);
            }
        };
        let timestamp = now.seconds().to_string();
        let signature = self.sign(delivery.event_id, &timestamp, delivery.body);
        set(WEBHOOK_ID, delivery.event_id);
        set(WEBHOOK_TIMESTAMP, &timestamp);
        set(WEBHOOK_SIGNATURE, &signature);
        set(IDEMPOTENCY_KEY, delivery.event_id);
        set(X_MAITRED_PROVIDER, delivery.provider);
        set(X_MAITRED_RECEIVED_AT, &print_rfc3339(delivery.received_at));
        set(X_MAITRED_ATTEMPT, &delivery.attempt.to_string());
        set(X_MAITRED_AUTHENTICATED, delivery.authenticated);
        if let Some(content_type) = delivery.content_type {
            headers.insert(CONTENT_TYPE, content_type.clone());
        }
        headers
    }

    fn sign(&self, event_id: &str, timestamp: &str, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(event_id.as_bytes());
        mac.update(b".");
        mac.update(timestamp.as_bytes());
        mac.update(b".");
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::{Delivery, Signer};
    use crate::kernel::clock::UnixMs;
    use crate::kernel::header::{
        IDEMPOTENCY_KEY, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, X_MAITRED_AUTHENTICATED,
        X_MAITRED_RECEIVED_AT,
    };
    use crate::kernel::secret::Secret;

    /// The vector published with Standard Webhooks.
    #[test]
    fn the_published_vector_is_met() {
        let signer = Signer::new(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
        let content_type = HeaderValue::from_static("application/json");
        let delivery = Delivery {
            event_id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
            provider: "chefcloud",
            received_at: UnixMs(1_614_265_329_123),
            attempt: 1,
            authenticated: "body",
            content_type: Some(&content_type),
            body: br#"{"test": 2432232314}"#,
        };
        let headers = signer.headers(&delivery, UnixMs(1_614_265_330_999));
        assert_eq!(headers[WEBHOOK_ID], "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(headers[IDEMPOTENCY_KEY], headers[WEBHOOK_ID]);
        assert_eq!(headers[WEBHOOK_TIMESTAMP], "1614265330");
        assert_eq!(headers[X_MAITRED_RECEIVED_AT], "2021-02-25T15:02:09.123Z");
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(headers[WEBHOOK_SIGNATURE], expected);
        assert_eq!(headers[X_MAITRED_AUTHENTICATED], "body");
        assert_eq!(headers.len(), 9);
    }

    #[test]
    fn a_secret_of_another_form_does_not_sign() {
        let short = "whsec_c2hvcnQ=";
        for bad in [
            "",
            "whsec_",
            "plain",
            short,
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        ] {
            assert!(Signer::new(&Secret::new(bad)).is_err(), "{bad}");
        }
    }
}
