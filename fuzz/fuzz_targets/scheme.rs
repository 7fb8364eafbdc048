//! Schemes of an operator's own: any text builds or is refused; what builds verifies what it signs.
#![no_main]

use std::sync::Arc;

use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use maitred::kernel::clock::UnixMs;
use maitred::kernel::secret::Secret;
use maitred::webhook::sign::{Unsigned, sign};
use maitred::webhook::{ActiveSecret, Endpoint, Mode, Scheme, SchemeSpec, SignedParts, verify};

const NOW: UnixMs = UnixMs(1_700_000_000_000);

fuzz_target!(|data: &[u8]| {
    let Ok(spec) = serde_json::from_slice::<SchemeSpec>(data) else {
        return;
    };
    let Ok(scheme) = Scheme::build(&spec) else {
        return;
    };
    let secret = Secret::new("00112233445566778899aabbccddeeff");
    let Ok(secret) = ActiveSecret::new("s", &secret, &scheme) else {
        return;
    };
    let body = br#"{"id":"evt_1"}"#;
    let unsigned = Unsigned {
        method: "POST",
        query: "a=b",
        event_id: "evt_1",
        body,
    };
    let Ok(headers) = sign(&scheme, &secret, &unsigned, NOW) else {
        return;
    };
    let headers: HeaderMap = headers.into_iter().collect();
    let endpoint = Endpoint {
        name: "shop".into(),
        provider: "shop".into(),
        scheme: Arc::new(scheme),
        secrets: vec![secret],
        mode: Mode::Pass,
        upstream: "api".into(),
        body_bytes_max: 1 << 20,
        body_timeout_ms: 10_000,
    };
    let request = SignedParts {
        method: "POST",
        query: "a=b",
        headers: &headers,
        body,
    };
    // A scheme may be such that nothing fits it; it must be said, not panicked about.
    let _ = verify(&endpoint, &request, NOW);
});
