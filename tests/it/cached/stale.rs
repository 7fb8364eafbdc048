//! Stale responses: while a fresh one is fetched, and while the origin fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::{NO_BREAKER, World, cache, numbered, with};
use crate::harness::either::{BOTH, Speaks};
use crate::harness::origin::Script;
use crate::harness::until;

#[tokio::test]
async fn while_one_is_fetched_clients_of_either_protocol_get_the_old_one() {
    let policy = "ttl_s = 1\nstale_while_revalidate_s = 600\nstale_if_error_s = 600";
    let world = World::new(policy, |_, n| numbered(n)).await;
    for speaks in BOTH {
        let before = world.fetches();
        let target = format!("/report/{speaks:?}?orgId=org_a");
        let mut caller = world.caller(speaks, "usr_a", "org_a").await;
        assert_eq!(caller.status(&target).await, "MISS");
        let stale = until("it goes stale", || async {
            let mut caller = world.caller(speaks, "usr_a", "org_a").await;
            let answer = caller.get(&target).await;
            (cache(&answer) == "STALE").then_some(answer)
        })
        .await;
        assert_eq!(stale.status, 200);
        assert_eq!(stale.text(), format!("{{\"n\":{}}}", before + 1));
        assert!(
            stale
                .header("cache-status")
                .unwrap()
                .ends_with("detail=stale-while-revalidate")
        );
        // The refresh happens behind the scenes, also for HTTP/2.
        let fresh = until("it was refreshed", || async {
            let mut caller = world.caller(speaks, "usr_a", "org_a").await;
            let answer = caller.get(&target).await;
            (answer.text() != stale.text()).then_some(answer)
        })
        .await;
        assert_ne!(cache(&fresh), "MISS", "no client waited for it");
    }
}

/// How the origin behaves: 0 well, 1 errors, 2 resets.
fn moody(
    headers: &'static [(&'static str, &'static str)],
) -> (Arc<AtomicU8>, impl Fn(usize) -> Script + Send + Sync) {
    let mood = Arc::new(AtomicU8::new(0));
    let now = mood.clone();
    let script = move |n| match now.load(Ordering::Relaxed) {
        0 => with(n, headers),
        1 => Script::status(500),
        _ => Script::RawThenReset(Vec::new()),
    };
    (mood, script)
}

#[tokio::test]
async fn while_the_origin_fails_the_old_one_is_good_enough() {
    let (mood, script) = moody(&[]);
    let policy = "ttl_s = 1\nstale_if_error_s = 600";
    let world = World::with(policy, NO_BREAKER, move |_, n| script(n)).await;
    for (wrong, speaks) in [
        (1, Speaks::Http1),
        (1, Speaks::Http2),
        (2, Speaks::Http1),
        (2, Speaks::Http2),
    ] {
        mood.store(0, Ordering::Relaxed);
        let target = format!("/report/{speaks:?}-{wrong}?orgId=org_a");
        let mut caller = world.caller(speaks, "usr_a", "org_a").await;
        let good = caller.get(&target).await;
        assert_eq!(cache(&good), "MISS");
        mood.store(wrong, Ordering::Relaxed);
        let stale = until("it goes stale", || async {
            let mut caller = world.caller(speaks, "usr_a", "org_a").await;
            let answer = caller.get(&target).await;
            assert_eq!(answer.status, 200, "{wrong} {speaks:?}");
            (cache(&answer) == "STALE").then_some(answer)
        })
        .await;
        assert_eq!(stale.body, good.body);
        assert!(
            stale
                .header("cache-status")
                .unwrap()
                .ends_with("detail=stale-if-error")
        );
        // What was never stored cannot be served, and says so.
        let mut caller = world.caller(speaks, "usr_a", "org_a").await;
        let unknown = caller
            .get(&format!("/report/new-{speaks:?}?orgId=org_a"))
            .await;
        assert_eq!(unknown.status, if wrong == 1 { 500 } else { 502 });
    }
}

#[tokio::test]
async fn with_the_breaker_open_or_nobody_there_the_old_one_is_served() {
    let (mood, script) = moody(&[]);
    let extra = "[upstreams.api.breaker]\nfailures = 1\nopen_s = 3600\n";
    let policy = "ttl_s = 1\nstale_if_error_s = 600";
    let world = World::with(policy, extra, move |_, n| script(n)).await;
    let target = "/report/x?orgId=org_a";
    let mut caller = world.member().await;
    assert_eq!(caller.status(target).await, "MISS");
    mood.store(1, Ordering::Relaxed);
    until("it goes stale", || async {
        (world.member().await.status(target).await == "STALE").then_some(())
    })
    .await;
    let fetches = world.fetches();
    for speaks in BOTH {
        let mut caller = world.caller(speaks, "usr_a", "org_a").await;
        // Twice on one connection, or on a new one where the answer says that it closes.
        for _ in 0..2 {
            let answer = caller.get(target).await;
            assert_eq!(
                (answer.status, &*cache(&answer)),
                (200, "STALE"),
                "{speaks:?}"
            );
            if answer.header("connection") == Some("close") {
                caller = world.caller(speaks, "usr_a", "org_a").await;
            }
        }
    }
    assert_eq!(
        world.fetches(),
        fetches,
        "the breaker kept the origin out of it"
    );
}

#[tokio::test]
async fn what_must_be_revalidated_is_not_served_stale() {
    let (mood, script) = moody(&[("cache-control", "max-age=1, must-revalidate")]);
    let policy = "ttl_s = 1\nstale_if_error_s = 600\nstale_while_revalidate_s = 600";
    let world = World::new(policy, move |_, n| script(n)).await;
    let target = "/report/x?orgId=org_a";
    assert_eq!(world.member().await.status(target).await, "MISS");
    mood.store(1, Ordering::Relaxed);
    until("it expires", || async {
        let answer = world
            .caller(Speaks::Http2, "usr_a", "org_a")
            .await
            .get(target)
            .await;
        assert_ne!(cache(&answer), "STALE");
        (answer.status == 500).then_some(())
    })
    .await;
}
