//! PayPal: the signature, the certificate behind it, and how it is fetched.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::{CertificateFetch, Kind, NOW, Sent, Special, SpecialSpec, endpoint, fixture};
use crate::kernel::clock::UnixMs;
use crate::kernel::reject::{Code, Reject};
use crate::webhook::sign::{CannotSign, Unsigned, sign};
use crate::webhook::{Covers, Endpoint, Refusal};

const URL: &str = "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-a5cafa77";

/// Messages under a chain of our own; see `tests/fixtures/webhook/generate/paypal.py`.
#[derive(Deserialize)]
struct Fixture {
    ca: String,
    webhook_id: String,
    transmission_id: String,
    time: String,
    body: String,
    chain: String,
    signature: String,
    signature_sha1: String,
    signature_other_webhook: String,
    untrusted: BTreeMap<String, String>,
}

fn paypal() -> Fixture {
    serde_json::from_slice(&fixture("paypal.json")).unwrap()
}

/// A provider's server.
struct Server {
    answer: Mutex<Result<Bytes, String>>,
    asked: AtomicUsize,
    /// Permits to answer.
    answers: Semaphore,
}

impl Server {
    fn with(pem: &str) -> Arc<Self> {
        Arc::new(Self {
            answer: Mutex::new(Ok(Bytes::from(pem.to_owned()))),
            asked: AtomicUsize::new(0),
            answers: Semaphore::new(1_000),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn breaks(&self) {
        *self.answer.lock().unwrap() = Err("away".into());
    }
}

#[async_trait]
impl CertificateFetch for Server {
    async fn fetch(&self, url: &str, _: usize, _: Duration) -> Result<Bytes, String> {
        assert!(
            url.starts_with("https://api.paypal.com/v1/notifications/certs/"),
            "{url}"
        );
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.answers.acquire().await.unwrap().forget();
        self.answer.lock().unwrap().clone()
    }
}

fn spec() -> SpecialSpec {
    SpecialSpec {
        certificate_hosts: vec!["api.paypal.com".into()],
        certificate_ca: Some(paypal().ca.into_bytes()),
        ..SpecialSpec::default()
    }
}

fn open(server: &Arc<Server>) -> (Endpoint, Sent) {
    let fetch: Arc<dyn CertificateFetch> = server.clone();
    let special = Special::build(Kind::PayPal, &spec(), &fetch).unwrap();
    let made = paypal();
    let line = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let sent = Sent {
        headers: vec![
            line("content-type", "application/json"),
            line("paypal-transmission-id", &made.transmission_id),
            line("paypal-transmission-time", &made.time),
            line("paypal-transmission-sig", &made.signature),
            line("paypal-cert-url", URL),
            line("paypal-auth-algo", "SHA256withRSA"),
        ],
        query: String::new(),
        body: made.body.into_bytes(),
    };
    (endpoint(special, &[&made.webhook_id], None), sent)
}

/// A connection's task may move between threads while it waits for a certificate.
#[test]
fn waiting_moves_between_threads() {
    fn moves<T: Send>(_: T) {}
    let (endpoint, sent) = open(&Server::with(""));
    moves(endpoint.scheme.prepare(&sent.map(), NOW));
}

async fn prepare(endpoint: &Endpoint, sent: &Sent, now: UnixMs) -> Result<(), Refusal> {
    endpoint.scheme.prepare(&sent.map(), now).await
}

fn later(span: Duration) -> UnixMs {
    NOW.plus(span)
}

#[tokio::test]
async fn a_message_in_paypals_layout_is_accepted() {
    let server = Server::with(&paypal().chain);
    let (endpoint, sent) = open(&server);
    assert_eq!(
        sent.verify(&endpoint).unwrap_err(),
        Refusal::CertificateAway
    );
    prepare(&endpoint, &sent, NOW).await.unwrap();
    let verified = sent.verify(&endpoint).unwrap();
    assert_eq!(verified.covers, Covers::Crc32);
    assert_eq!(verified.signed_at, Some(NOW));
    assert_eq!(verified.event_id.signed(), Some(&*paypal().transmission_id));
    assert!(verified.expires_at.is_some());
    // Fetched once, however many messages come.
    for _ in 0..10 {
        prepare(&endpoint, &sent, NOW).await.unwrap();
    }
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn what_is_not_signed_so_is_refused() {
    let server = Server::with(&paypal().chain);
    let (endpoint, sent) = open(&server);
    prepare(&endpoint, &sent, NOW).await.unwrap();
    let made = paypal();
    let set = |name: &str, value: &str| {
        let value = value.as_bytes().to_vec();
        sent.clone().with(|s| *s.header(name) = value)
    };
    let refused = |sent: Sent| sent.verify(&endpoint).unwrap_err();
    let sig = "paypal-transmission-sig";
    assert_eq!(
        refused(set(sig, &made.signature_other_webhook)),
        Refusal::NoMatch
    );
    assert_eq!(refused(set(sig, &made.signature_sha1)), Refusal::NoMatch);
    // The algorithm is not the sender's choice.
    let weak = set(sig, &made.signature_sha1);
    let weak = weak.with(|s| *s.header("paypal-auth-algo") = b"SHA1withRSA".to_vec());
    assert_eq!(refused(weak), Refusal::NoSignature);
    let short = &made.signature[..made.signature.len() - 4];
    for bad in ["", "AAAA", "é", short, &format!("{} ", made.signature)] {
        assert_eq!(refused(set(sig, bad)), Refusal::BadEncoding, "{bad}");
    }
    let id = "paypal-transmission-id";
    assert_eq!(refused(set(id, "69cd13f0")), Refusal::NoMatch);
    for bad in ["", "a|b", "a b", &"a".repeat(65)] {
        assert_eq!(refused(set(id, bad)), Refusal::BadEncoding, "{bad}");
    }
    let time = "paypal-transmission-time";
    assert_eq!(refused(set(time, "2023-11-14T22:13:21Z")), Refusal::NoMatch);
    assert_eq!(refused(set(time, "1700000000")), Refusal::BadTimestamp);
    assert_eq!(
        refused(sent.clone().with(|s| s.body.push(b' '))),
        Refusal::NoMatch
    );
    for name in [
        "transmission-id",
        "transmission-time",
        "transmission-sig",
        "cert-url",
        "auth-algo",
    ] {
        let name = format!("paypal-{name}");
        let missing = refused(sent.clone().without(&name));
        assert!(matches!(missing, Refusal::MissingHeader(_)), "{name}");
        let twice = sent.clone().with(|s| {
            let line = s.header(&name).clone();
            s.headers.push((name.clone(), line));
        });
        assert!(
            matches!(refused(twice), Refusal::DuplicateHeader(_)),
            "{name}"
        );
    }
}

/// Trap: CRC-32 is linear. The forged body passes, and the API is told what its word is worth.
#[tokio::test]
async fn a_body_of_equal_crc_passes_and_says_so() {
    let server = Server::with(&paypal().chain);
    let (endpoint, sent) = open(&server);
    prepare(&endpoint, &sent, NOW).await.unwrap();
    let honest = sent.verify(&endpoint).unwrap();
    let wanted = crc32fast::hash(&sent.body);
    let mut forged = br#"{"id":"WH-1","amount":"1000000.00"}    "#.to_vec();
    let at = forged.len();
    forged.extend([0; 4]);
    // Four free bytes reach every CRC: solve for them bit by bit over GF(2).
    let base = crc32fast::hash(&forged);
    let mut rows: Vec<(u32, u32)> = (0..32)
        .map(|bit| {
            let mut one = forged.clone();
            one[at + bit / 8] ^= 1 << (bit % 8);
            (crc32fast::hash(&one) ^ base, 1 << bit)
        })
        .collect();
    let (mut left, mut solution) = (wanted ^ base, 0u32);
    for bit in 0..32 {
        let Some(found) = rows.iter().position(|(crc, _)| crc >> bit & 1 == 1) else {
            continue;
        };
        let (crc, mask) = rows.swap_remove(found);
        for row in rows.iter_mut().filter(|(other, _)| other >> bit & 1 == 1) {
            *row = (row.0 ^ crc, row.1 ^ mask);
        }
        if left >> bit & 1 == 1 {
            (left, solution) = (left ^ crc, solution ^ mask);
        }
    }
    assert_eq!(left, 0);
    forged[at..].copy_from_slice(&solution.to_le_bytes());
    assert_eq!(crc32fast::hash(&forged), wanted);
    let forged = sent.with(|s| s.body = forged).verify(&endpoint).unwrap();
    assert_eq!(forged.covers.as_str(), "crc32");
    assert!(forged.covers.caveat().is_some());
    // At least it cannot come besides the honest one.
    assert_eq!(forged.replay_key, honest.replay_key);
}

#[tokio::test]
async fn nothing_is_fetched_from_elsewhere() {
    let server = Server::with(&paypal().chain);
    let (endpoint, sent) = open(&server);
    for url in [
        "",
        "http://api.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com.evil.example/v1/notifications/certs/CERT-1",
        "https://evil.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com@evil.example/v1/notifications/certs/CERT-1",
        "https://evil.example/https://api.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com:444/v1/notifications/certs/CERT-1",
        "https://API.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com/v1/notifications/certs/../../../redirect",
        "https://api.paypal.com/v1/notifications/certs/CERT-1?x=1",
        "https://api.paypal.com/v1/notifications/certs/CERT%2d1",
        "https://api.paypal.com/v1/notifications/certs/",
        "https://api.paypal.com/v1/other/CERT-1",
        "https://169.254.169.254/v1/notifications/certs/CERT-1",
        "file:///etc/passwd",
    ] {
        let sent = sent
            .clone()
            .with(|s| *s.header("paypal-cert-url") = url.into());
        prepare(&endpoint, &sent, NOW).await.unwrap();
        let refused = sent.verify(&endpoint).unwrap_err();
        assert_eq!(refused, Refusal::CertificatePlace, "{url}");
    }
    // What is stale, or lacks a header, is not worth a fetch either.
    prepare(&endpoint, &sent, later(Duration::from_secs(5 * 86_400)))
        .await
        .unwrap();
    prepare(&endpoint, &sent.without("paypal-transmission-sig"), NOW)
        .await
        .unwrap();
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn a_certificate_without_chain_name_or_time_is_not_believed() {
    for (why, pem) in paypal().untrusted {
        let server = Server::with(&pem);
        let (endpoint, sent) = open(&server);
        let refused = prepare(&endpoint, &sent, NOW).await.unwrap_err();
        assert_eq!(refused, Refusal::CertificateAway, "{why}");
        assert_eq!(
            sent.verify(&endpoint).unwrap_err(),
            Refusal::CertificateAway,
            "{why}"
        );
        assert_eq!(Reject::from(refused).code, Code::Unavailable);
    }
    for pem in [
        "",
        "no pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let server = Server::with(pem);
        let (endpoint, sent) = open(&server);
        assert!(prepare(&endpoint, &sent, NOW).await.is_err(), "{pem}");
    }
    // Browsers' authorities do not know our root.
    let server: Arc<dyn CertificateFetch> = Server::with(&paypal().chain);
    let public = SpecialSpec {
        certificate_ca: None,
        ..spec()
    };
    let special = Special::build(Kind::PayPal, &public, &server).unwrap();
    let endpoint = endpoint(special, &[&paypal().webhook_id], None);
    let (_, sent) = open(&Server::with(""));
    assert!(prepare(&endpoint, &sent, NOW).await.is_err());
}

#[tokio::test]
async fn a_certificate_that_ran_out_counts_no_longer() {
    let server = Server::with(&paypal().chain);
    let (endpoint, sent) = open(&server);
    prepare(&endpoint, &sent, NOW).await.unwrap();
    // 2033-01-02.
    let after = UnixMs(1_988_236_800_000);
    assert_eq!(
        sent.verify_at(&endpoint, after).unwrap_err(),
        Refusal::CertificateAway
    );
}

#[tokio::test]
async fn many_messages_at_once_fetch_once() {
    let server = Server::with(&paypal().chain);
    let (endpoint, sent) = open(&server);
    let all = (0..50).map(|_| prepare(&endpoint, &sent, NOW));
    for outcome in futures_util::future::join_all(all).await {
        outcome.unwrap();
    }
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn a_failure_is_not_tried_again_at_once() {
    let server = Server::with(&paypal().chain);
    server.breaks();
    let (endpoint, sent) = open(&server);
    for _ in 0..5 {
        let refused = prepare(&endpoint, &sent, NOW).await.unwrap_err();
        assert!(refused.is_ours());
    }
    assert_eq!(server.asked(), 1);
    *server.answer.lock().unwrap() = Ok(paypal().chain.into());
    let after = later(Duration::from_secs(61));
    prepare(&endpoint, &sent, after).await.unwrap();
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn invented_names_cost_few_fetches_and_no_memory() {
    let server = Server::with("no pem");
    let (endpoint, sent) = open(&server);
    for n in 0..200 {
        let url = format!("https://api.paypal.com/v1/notifications/certs/CERT-{n}");
        let sent = sent
            .clone()
            .with(|s| *s.header("paypal-cert-url") = url.into_bytes());
        let refused = prepare(&endpoint, &sent, NOW).await.unwrap_err();
        assert_eq!(refused, Refusal::CertificateAway);
    }
    assert_eq!(server.asked(), 6);
    // They do not keep the known one out.
    let after = later(Duration::from_secs(61));
    *server.answer.lock().unwrap() = Ok(paypal().chain.into());
    prepare(&endpoint, &sent, after).await.unwrap();
}

#[tokio::test]
async fn a_known_certificate_outlives_an_outage() {
    let server = Server::with(&paypal().chain);
    let (endpoint, sent) = open(&server);
    prepare(&endpoint, &sent, NOW).await.unwrap();
    server.breaks();
    let after = later(Duration::from_secs(25 * 3_600));
    prepare(&endpoint, &sent, after).await.unwrap();
    prepare(&endpoint, &sent, after).await.unwrap();
    assert_eq!(server.asked(), 2, "tried again once, not with each message");
    assert!(sent.verify_at(&endpoint, after).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_holds_nobody_up_for_long() {
    let server = Server::with(&paypal().chain);
    server.answers.forget_permits(1_000);
    let (endpoint, sent) = open(&server);
    let begun = tokio::time::Instant::now();
    let refused = prepare(&endpoint, &sent, NOW).await.unwrap_err();
    assert_eq!(refused, Refusal::CertificateAway);
    assert!(begun.elapsed() <= Duration::from_secs(3));
}

#[test]
fn what_could_not_be_verified_does_not_build() {
    let server: Arc<dyn CertificateFetch> = Server::with("");
    let build = |spec: &SpecialSpec| Special::build(Kind::PayPal, spec, &server);
    for hosts in [
        &[][..],
        &["paypal.com"],
        &["api.paypal.com", "evil.example"],
        &["api.paypal.com.evil.example"],
        &["evilpaypal.com"],
        &["*.paypal.com"],
        &["api.paypal.com:443"],
    ] {
        let spec = SpecialSpec {
            certificate_hosts: hosts.iter().map(|h| (*h).to_owned()).collect(),
            ..spec()
        };
        assert_eq!(
            build(&spec).unwrap_err()[0].key,
            "certificate_hosts",
            "{hosts:?}"
        );
    }
    let spec = SpecialSpec {
        certificate_ca: Some(b"no pem".to_vec()),
        ..spec()
    };
    assert_eq!(build(&spec).unwrap_err()[0].key, "certificate_ca_file");
}

#[test]
fn we_cannot_sign_for_paypal() {
    let (endpoint, _) = open(&Server::with(""));
    let unsigned = Unsigned {
        method: "POST",
        query: "",
        event_id: "evt_1",
        body: b"{}",
    };
    let refused = sign(&endpoint.scheme, &endpoint.secrets[0], &unsigned, NOW);
    assert_eq!(refused.unwrap_err(), CannotSign::OnlyProvider);
}
