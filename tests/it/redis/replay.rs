//! The replay store while Redis dies, comes back or says nothing. Its suite is `tests/it/replay.rs`.

use std::time::{Duration, Instant};

use maitred::kernel::clock::UnixMs;
use maitred::kernel::reject::Reject;
use maitred::webhook::replay::{Policy, ReplayKey, Store};
use maitred::webhook::scheme::OnReplay;
use maitred::webhook::verify::{EventId, Verified};
use maitred::webhook::{Arrival, Refusal, Reservation};

use crate::harness::redis::{Node, RedisServer};
use crate::harness::{until, within};

const NOW: UnixMs = UnixMs(1_700_000_000_000);

fn store(node: &Node) -> Store {
    Store::redis(Policy::default(), node.redis.clone(), "test")
}

fn message(byte: u8) -> Verified {
    Verified {
        covers: maitred::webhook::Covers::Body,
        replay_key: ReplayKey([byte; 32]),
        signed_at: Some(NOW),
        expires_at: Some(UnixMs(NOW.0 + 305_000)),
        event_id: EventId::Signed(format!("evt_{byte}")),
        claimed_id: None,
        secret_name: "current".into(),
    }
}

async fn reserve(store: &Store, message: &Verified) -> Result<Arrival, Refusal> {
    store
        .reserve("billing", message, OnReplay::Reject, NOW)
        .await
}

async fn fresh(store: &Store, message: &Verified) -> Reservation {
    match reserve(store, message).await {
        Ok(Arrival::Fresh(reservation)) => reservation,
        other => panic!("not fresh: {other:?}"),
    }
}

#[tokio::test]
async fn a_reservation_survives_a_restart_of_redis() {
    let mut server = RedisServer::start(&[]).await;
    let node = server.node().await;
    let store = store(&node);
    let reservation = fresh(&store, &message(1)).await;
    server.kill();
    server.restart().await;
    let again = until("an answer after the restart", async || {
        match reserve(&store, &message(1)).await {
            Err(Refusal::StoreAway) => None,
            other => Some(other),
        }
    });
    assert_eq!(again.await.unwrap_err(), Refusal::InProgress);
    reservation.commit(NOW).await.unwrap();
    assert_eq!(
        reserve(&store, &message(1)).await.unwrap_err(),
        Refusal::Replay
    );
    server.kill();
    server.restart().await;
    let again = until(
        "an answer after the second restart",
        async || match reserve(&store, &message(1)).await {
            Err(Refusal::StoreAway) => None,
            other => Some(other),
        },
    );
    assert_eq!(again.await.unwrap_err(), Refusal::Replay);
}

#[tokio::test]
async fn a_commit_without_redis_is_made_up_for() {
    let mut server = RedisServer::start(&[]).await;
    let node = server.node().await;
    let store = store(&node);
    let accepted = fresh(&store, &message(1)).await;
    let failed = fresh(&store, &message(2)).await;
    server.kill();
    assert_eq!(
        within("the commit", accepted.commit(NOW)).await,
        Err(Refusal::StoreAway)
    );
    drop(failed);
    assert_eq!(
        reserve(&store, &message(3)).await.unwrap_err(),
        Refusal::StoreAway
    );
    server.restart().await;
    until("the commit is made up for", async || {
        match reserve(&store, &message(1)).await {
            Err(Refusal::Replay) => Some(()),
            Err(Refusal::StoreAway | Refusal::InProgress) => None,
            other => panic!("{other:?}"),
        }
    })
    .await;
    until("the release is made up for", async || {
        match reserve(&store, &message(2)).await {
            Ok(Arrival::Fresh(_)) => Some(()),
            Err(Refusal::StoreAway | Refusal::InProgress) => None,
            other => panic!("{other:?}"),
        }
    })
    .await;
}

#[tokio::test]
async fn a_silent_redis_is_a_503_within_the_deadline() {
    let server = RedisServer::start(&[]).await;
    let mut settings = server.settings();
    settings.response_timeout_ms = 300;
    let node = Node::connect(settings).await;
    let store = store(&node);
    server.stop();
    let asked = Instant::now();
    let refusal = reserve(&store, &message(1)).await.unwrap_err();
    assert!(asked.elapsed() < Duration::from_millis(300 + 500));
    assert_eq!(refusal, Refusal::StoreAway);
    let reject = Reject::from(refusal);
    assert_eq!(reject.status().as_u16(), 503);
    assert!(reject.retry_after_s.is_some());
    // It was asked for, and is taken as soon as Redis goes on; then it is given back.
    server.go_on();
    until(
        "what nobody waits for is given back",
        async || match reserve(&store, &message(1)).await {
            Ok(Arrival::Fresh(_)) => Some(()),
            Err(Refusal::StoreAway | Refusal::InProgress) => None,
            other => panic!("{other:?}"),
        },
    )
    .await;
}

#[tokio::test]
async fn without_memory_nothing_is_taken_and_nothing_is_forgotten() {
    let server = RedisServer::start(&[]).await;
    let node = server.node().await;
    let store = store(&node);
    fresh(&store, &message(1)).await.commit(NOW).await.unwrap();
    let mut limit = redis::cmd("CONFIG");
    limit.arg("SET").arg("maxmemory").arg("1");
    let _: () = node.redis.call(&limit).await.unwrap();
    assert_eq!(
        reserve(&store, &message(2)).await.unwrap_err(),
        Refusal::StoreFull
    );
    let mut limit = redis::cmd("CONFIG");
    limit.arg("SET").arg("maxmemory").arg("0");
    let _: () = node.redis.call(&limit).await.unwrap();
    assert_eq!(
        reserve(&store, &message(1)).await.unwrap_err(),
        Refusal::Replay
    );
    fresh(&store, &message(2)).await.release();
}
