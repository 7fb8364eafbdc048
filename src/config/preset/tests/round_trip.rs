//! What `maitred sign` makes is what the verifier accepts, for every preset.

use proptest::prelude::*;

use super::vector::{Fixture, Sent, endpoint, fixture};
use super::{Preset, find, grammar};
use crate::kernel::clock::UnixMs;
use crate::kernel::secret::Secret;
use crate::webhook::sign::{CannotSign, Unsigned, sign};
use crate::webhook::{ActiveSecret, Endpoint};

const NOW: UnixMs = UnixMs(1_750_000_000_000);

fn signer(fixture: &Fixture, endpoint: &Endpoint) -> ActiveSecret {
    match &fixture.private_key {
        Some(key) => {
            let key = Secret::new(key.as_str());
            ActiveSecret::signing("test", &key, endpoint.scheme.keys()).unwrap()
        }
        None => endpoint.secrets[0].clone(),
    }
}

fn signed(endpoint: &Endpoint, signer: &ActiveSecret, body: &[u8]) -> Sent {
    let unsigned = Unsigned {
        method: "POST",
        query: "data.id=ORD01",
        event_id: "evt_1",
        body,
    };
    let headers = sign(&endpoint.scheme, signer, &unsigned, NOW).unwrap();
    let headers = headers.headers.iter();
    Sent {
        headers: headers
            .map(|(n, v)| (n.to_string(), v.as_bytes().to_vec()))
            .collect(),
        query: unsigned.query.into(),
        body: body.to_vec(),
        now: NOW,
    }
}

/// Whether the time is read in the body.
fn dated(preset: &Preset) -> bool {
    let ts = preset.spec.ts.as_ref();
    ts.is_some_and(|ts| ts.from.starts_with("json:"))
}

#[test]
fn what_is_signed_is_accepted() {
    for preset in grammar() {
        let fixture = fixture(preset.name);
        let endpoint = endpoint(&preset, &fixture.secrets, None);
        let signer = signer(&fixture, &endpoint);
        let body = format!("{{\"id\":\"evt_1\",\"webhookTimestamp\":{}}}", NOW.0);
        let verified = signed(&endpoint, &signer, body.as_bytes()).verify(&endpoint);
        verified.unwrap_or_else(|e| panic!("{}: {e}", preset.name));
    }
}

#[test]
fn a_public_key_signs_nothing() {
    for name in ["discord", "sendgrid", "standard-webhooks-v1a"] {
        let (preset, fixture) = (find(name).unwrap(), fixture(name));
        let endpoint = endpoint(&preset, &fixture.secrets, None);
        let unsigned = Unsigned {
            method: "POST",
            query: "",
            event_id: "evt_1",
            body: b"{}",
        };
        let refused = sign(&endpoint.scheme, &endpoint.secrets[0], &unsigned, NOW);
        assert_eq!(refused.unwrap_err(), CannotSign::PublicKey, "{name}");
    }
}

#[test]
fn a_private_key_is_not_taken_for_a_secret() {
    let (preset, fixture) = (
        find("standard-webhooks").unwrap(),
        fixture("standard-webhooks"),
    );
    let endpoint = endpoint(&preset, &fixture.secrets, None);
    let private = Secret::new("whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=");
    let refused = ActiveSecret::new("x", &private, endpoint.scheme.keys()).unwrap_err();
    assert!(
        refused.to_string().contains("is a private key"),
        "{refused}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_the_body(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        flip in any::<usize>(),
    ) {
        for preset in grammar().iter().filter(|p| !dated(p)) {
            let fixture = fixture(preset.name);
            let endpoint = endpoint(preset, &fixture.secrets, None);
            let signer = signer(&fixture, &endpoint);
            let mut sent = signed(&endpoint, &signer, &body);
            prop_assert!(sent.verify(&endpoint).is_ok(), "{}", preset.name);
            if endpoint.scheme.signs_body() && !body.is_empty() {
                sent.body[flip % body.len()] ^= 0x20;
                prop_assert!(sent.verify(&endpoint).is_err(), "{}", preset.name);
            }
        }
    }
}
