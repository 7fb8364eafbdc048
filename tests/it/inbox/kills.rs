//! `kill -9` at any moment: what was acknowledged is delivered, and nothing else is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use maitred::webhook::inbox::redis::LEASE;

use super::nodes::on_redis;
use super::{QUICK, applied, setup};
use crate::harness::client::Connection;
use crate::harness::edge::Edge;
use crate::harness::hook::Event;
use crate::harness::keys::TokenIssuer;
use crate::harness::origin::Origin;
use crate::harness::redis::RedisServer;
use crate::harness::{DEADLINE, until};

const CLIENTS: usize = 64;
/// In plain runs; `MAITRED_KILLS=200` for the record.
const KILLS: usize = 5;

fn kills() -> usize {
    let asked = std::env::var("MAITRED_KILLS").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(KILLS)
}

/// What the clients know.
#[derive(Default)]
struct Told {
    sent: Mutex<BTreeSet<String>>,
    acked: Mutex<BTreeSet<String>>,
    /// Answers that are neither 200 nor 503.
    odd: Mutex<Vec<u16>>,
    next: AtomicUsize,
    stop: AtomicBool,
}

/// Sends events of its own one after the other, wherever the edge is at the moment.
async fn client(told: Arc<Told>, address: std::net::SocketAddr, ca: String) {
    while !told.stop.load(Ordering::Relaxed) {
        let Ok(mut connection) = Connection::secure(address, "localhost", &ca).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        while !told.stop.load(Ordering::Relaxed) {
            let id = format!("evt_{}", told.next.fetch_add(1, Ordering::Relaxed));
            told.sent.lock().await.insert(id.clone());
            match Event::named(&id).post(&mut connection).await {
                Ok(answer) if answer.status == 200 => {
                    told.acked.lock().await.insert(id);
                }
                Ok(answer) if answer.status == 503 => {}
                Ok(answer) => told.odd.lock().await.push(answer.status),
                Err(_) => break,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_event_is_lost_and_none_is_invented() {
    let origin = Origin::start(TokenIssuer::new().jwks(), applied).await;
    let short = (
        "disk_free_bytes_min = 0\n",
        "disk_free_bytes_min = 0\ndelivered_keep_s = 0\n",
    );
    let edge = Edge::start(setup(&origin, QUICK, &[short])).await;
    survive(edge, &origin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_on_redis() {
    let redis = RedisServer::start(&[]).await;
    let origin = Origin::start(TokenIssuer::new().jwks(), applied).await;
    let extra = format!("{QUICK}{}", on_redis(&redis));
    let engine = (
        "disk_free_bytes_min = 0\n",
        "engine = \"redis\"\ndelivered_keep_s = 0\n",
    );
    let edge = Edge::start(setup(&origin, &extra, &[engine])).await;
    survive(edge, &origin).await;
}

/// Kills the edge again and again under load, then compares what was acknowledged with what arrived.
async fn survive(mut edge: Edge, origin: &Origin) {
    // The port stays, so that clients find the next process.
    let fixed = edge.successor_config();
    let told = Arc::new(Told::default());
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(told.clone(), edge.https, edge.ca.clone()));
    }
    let mut random = StdRng::seed_from_u64(7);
    for kill in 0..kills() {
        let before = told.acked.lock().await.len();
        until("some are acknowledged", || async {
            (told.acked.lock().await.len() > before + 20).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..200))).await;
        edge.signal(9);
        edge.exit_code().await;
        edge = edge.restarted_on(&fixed).await;
        eprintln!(
            "kill {kill}: {} acknowledged",
            told.acked.lock().await.len()
        );
    }
    told.stop.store(true, Ordering::Relaxed);
    clients.join_all().await;
    let (sent, acked) = (told.sent.lock().await, told.acked.lock().await);
    let at_api = || -> BTreeSet<String> {
        let seen = origin.seen();
        let ids = seen
            .iter()
            .map(|s| s.header("webhook-id").unwrap().to_owned());
        ids.collect()
    };
    // On Redis a killed node's claims come back when its lease has run out.
    let arrived = async {
        while !acked.is_subset(&at_api()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let all = tokio::time::timeout(LEASE + DEADLINE, arrived).await;
    let applied = at_api();
    let lost: Vec<_> = acked.difference(&applied).collect();
    assert!(all.is_ok() && lost.is_empty(), "lost: {lost:?}");
    let invented: Vec<_> = applied.difference(&sent).collect();
    assert!(invented.is_empty(), "invented: {invented:?}");
    assert_eq!(*told.odd.lock().await, [0u16; 0]);
    assert!(acked.len() > 20 * kills());
    eprintln!(
        "{} sent, {} acknowledged, {} at the API",
        sent.len(),
        acked.len(),
        applied.len()
    );
}
