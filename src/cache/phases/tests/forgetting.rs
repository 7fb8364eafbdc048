//! What changes make the cache forget, and when.

use http::Method;
use tokio::sync::watch;

use super::harness::{Answer, World, answer, policy};
use crate::cache::Scope;

#[tokio::test]
async fn rfc9875_3_a_mutation_empties_its_groups_before_its_answer() {
    let world = World::new(policy(Scope::Org), |n, head| {
        if head.starts_with("POST /plans") {
            let invalidation = "cache-group-invalidation: \"kpi\";org=\"a\"\r\n";
            return answer(200, invalidation, "done");
        }
        answer(200, "cache-groups: \"kpi\"\r\n", &n.to_string())
    })
    .await;
    for org in ["a", "b"] {
        world.get_with("/x", &format!("x-org: {org}\r\n")).await;
    }
    let done = world
        .ask(&Method::POST, "/plans", "x-org: a\r\ncontent-length: 0\r\n")
        .await;
    assert_eq!((done.header("x-cache"), done.status), ("BYPASS", 200));
    assert_eq!(done.header("cache-group-invalidation"), "");
    assert_eq!(
        world.get_with("/x", "x-org: a\r\n").await.header("x-cache"),
        "MISS"
    );
    assert_eq!(
        world.get_with("/x", "x-org: b\r\n").await.header("x-cache"),
        "HIT"
    );
}

#[tokio::test]
async fn a_response_fetched_before_an_invalidation_is_not_stored_after_it() {
    let (go, when) = watch::channel(false);
    let world = World::new(policy(Scope::Org), move |n, head| {
        if head.starts_with("POST") {
            return answer(204, "cache-group-invalidation: \"kpi\";org=\"a\"\r\n", "");
        }
        Answer {
            when: (n == 1).then(|| when.clone()),
            ..answer(200, "cache-groups: \"kpi\"\r\n", &n.to_string())
        }
    })
    .await;
    let slow = world.get_with("/x", "x-org: a\r\n");
    let mutate = async {
        world.seen_at_least(1).await;
        world
            .ask(&Method::POST, "/plans", "x-org: a\r\ncontent-length: 0\r\n")
            .await;
        go.send_replace(true);
    };
    let (slow, ()) = tokio::join!(slow, mutate);
    assert_eq!(slow.body, "1", "its own client is answered");
    let next = world.get_with("/x", "x-org: a\r\n").await;
    assert_eq!((next.header("x-cache"), next.body.as_str()), ("MISS", "3"));
    assert_eq!(world.cache.store().stats().fenced, 1);
}

#[tokio::test]
async fn rfc9111_4_4_an_unsafe_request_that_succeeds_empties_its_target() {
    let world = World::new(policy(Scope::Org), |n, head| {
        match head.starts_with("DELETE") {
            true if head.contains("x-fail") => answer(409, "", ""),
            true => answer(200, "", ""),
            false => answer(200, "", &n.to_string()),
        }
    })
    .await;
    let org = "x-org: a\r\n";
    world.get_with("/x?q=1", org).await;
    world
        .ask(&Method::DELETE, "/x", "x-org: a\r\nx-fail: 1\r\n")
        .await;
    world.ask(&Method::DELETE, "/x", "x-org: b\r\n").await;
    world.ask(&Method::DELETE, "/y", org).await;
    assert_eq!(world.get_with("/x?q=1", org).await.header("x-cache"), "HIT");
    world.ask(&Method::DELETE, "/x", org).await;
    assert_eq!(
        world.get_with("/x?q=1", org).await.header("x-cache"),
        "MISS"
    );
}
