//! The headers of one attempt: our signature and ids, the trace that the event came in with, and how
//! much of it the provider's signature covers.

use http::{HeaderMap, HeaderValue};

use crate::kernel::clock::UnixMs;
use crate::kernel::header::TRACEPARENT;
use crate::webhook::delivery::{Delivery, Signer};
use crate::webhook::inbox::Claimed;

/// The headers of the next attempt at `claimed`. `span` is random and names the attempt in the trace.
#[must_use]
pub fn headers(claimed: &Claimed, signer: &Signer, span: u64, now: UnixMs) -> HeaderMap {
    let event = &claimed.event;
    let content_type = event.content_type.as_ref();
    let content_type = content_type.and_then(|bytes| HeaderValue::from_bytes(bytes).ok());
    let delivery = Delivery {
        event_id: &event.event_id,
        provider: &event.provider,
        received_at: event.received_at,
        attempt: claimed.attempts.saturating_add(1),
        authenticated: &event.authenticated,
        content_type: content_type.as_ref(),
        body: &event.body,
    };
    let mut headers = signer.headers(&delivery, now);
    let child = event.traceparent.as_deref().and_then(|t| child(t, span));
    if let Some(child) = child.and_then(|text| HeaderValue::try_from(text).ok()) {
        headers.insert(TRACEPARENT, child);
    }
    headers
}

/// The same trace and flags with a parent of ours (W3C Trace Context, level 1). `None` for what is no
/// `traceparent`.
fn child(traceparent: &str, span: u64) -> Option<String> {
    let mut parts = traceparent.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let (parent, flags) = (parts.next()?, parts.next()?);
    let hex = |text: &str, length: usize| {
        let lower = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        text.len() == length && text.bytes().all(lower)
    };
    let zero = |text: &str| text.bytes().all(|b| b == b'0');
    let formed = hex(version, 2) && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
    // Later versions may have more fields; version 00 has none, and ff is forbidden.
    let whole = version != "ff" && (version != "00" || parts.next().is_none());
    if !formed || !whole || zero(trace) || zero(parent) {
        return None;
    }
    // All zeroes would be no span.
    Some(format!("00-{trace}-{:016x}-{flags}", span.max(1)))
}

#[cfg(test)]
mod tests {
    use super::{child, headers};
    use crate::kernel::clock::UnixMs;
    use crate::kernel::header::{TRACEPARENT, X_MAITRED_ATTEMPT, X_MAITRED_AUTHENTICATED};
    use crate::kernel::secret::Secret;
    use crate::webhook::delivery::Signer;
    use crate::webhook::dispatch::tests::claimed;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_goes_on_under_a_span_of_ours() {
        let ours = "00-4bf92f3577b34da6a3ce929d0e0e4736-000000000000002a-01";
        assert_eq!(child(TRACE, 42).as_deref(), Some(ours));
        let later = TRACE.replace("00-4b", "01-4b") + "-more";
        assert_eq!(child(&later, 42).as_deref(), Some(ours));
        let bad = [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ];
        for text in bad {
            assert_eq!(child(text, 42), None, "{text}");
        }
        assert!(child(TRACE, 0).unwrap().contains("-0000000000000001-"));
    }

    #[test]
    fn an_attempt_says_its_number_its_trace_and_what_the_provider_signed() {
        let signer = Signer::new(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
        let mut claimed = claimed(1, None);
        claimed.attempts = 3;
        let mut event = claimed.event.as_ref().clone();
        event.authenticated = "token".into();
        claimed.event = event.into();
        let seen = headers(&claimed, &signer, 42, UnixMs(1));
        assert_eq!(seen[X_MAITRED_ATTEMPT], "4");
        assert_eq!(seen[X_MAITRED_AUTHENTICATED], "token");
        assert!(!seen.contains_key(TRACEPARENT));

        let mut event = claimed.event.as_ref().clone();
        event.traceparent = Some(TRACE.into());
        event.authenticated = "body".into();
        claimed.event = event.into();
        let seen = headers(&claimed, &signer, 42, UnixMs(1));
        assert_eq!(seen[X_MAITRED_AUTHENTICATED], "body");
        assert!(
            seen[TRACEPARENT]
                .to_str()
                .unwrap()
                .contains("-000000000000002a-")
        );
    }
}
