//! A process that leaves: attempts in flight end or are given back, and a successor takes the inbox
//! over without a webhook being refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::{QUICK, applied, entries, pair, post};
use crate::harness::client::Connection;
use crate::harness::edge::Edge;
use crate::harness::hook::Event;
use crate::harness::origin::{Gate, Script};
use crate::harness::{until, within};

const SIGTERM: i32 = 15;
const SIGQUIT: i32 = 3;

#[tokio::test]
async fn sigterm_lets_an_attempt_end_and_keeps_the_rest() {
    let gate = Gate::new();
    let held = gate.clone();
    let (origin, mut edge) = pair(QUICK, move |seen| match seen.header("webhook-id") {
        Some("slow") => Script::Held(held.clone(), Box::new(applied(seen))),
        _ => Script::status(500),
    })
    .await;
    assert_eq!(post(&edge, &Event::named("slow")).await.0, 200);
    assert_eq!(post(&edge, &Event::named("failing")).await.0, 200);
    until("both are under way", || async {
        let ids: Vec<_> = origin.seen();
        let tried = |id| ids.iter().any(|s| s.header("webhook-id") == Some(id));
        (tried("slow") && tried("failing")).then_some(())
    })
    .await;
    edge.signal(SIGTERM);
    until("it leaves", || async {
        edge.log().contains("leaving: announcing").then_some(())
    })
    .await;
    gate.open();
    assert_eq!(edge.exit_code().await, Some(0));
    let edge = edge.restarted().await;
    until("one is done, one is still tried", || async {
        let (done, pending) = (
            entries(&edge, "delivered").await,
            entries(&edge, "pending").await,
        );
        (done == 1.0 && pending == 1.0).then_some(())
    })
    .await;
    let slow = origin.seen();
    let slow = slow
        .iter()
        .filter(|s| s.header("webhook-id") == Some("slow"));
    assert_eq!(slow.count(), 1, "what ended before the exit was settled");
}

#[tokio::test]
async fn an_attempt_without_end_does_not_hold_the_process() {
    let (origin, mut edge) = pair(QUICK, |_| Script::Hang).await;
    assert_eq!(post(&edge, &Event::named("stuck")).await.0, 200);
    until("it is tried", || async {
        (!origin.seen().is_empty()).then_some(())
    })
    .await;
    edge.signal(SIGTERM);
    assert_eq!(edge.exit_code().await, Some(0));
    let edge = edge.restarted().await;
    until("it is tried again", || async {
        (origin.seen().len() > 1).then_some(())
    })
    .await;
    until("it is still pending", || async {
        (entries(&edge, "pending").await == 1.0).then_some(())
    })
    .await;
}

/// Sends webhooks until told to stop; counts what is neither accepted nor a connection that was
/// closed between two requests.
async fn provider(
    edge: (std::net::SocketAddr, String),
    name: usize,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut client) = Connection::secure(edge.0, "localhost", &edge.1).await else {
            wrong.push("no connection".into());
            continue;
        };
        number += 1;
        let event = Event::named(&format!("evt_{name}_{number}"));
        match within("an answer", event.post(&mut client)).await {
            Ok(answer) if answer.status == 200 => {
                accepted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => wrong.push(format!("{} {}", answer.status, answer.text())),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_under_load_refuses_no_webhook_and_loses_none() {
    let (origin, mut old) = pair(QUICK, applied).await;
    let (stop, accepted) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut providers = JoinSet::new();
    for name in 0..8 {
        let place = (old.https, old.ca.clone());
        providers.spawn(provider(place, name, stop.clone(), accepted.clone()));
    }
    let proceed = |more: usize| {
        let accepted = accepted.clone();
        let goal = accepted.load(Ordering::Relaxed) + more;
        async move {
            until("webhooks are accepted", || async {
                (accepted.load(Ordering::Relaxed) >= goal).then_some(())
            })
            .await;
        }
    };
    proceed(40).await;
    let tell = async {
        until("the successor waits", || async {
            old.upgrade_socket().exists().then_some(())
        })
        .await;
        old.signal(SIGQUIT);
    };
    let (new, ()): (Edge, ()) = tokio::join!(old.successor(), tell);
    assert_eq!(old.exit_code().await, Some(0));
    proceed(40).await;
    stop.store(true, Ordering::Relaxed);
    let wrong: Vec<_> = providers.join_all().await.into_iter().flatten().collect();
    assert_eq!(wrong, Vec::<String>::new());
    let goal = accepted.load(Ordering::Relaxed);
    until("all are delivered", || async {
        let mut ids: Vec<_> = origin
            .seen()
            .iter()
            .map(|s| s.header("webhook-id").unwrap().to_owned())
            .collect();
        ids.sort();
        ids.dedup();
        (ids.len() == goal).then_some(())
    })
    .await;
    tokio::time::timeout(Duration::from_secs(10), async {
        until("nothing is pending", || async {
            (entries(&new, "pending").await == 0.0).then_some(())
        })
        .await;
    })
    .await
    .unwrap();
}
