//! Two edges on one Redis: one memory of what was accepted, one inbox.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use super::{QUICK, applied, post, setup};
use crate::harness::edge::Edge;
use crate::harness::hook::{EXAMPLE, Event};
use crate::harness::keys::TokenIssuer;
use crate::harness::origin::Origin;
use crate::harness::redis::RedisServer;
use crate::harness::{until, within};

const COPIES: usize = 50;

/// The configuration of a node.
pub(super) fn on_redis(redis: &RedisServer) -> String {
    let socket = redis.socket();
    format!(
        "[redis]\nhost = \"unix:{}\"\nresponse_timeout_ms = 2000\n[webhooks]\nreplay_store = \"redis\"\n",
        socket.display()
    )
}

async fn node(redis: &RedisServer, origin: &Origin) -> Edge {
    let extra = format!("{QUICK}{}", on_redis(redis));
    let engine = ("disk_free_bytes_min = 0\n", "engine = \"redis\"\n");
    let edge = Edge::start(setup(origin, &extra, &[engine])).await;
    until("the node is ready", || async {
        let mut client = edge.connect().await;
        let answer = client.request("GET", "/readiness", &[], b"").await.unwrap();
        (answer.status == 200).then_some(())
    })
    .await;
    edge
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_copies_at_once_at_two_nodes_are_accepted_once() {
    let redis = RedisServer::start(&[]).await;
    let origin = Origin::start(TokenIssuer::new().jwks(), applied).await;
    let nodes = [node(&redis, &origin).await, node(&redis, &origin).await];
    let event = Event::of(EXAMPLE);
    let mut posts = JoinSet::new();
    for number in 0..COPIES {
        let mut client = nodes[number % 2].connect().await;
        let copy = event
            .clone()
            .with("x-request-id", &format!("copy-{number}"));
        posts.spawn(async move {
            within("an answer", copy.post(&mut client))
                .await
                .unwrap()
                .status
        });
    }
    let mut answers: BTreeMap<u16, usize> = BTreeMap::new();
    for status in posts.join_all().await {
        *answers.entry(status).or_default() += 1;
    }
    assert_eq!(answers.get(&200), Some(&1), "{answers:?}");
    assert!(
        answers.keys().all(|s| [200, 401, 503].contains(s)),
        "{answers:?}"
    );
    for edge in &nodes {
        assert_eq!(post(edge, &event).await.0, 401);
    }
    until("it is delivered", || async {
        (!origin.seen().is_empty()).then_some(())
    })
    .await;
    assert_eq!(post(&nodes[1], &Event::named("next")).await.0, 200);
    until("the next one is, too", || async {
        (origin.seen().len() > 1).then_some(())
    })
    .await;
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn without_redis_webhooks_get_503_and_are_taken_again_when_it_is_back() {
    let mut redis = RedisServer::start(&[]).await;
    let origin = Origin::start(TokenIssuer::new().jwks(), applied).await;
    let edge = node(&redis, &origin).await;
    assert_eq!(post(&edge, &Event::named("before")).await.0, 200);
    redis.kill();
    let late = Event::named("late");
    let mut client = edge.connect().await;
    let answer = within("an answer", late.post(&mut client)).await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    redis.restart().await;
    until("it is taken", || async {
        (post(&edge, &late).await.0 == 200).then_some(())
    })
    .await;
    until("both are delivered", || async {
        (origin.seen().len() >= 2).then_some(())
    })
    .await;
}
