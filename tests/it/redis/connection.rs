//! How the server is reached, judged and given up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred::cluster::redis::{Address, Needs, Redis, RedisError, Settings, TlsSettings};
use maitred::kernel::clock::Clock;
use maitred::kernel::id::Random;
use maitred::kernel::secret::Secret;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use crate::harness::keys::Authority;
use crate::harness::redis::{Node, RESPONSE_TIMEOUT_MS, RedisServer};
use crate::harness::{until, within};

const EVERYTHING: Needs = Needs {
    no_eviction: true,
    durable: true,
};

async fn ping(redis: &Redis) -> Result<String, RedisError> {
    redis.call(&redis::cmd("PING")).await
}

async fn probe(settings: Settings) -> Result<(), RedisError> {
    let redis = Redis::new(settings, Clock::system(), Random::from_os())?;
    redis.probe().await
}

#[tokio::test]
async fn it_comes_back_after_the_server_was_killed() {
    let mut server = RedisServer::start(&[]).await;
    let node = server.node().await;
    assert_eq!(ping(&node.redis).await.unwrap(), "PONG");
    assert!(node.redis.health().connected);
    server.kill();
    until("it is noticed without a call", async || {
        (!node.redis.health().connected).then_some(())
    })
    .await;
    let asked = Instant::now();
    let away = ping(&node.redis).await.unwrap_err();
    assert!(matches!(away, RedisError::Away(_)), "{away}");
    assert!(asked.elapsed() < Duration::from_millis(100));
    server.restart().await;
    within("connected again", node.redis.connected()).await;
    assert_eq!(ping(&node.redis).await.unwrap(), "PONG");
    let health = node.redis.health();
    assert!(health.last_error.is_some(), "{health:?}");
}

#[tokio::test]
async fn a_silent_server_costs_one_time_out_and_then_nothing() {
    let server = RedisServer::start(&[]).await;
    let mut settings = server.settings();
    settings.response_timeout_ms = 300;
    let node = Node::connect(settings).await;
    server.stop();
    let asked = Instant::now();
    let first = ping(&node.redis).await.unwrap_err();
    assert_eq!(first, RedisError::TooSlow { after_ms: 300 });
    assert!(asked.elapsed() < Duration::from_millis(300 + 500));
    let asked = Instant::now();
    for _ in 0..100 {
        let next = ping(&node.redis).await.unwrap_err();
        assert!(matches!(next, RedisError::Away(_)), "{next}");
    }
    assert!(asked.elapsed() < Duration::from_millis(300));
    server.go_on();
    until("it answers again", async || ping(&node.redis).await.ok()).await;
}

#[tokio::test]
async fn what_would_lose_things_is_refused_with_the_reason() {
    for (options, mentions) in [
        (["--maxmemory-policy", "allkeys-lru"], "danger_may_evict"),
        (["--appendonly", "no"], "appendonly is no"),
        (["--appendfsync", "everysec"], "appendfsync is everysec"),
        (["--no-appendfsync-on-rewrite", "yes"], "rewrite"),
    ] {
        let server = RedisServer::start(&options).await;
        let mut settings = server.settings();
        assert_eq!(probe(settings.clone()).await, Ok(()), "nothing is needed");
        settings.needs = EVERYTHING;
        let refused = probe(settings).await.unwrap_err();
        assert!(matches!(refused, RedisError::Unsuitable(_)), "{refused}");
        assert!(refused.to_string().contains(mentions), "{refused}");
    }
    let server = RedisServer::start(&[]).await;
    let mut settings = server.settings();
    settings.needs = EVERYTHING;
    assert_eq!(probe(settings).await, Ok(()));
}

#[tokio::test]
async fn a_server_without_config_says_by_info_whether_it_evicts() {
    let server = RedisServer::start(&["--rename-command", "CONFIG", ""]).await;
    let mut settings = server.settings();
    settings.needs.no_eviction = true;
    assert_eq!(probe(settings.clone()).await, Ok(()));
    settings.needs = EVERYTHING;
    let refused = probe(settings).await.unwrap_err();
    assert!(refused.to_string().contains("CONFIG GET"), "{refused}");
}

#[tokio::test]
async fn a_server_that_became_unfit_is_not_used_after_it_comes_back() {
    let mut server = RedisServer::start(&[]).await;
    let mut settings = server.settings();
    settings.needs = EVERYTHING;
    let node = Node::connect(settings).await;
    server.set_options(&["--maxmemory-policy", "allkeys-lru"]);
    server.kill();
    server.restart().await;
    until("it says why", async || {
        let (_, why) = node.redis.health().last_error?;
        why.contains("allkeys-lru").then_some(())
    })
    .await;
    let away = ping(&node.redis).await.unwrap_err();
    assert!(matches!(away, RedisError::Away(_)), "{away}");
}

#[tokio::test]
async fn a_password_is_sent_and_never_shown() {
    let server = RedisServer::start(&["--requirepass", "hunter2"]).await;
    let mut settings = server.settings();
    let refused = probe(settings.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("NOAUTH"), "{refused}");
    settings.password = Some(Secret::new("hunter3"));
    let refused = probe(settings.clone()).await.unwrap_err();
    assert!(!format!("{refused} {refused:?}").contains("hunter"));
    settings.password = Some(Secret::new("hunter2"));
    settings.db = 3;
    let node = Node::connect(settings).await;
    assert_eq!(ping(&node.redis).await.unwrap(), "PONG");
    assert!(!format!("{:?}", node.redis).contains("hunter"));
}

/// A TLS listener in front of the server's socket.
async fn tls_front(server: &RedisServer, dir: &std::path::Path) -> std::net::SocketAddr {
    let pem = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let chain = CertificateDer::pem_slice_iter(&pem("localhost.pem"))
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_slice(&pem("localhost.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = server.socket();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let (acceptor, socket) = (acceptor.clone(), socket.clone());
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else {
                    return;
                };
                let mut server = UnixStream::connect(socket).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn tls_believes_the_authority_it_is_given_and_the_name_it_asked_for() {
    let server = RedisServer::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.issue(dir.path(), "localhost", &["localhost"]);
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, &authority.pem).unwrap();
    let port = tls_front(&server, dir.path()).await.port();
    let settings = |host: &str, ca_file| Settings {
        address: Address::Tcp {
            host: host.into(),
            port,
        },
        tls: Some(TlsSettings { ca_file }),
        ..server.settings()
    };
    assert_eq!(
        probe(settings("localhost", Some(ca_file.clone()))).await,
        Ok(())
    );
    for (host, ca) in [("localhost", None), ("127.0.0.1", Some(ca_file))] {
        let refused = probe(settings(host, ca)).await.unwrap_err();
        assert!(refused.to_string().contains("certificate"), "{refused}");
    }
    let in_clear = Settings {
        tls: None,
        ..settings("localhost", None)
    };
    let asked = Instant::now();
    assert!(probe(in_clear).await.is_err());
    assert!(asked.elapsed() < Duration::from_millis(RESPONSE_TIMEOUT_MS + 2_000));
}
