//! `mode = "store"`: what of a request goes into the inbox.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use super::Event;
use crate::kernel::header::TRACEPARENT;
use crate::webhook::{Endpoint, Verified, inbox};

/// Fields kept for an operator's look, names and values; what is beyond is left out.
const HEADER_BYTES_MAX: usize = 8 * 1024;
const MASK: &str = "***";
/// Fields that authenticate carry one of these in their names, whoever invented them.
const TELLTALES: [&str; 12] = [
    "auth",
    "cookie",
    "credential",
    "hash",
    "hmac",
    "key",
    "password",
    "secret",
    "sig",
    "token",
    "verif",
    "x-maitred-",
];

/// The event as it is kept.
pub(super) fn event(
    endpoint: &Endpoint,
    verified: &Verified,
    headers: &HeaderMap,
    event: Event,
) -> inbox::Event {
    let order = endpoint.order_key.as_ref();
    let order = order.and_then(|key| key.find(headers, &event.body));
    let traceparent = headers.get(TRACEPARENT).and_then(|v| v.to_str().ok());
    inbox::Event {
        endpoint: endpoint.name.clone(),
        provider: endpoint.provider.clone(),
        destination: endpoint.upstream.clone(),
        event_id: Arc::from(verified.event_id.as_str()),
        received_at: event.received_at,
        content_type: event
            .content_type
            .map(|value| Bytes::copy_from_slice(value.as_bytes())),
        headers: shown(headers, endpoint.scheme.keys().signature_header()),
        authenticated: Arc::from(verified.covers.as_str()),
        traceparent: traceparent.map(str::to_owned),
        order_key: order.map(Arc::from),
        body: event.body,
    }
}

/// The request's fields as an operator may see them.
fn shown(headers: &HeaderMap, signature: &HeaderName) -> Vec<(String, String)> {
    let mut left = HEADER_BYTES_MAX;
    let mut shown = Vec::new();
    for (name, value) in headers {
        let text = match value.to_str() {
            Ok(text) if !authenticates(name) && name != signature => text,
            Ok(_) | Err(_) => MASK,
        };
        let bytes = name.as_str().len() + text.len();
        if bytes > left {
            break;
        }
        left -= bytes;
        shown.push((name.as_str().to_owned(), text.to_owned()));
    }
    shown
}

fn authenticates(name: &HeaderName) -> bool {
    TELLTALES.iter().any(|part| name.as_str().contains(part))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{HEADER_BYTES_MAX, MASK, shown};

    const SIGNATURE: HeaderName = HeaderName::from_static("x-acme-webhook");

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn what_authenticates_is_masked_whoever_named_it() {
        let secret = [
            "authorization",
            "cookie",
            "x-signature",
            "stripe-signature",
            "x-hub-signature-256",
            "x-shopify-hmac-sha256",
            "verif-hash",
            "x-callback-token",
            "x-clover-auth",
            "x-api-key",
            "webhook-signature",
            "x-paystack-signature",
            "paypal-transmission-sig",
            "x-acme-webhook",
        ];
        for name in secret {
            let headers = map(&[(name, "s3cret")]);
            assert_eq!(
                shown(&headers, &SIGNATURE),
                [(name.to_owned(), MASK.to_owned())]
            );
        }
        let plain = map(&[("user-agent", "Stripe/1.0"), ("x-request-id", "r1")]);
        assert_eq!(
            shown(&plain, &SIGNATURE)[0],
            ("user-agent".into(), "Stripe/1.0".into())
        );
        assert_eq!(
            shown(&plain, &SIGNATURE)[1],
            ("x-request-id".into(), "r1".into())
        );
    }

    #[test]
    fn no_request_fills_the_inbox_with_fields() {
        let long: &'static str = "x".repeat(3_000).leak();
        let headers = map(&[("a", long), ("b", long), ("c", long), ("d", long)]);
        let bytes: usize = shown(&headers, &SIGNATURE)
            .iter()
            .map(|(n, v)| n.len() + v.len())
            .sum();
        assert!(bytes <= HEADER_BYTES_MAX && shown(&headers, &SIGNATURE).len() == 2);
    }
}
