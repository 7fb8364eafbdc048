//! Signature headers of every preset: no bytes make the verifier panic, and none that were not signed
//! are accepted.
#![no_main]

use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use maitred::config::preset;
use maitred::kernel::clock::UnixMs;
use maitred::kernel::secret::Secret;
use maitred::webhook::{ActiveSecret, Endpoint, Mode, Scheme, SchemeSpec, SignedParts, verify};

const NOW: UnixMs = UnixMs(1_700_000_000_000);
const SECRETS: [&str; 6] = [
    "0123456789abcdef0123456789abcdef",
    "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "00112233445566778899aabbccddeeff",
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==",
];

struct Subject {
    endpoint: Endpoint,
    /// The signature's, the timestamp's, and those that are signed.
    headers: Vec<HeaderName>,
    is_token: bool,
}

static SUBJECTS: LazyLock<Vec<Subject>> = LazyLock::new(|| {
    let subjects: Vec<_> = preset::all().into_iter().filter_map(subject).collect();
    assert_eq!(
        subjects.len(),
        preset::names().count(),
        "a preset has no key here"
    );
    subjects
});

fn subject(preset: preset::Preset) -> Option<Subject> {
    let spec = SchemeSpec {
        public_url: Some("https://edge.example/webhooks/shop".into()),
        ..preset.spec
    };
    let scheme = Scheme::build(&spec).ok()?;
    let secret = SECRETS
        .into_iter()
        .find_map(|text| ActiveSecret::new("s", &Secret::new(text), &scheme).ok())?;
    let signed = spec.signed.unwrap_or_default();
    let named = signed.split("{header:").skip(1);
    let named = named.filter_map(|rest| rest.split('}').next()?.parse().ok());
    let ts = spec
        .ts
        .as_ref()
        .and_then(|ts| ts.from.strip_prefix("header:")?.parse().ok());
    let first: Option<HeaderName> = spec.header.parse().ok();
    Some(Subject {
        headers: first.into_iter().chain(ts).chain(named).collect(),
        is_token: spec.alg.as_deref() == Some("equal"),
        endpoint: Endpoint {
            name: "shop".into(),
            provider: "shop".into(),
            scheme: Arc::new(scheme),
            secrets: vec![secret],
            mode: Mode::Pass,
            upstream: "api".into(),
            body_bytes_max: 1 << 20,
            body_timeout_ms: 10_000,
        },
    })
}

// First byte: the preset. Then lines `<digit><value>`, the digit being the header; the rest is the
// query up to a NUL, and the body.
fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let subject = &SUBJECTS[usize::from(*first) % SUBJECTS.len()];
    let mut parts = data.splitn(3, |b| *b == 0);
    let (lines, query, body) = (parts.next(), parts.next(), parts.next());
    let mut headers = HeaderMap::new();
    for line in lines.unwrap_or_default().split(|b| *b == b'\n') {
        let Some((which, value)) = line.split_first() else {
            continue;
        };
        let name = &subject.headers[usize::from(*which) % subject.headers.len()];
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    let request = SignedParts {
        method: "POST",
        query: std::str::from_utf8(query.unwrap_or_default()).unwrap_or_default(),
        headers: &headers,
        body: body.unwrap_or_default(),
    };
    let verdict = verify(&subject.endpoint, &request, NOW);
    assert!(
        verdict.is_err() || subject.is_token,
        "accepted without the key"
    );
});
