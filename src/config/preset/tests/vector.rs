//! Webhooks that others signed (`tests/fixtures/webhook/*.json`), as they were sent, and spoiled.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::{PUBLIC_URL, find, grammar};
use crate::config::preset::Preset;
use crate::kernel::clock::UnixMs;
use crate::kernel::secret::Secret;
use crate::webhook::{ActiveSecret, Endpoint, Head, Mode, Refusal, Scheme, SchemeSpec};
use crate::webhook::{SignedParts, Verified, Verifier, verify};

#[derive(Deserialize)]
pub(super) struct Fixture {
    pub(super) preset: String,
    /// No package and no published example: the documented rule alone was followed.
    pub(super) own: bool,
    pub(super) sdk: Option<String>,
    pub(super) secrets: Vec<String>,
    pub(super) private_key: Option<String>,
    pub(super) accept: Vec<Vector>,
}

#[derive(Clone, Deserialize)]
pub(super) struct Vector {
    pub(super) name: String,
    pub(super) source: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<Part>,
    now_ms: i64,
    pub(super) event_id: Option<String>,
    pub(super) secrets: Option<Vec<String>>,
    pub(super) secret_bytes_min: Option<u32>,
}

#[derive(Clone, Deserialize)]
struct Part {
    base64: String,
    times: usize,
}

pub(super) fn fixture(name: &str) -> Fixture {
    let path = format!("tests/fixtures/webhook/{name}.json");
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A request that can be spoiled before it is verified.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) query: String,
    pub(super) body: Vec<u8>,
    pub(super) now: UnixMs,
}

impl Sent {
    pub(super) fn of(vector: &Vector) -> Self {
        let part = |p: &Part| STANDARD.decode(&p.base64).unwrap().repeat(p.times);
        let headers = vector.headers.iter();
        Self {
            headers: headers
                .map(|(n, v)| (n.clone(), v.clone().into_bytes()))
                .collect(),
            query: vector.query.clone(),
            body: vector.body.iter().flat_map(part).collect(),
            now: UnixMs(vector.now_ms),
        }
    }

    pub(super) fn value(&self, name: &HeaderName) -> Vec<u8> {
        let found = self.headers.iter().find(|(n, _)| same(n, name));
        found.unwrap_or_else(|| panic!("no {name}")).1.clone()
    }

    pub(super) fn with(&self, name: &HeaderName, value: impl AsRef<[u8]>) -> Self {
        let mut changed = self.without(name);
        let line = (name.to_string(), value.as_ref().to_vec());
        changed.headers.push(line);
        changed
    }

    pub(super) fn without(&self, name: &HeaderName) -> Self {
        let mut changed = self.clone();
        changed.headers.retain(|(n, _)| !same(n, name));
        changed
    }

    pub(super) fn twice(&self, name: &HeaderName) -> Self {
        let mut changed = self.clone();
        changed.headers.push((name.to_string(), self.value(name)));
        changed
    }

    fn header_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        map
    }

    pub(super) fn verify(&self, endpoint: &Endpoint) -> Result<Verified, Refusal> {
        let request = SignedParts {
            method: "POST",
            query: &self.query,
            headers: &self.header_map(),
            body: &self.body,
        };
        verify(endpoint, &request, self.now)
    }

    /// The same in pieces, as a body arrives.
    pub(super) fn verify_in_chunks(
        &self,
        endpoint: &Endpoint,
        bytes: usize,
    ) -> Result<Verified, Refusal> {
        let head = Head {
            method: "POST",
            query: &self.query,
            headers: &self.header_map(),
        };
        let mut verifier = Verifier::begin(endpoint, &head, self.now)?;
        self.body.chunks(bytes).for_each(|c| verifier.update(c));
        verifier.finish(&self.body, self.now)
    }
}

fn same(text: &str, name: &HeaderName) -> bool {
    text.eq_ignore_ascii_case(name.as_str())
}

pub(super) fn endpoint(preset: &Preset, secrets: &[String], least: Option<u32>) -> Endpoint {
    let spec = SchemeSpec {
        public_url: Some(PUBLIC_URL.into()),
        secret_bytes_min: least.or(preset.spec.secret_bytes_min),
        ..preset.spec.clone()
    };
    let scheme = Scheme::build(&spec).unwrap();
    let active = |(at, secret): (usize, &String)| {
        let secret = Secret::new(secret.as_str());
        ActiveSecret::new(&format!("secret-{at}"), &secret, &scheme)
            .unwrap_or_else(|e| panic!("{}: {e}", preset.name))
    };
    Endpoint {
        name: "shop".into(),
        provider: preset.provider.as_str().into(),
        secrets: secrets.iter().enumerate().map(active).collect(),
        scheme: Arc::new(scheme.into()),
        handshake: None,
        mode: Mode::Pass,
        order_key: None,
        upstream: "api".into(),
        body_bytes_max: 1 << 20,
        body_timeout_ms: 10_000,
    }
}

/// One preset with what belongs to it.
pub(super) struct Case {
    pub(super) preset: Preset,
    pub(super) fixture: Fixture,
    pub(super) endpoint: Endpoint,
    /// The first vector: an ordinary event.
    pub(super) sent: Sent,
}

impl Case {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        grammar().into_iter().map(|p| p.name).map(|name| {
            let (preset, fixture) = (find(name).unwrap(), fixture(name));
            assert_eq!(fixture.preset, name);
            let endpoint = endpoint(&preset, &fixture.secrets, None);
            let sent = Sent::of(&fixture.accept[0]);
            Self {
                preset,
                fixture,
                endpoint,
                sent,
            }
        })
    }

    pub(super) fn header(&self) -> HeaderName {
        self.preset.spec.header.parse().unwrap()
    }

    /// The signature's header, as text.
    pub(super) fn line(&self) -> String {
        String::from_utf8(self.sent.value(&self.header())).unwrap()
    }

    /// Header of the timestamp, where it has one of its own.
    pub(super) fn ts_header(&self) -> Option<HeaderName> {
        let from = &self.preset.spec.ts.as_ref()?.from;
        Some(from.strip_prefix("header:")?.parse().unwrap())
    }

    pub(super) fn refuses(&self, what: &str, sent: &Sent) -> Refusal {
        match sent.verify(&self.endpoint) {
            Ok(_) => panic!("{}: {what} was accepted", self.preset.name),
            Err(refusal) => refusal,
        }
    }

    /// What stands before the signature in its item.
    pub(super) fn label(&self) -> &str {
        let shape = self.preset.spec.items.iter().find(|s| s.contains("{sig"));
        shape.map_or("", |s| s.split('{').next().unwrap())
    }

    /// The signature within its header. Examples of rotations put a stranger's first.
    pub(super) fn signature(&self) -> String {
        let line = self.line();
        let split = self.preset.spec.split.as_deref().unwrap_or("\0");
        let items = line.split(split).map(str::trim);
        let found = items.filter_map(|item| item.strip_prefix(self.label()));
        found.last().unwrap().to_owned()
    }

    pub(super) fn with_signature(&self, other: &str) -> Sent {
        let (line, signature) = (self.line(), self.signature());
        assert!(line.contains(&signature));
        let line = line.replace(&signature, other);
        self.sent.with(&self.header(), line)
    }

    pub(super) fn encoding(&self) -> &str {
        let equal = self.preset.spec.alg.as_deref() == Some("equal");
        let default = if equal { "text" } else { "hex" };
        self.preset.spec.encoding.as_deref().unwrap_or(default)
    }

    /// Another secret of the same form, which signed nothing here.
    pub(super) fn stranger(&self) -> String {
        match (self.preset.spec.key.as_deref(), self.preset.name) {
            (Some("hex"), "discord") => {
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c".into()
            }
            (Some("hex"), _) => "ffeeddccbbaa99887766554433221100".into(),
            (Some("whsec"), _) => "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=".into(),
            (Some("whpk"), _) => "whpk_PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=".into(),
            // The key of the published example.
            (Some("spki"), _) => {
                let mut others = self.fixture.accept.iter();
                others.find_map(|v| v.secrets.clone()).unwrap().remove(0)
            }
            (_, _) => "another-secret-0123456789abcdefghijklm".into(),
        }
    }
}
