//! TLS: names, versions, ALPN, reloads and tickets.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use tokio::io::AsyncWriteExt;

use super::{Running, Scratch, ended, handshake, leaf, policy, request, start, within};
use crate::listener::drain::{Cause, Phase};
use crate::listener::event::Refusal;
use crate::listener::{TlsPolicy, TlsVersion};

/// Several certificates in one policy.
fn joined(policies: Vec<TlsPolicy>) -> TlsPolicy {
    TlsPolicy {
        certificates: policies.into_iter().flat_map(|p| p.certificates).collect(),
        min_version: TlsVersion::Tls12,
    }
}

/// A certificate's file as the handshake shows it.
fn on_disk(chain: &Path) -> rustls::pki_types::CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::from_pem_file(chain).unwrap()
}

#[tokio::test]
async fn the_name_picks_the_certificate_and_the_first_answers_the_rest() {
    let scratch = Scratch::new();
    let policies = vec![
        scratch.certificate("a", &["a.test"]),
        scratch.certificate("b", &["b.test", "*.wild.test"]),
    ];
    let tls = joined(policies);
    let edge = start(policy(), Some(&tls));
    let client = Arc::new(scratch.client(&["a", "b"], &["http/1.1"]));
    let [a, b] = [0, 1].map(|index: usize| on_disk(&tls.certificates[index].chain));
    for (name, expected) in [
        ("a.test", &a),
        ("b.test", &b),
        ("B.TEST", &b),
        ("x.wild.test", &b),
        ("localhost", &a),
    ] {
        let tcp = edge.connect().await;
        let mut stream = handshake(&client, tcp, name).await.unwrap();
        assert_eq!(leaf(&stream), *expected, "{name}");
        let body = request(&mut stream).await;
        let expected = format!("{} http/1.1", name.to_ascii_lowercase());
        assert!(body.contains(&expected), "{body}");
    }
    // One label only: the default answers, which the client does not accept for this name.
    for name in ["x.y.wild.test", "wild.test", "unknown.test"] {
        let tcp = edge.connect().await;
        assert!(handshake(&client, tcp, name).await.is_err(), "{name}");
    }
}

async fn version(edge: &Running, client: rustls::ClientConfig) -> std::io::Result<String> {
    let tcp = edge.connect().await;
    let mut stream = handshake(&Arc::new(client), tcp, "localhost").await?;
    Ok(request(&mut stream).await)
}

fn only(
    scratch: &Scratch,
    version: &'static rustls::SupportedProtocolVersion,
) -> rustls::ClientConfig {
    let base = scratch.client(&["a"], &[]);
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(on_disk(&scratch.path().join("a/ca.pem")))
        .unwrap();
    rustls::ClientConfig::builder_with_provider(base.crypto_provider().clone())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[tokio::test]
async fn versions_follow_the_policy_also_after_a_reload() {
    let scratch = Scratch::new();
    let mut tls = scratch.certificate("a", &[]);
    let edge = start(policy(), Some(&tls));
    let body = version(&edge, only(&scratch, &TLS12)).await.unwrap();
    assert!(body.contains("tls=TLSv1.2"), "{body}");
    let body = version(&edge, only(&scratch, &TLS13)).await.unwrap();
    assert!(body.contains("tls=TLSv1.3"), "{body}");

    tls.min_version = TlsVersion::Tls13;
    edge.tls.as_ref().unwrap().reload(&tls).unwrap();
    assert!(version(&edge, only(&scratch, &TLS12)).await.is_err());
    edge.refused(Refusal::Handshake).await;
    assert!(version(&edge, only(&scratch, &TLS13)).await.is_ok());
}

#[tokio::test]
async fn tls_11_is_refused_with_an_alert() {
    let scratch = Scratch::new();
    let edge = start(policy(), Some(&scratch.certificate("a", &[])));
    let suites = [0, 4, 0xc0, 0x13, 0, 0x2f];
    let hello = [&[3, 2][..], &[7; 32], &[0], &suites, &[1, 0]].concat();
    let length = u8::try_from(hello.len()).unwrap();
    let record = [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &hello].concat();
    let mut stream = edge.connect().await;
    stream.write_all(&record).await.unwrap();
    let answer = ended(&mut stream).await;
    assert_eq!(answer.first(), Some(&21), "an alert record: {answer:?}");
    edge.refused(Refusal::Handshake).await;
    edge.is_empty_again().await;
}

#[tokio::test]
async fn plain_http_at_the_tls_port_is_a_failed_handshake() {
    let scratch = Scratch::new();
    let edge = start(policy(), Some(&scratch.certificate("a", &[])));
    let mut stream = edge.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let answer = ended(&mut stream).await;
    assert!(!answer.starts_with(b"HTTP"));
    edge.refused(Refusal::Handshake).await;
}

#[tokio::test]
async fn a_reload_changes_the_certificate_and_leaves_open_connections_alone() {
    let scratch = Scratch::new();
    let edge = start(policy(), Some(&scratch.certificate("a", &[])));
    scratch.certificate("b", &[]);
    let client = Arc::new(scratch.client(&["a", "b"], &["http/1.1"]));
    let tcp = edge.connect().await;
    let mut open = handshake(&client, tcp, "localhost").await.unwrap();
    request(&mut open).await;

    let running = edge.tls.as_ref().unwrap();
    let before = running.certificates().leaves()[0].serial.clone();
    let mut broken = scratch.certificate("b", &[]);
    broken.certificates[0].key = scratch.path().join("a/server.key");
    let error = running.reload(&broken).unwrap_err().to_string();
    assert!(error.contains("does not belong to"), "{error}");
    assert_eq!(running.certificates().leaves()[0].serial, before);

    running.reload(&scratch.certificate("b", &[])).unwrap();
    assert_ne!(running.certificates().leaves()[0].serial, before);
    request(&mut open).await;
    let fresh = Arc::new(scratch.client(&["b"], &["http/1.1"]));
    let tcp = edge.connect().await;
    let mut new = handshake(&fresh, tcp, "localhost").await.unwrap();
    assert_ne!(leaf(&new), leaf(&open));
    request(&mut new).await;
}

#[tokio::test]
async fn tickets_outlive_a_reload() {
    let scratch = Scratch::new();
    let edge = start(policy(), Some(&scratch.certificate("a", &[])));
    scratch.certificate("b", &[]);
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(only(&scratch, version));
        let tcp = edge.connect().await;
        let mut first = handshake(&client, tcp, "localhost").await.unwrap();
        assert!(request(&mut first).await.contains("resumed=false"));

        let running = edge.tls.as_ref().unwrap();
        running.reload(&scratch.certificate("b", &[])).unwrap();
        let tcp = edge.connect().await;
        let mut again = handshake(&client, tcp, "localhost").await.unwrap();
        assert_eq!(
            again.get_ref().1.handshake_kind(),
            Some(HandshakeKind::Resumed)
        );
        assert!(request(&mut again).await.contains("resumed=true"));
        running.reload(&scratch.certificate("a", &[])).unwrap();
    }
}

#[tokio::test]
async fn http2_is_agreed_on_served_and_ended_with_goaway() {
    let scratch = Scratch::new();
    let mut policy = policy();
    policy.proxy_protocol_from = vec!["127.0.0.1/32".parse().unwrap()];
    let edge = start(policy, Some(&scratch.certificate("a", &[])));
    let client = Arc::new(scratch.client(&["a"], &["h2", "http/1.1"]));
    let mut tcp = edge.connect().await;
    // Header and ClientHello may share a segment; not one byte of TLS may be lost.
    let header = b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 443\r\n";
    tcp.write_all(header).await.unwrap();
    let stream = handshake(&client, tcp, "localhost").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));

    let (mut send, connection) = within(h2::client::handshake(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..2 {
        let body = h2_get(&mut send).await;
        assert!(
            body.contains("client=203.0.113.9:5555 tls=TLSv1.3 localhost h2"),
            "{body}"
        );
    }
    edge.drain.advance(Phase::Draining, Cause::Terminate);
    within(connection).await.unwrap().unwrap();
    edge.is_empty_again().await;
}

async fn h2_get(send: &mut h2::client::SendRequest<Bytes>) -> String {
    let request = http::Request::get("https://localhost/").body(()).unwrap();
    let mut ready = within(send.clone().ready()).await.unwrap();
    let (response, _) = ready.send_request(request, true).unwrap();
    let mut body = within(response).await.unwrap().into_body();
    let mut text = Vec::new();
    while let Some(chunk) = within(body.data()).await {
        text.extend(chunk.unwrap());
    }
    String::from_utf8(text).unwrap()
}
