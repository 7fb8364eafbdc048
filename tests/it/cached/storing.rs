//! What is stored, for how long, and for whom.

use super::{World, cache, numbered, with};
use crate::harness::either::{BOTH, Client, Speaks};
use crate::harness::origin::{Gate, Script};
use crate::harness::until;

#[tokio::test]
async fn a_miss_then_hits_that_say_their_age() {
    let world = World::new("ttl_s = 60", |_, n| numbered(n)).await;
    let mut first = world.member().await;
    let miss = first.get("/report/x?orgId=org_a").await;
    assert_eq!((miss.status, &*cache(&miss)), (200, "MISS"));
    assert_eq!(miss.header("cache-status"), Some("maitred; fwd=miss"));
    for speaks in BOTH {
        let mut caller = world.caller(speaks, "usr_a", "org_a").await;
        let hit = caller.get("/report/x?orgId=org_a").await;
        assert_eq!((hit.status, &*cache(&hit)), (200, "HIT"), "{speaks:?}");
        let age: u32 = hit.header("age").unwrap().parse().unwrap();
        let status = hit.header("cache-status").unwrap();
        let ttl = status.strip_prefix("maitred; hit; ttl=").unwrap();
        let ttl: u32 = ttl.parse().unwrap();
        assert!(
            age <= 30 && (59 - age..=60 - age).contains(&ttl),
            "{age} {ttl}"
        );
        assert_eq!(
            (&hit.body, hit.header("content-type")),
            (&miss.body, Some("application/json"))
        );
    }
    assert_eq!(world.fetches(), 1);
    let hits = "maitred_cache_requests_total{cache=\"report\",status=\"hit\"}";
    assert_eq!(world.edge.metric(hits).await, 2.0);
}

#[tokio::test]
async fn organisations_never_share_and_rights_come_before_the_cache() {
    let world = World::new("ttl_s = 60", |seen, n| {
        Script::json(&format!("{{\"n\":{n},\"target\":\"{}\"}}", seen.target))
    })
    .await;
    for speaks in BOTH {
        let n = world.fetches();
        let target = |org: &str| format!("/report/{speaks:?}?orgId={org}");
        let mut a = world.caller(speaks, "usr_a", "org_a").await;
        let mut b = world.caller(speaks, "usr_b", "org_b").await;
        assert_eq!(a.status(&target("org_a")).await, "MISS");
        let foreign = b.get(&target("org_a")).await;
        assert_eq!((foreign.status, &*cache(&foreign)), (403, "nothing"));
        let own = b.get(&target("org_b")).await;
        assert_eq!((own.status, &*cache(&own)), (200, "MISS"));
        assert!(own.text().contains("org_b") && !own.text().contains("org_a"));
        let anonymous = a.client.get(&target("org_a"), &[]).await;
        assert_eq!((anonymous.status, &*cache(&anonymous)), (401, "nothing"));
        let mut colleague = world.caller(speaks, "usr_a2", "org_a").await;
        assert_eq!(colleague.status(&target("org_a")).await, "HIT");
        assert_eq!(world.fetches(), n + 2);
    }
}

#[tokio::test]
async fn what_is_stored_for_a_user_is_for_that_user() {
    let world = World::new("ttl_s = 60", |_, n| {
        with(n, &[("cache-control", "private, max-age=60")])
    })
    .await;
    let mut a = world.member().await;
    assert_eq!(a.status("/own/x").await, "MISS");
    assert_eq!(a.status("/own/x").await, "HIT");
    let mut colleague = world.caller(Speaks::Http2, "usr_a2", "org_a").await;
    assert_eq!(colleague.status("/own/x").await, "MISS");
    assert_eq!(colleague.get("/own/x").await.text(), "{\"n\":2}");
}

#[tokio::test]
async fn freshness_ends() {
    let world = World::new("ttl_s = 1\nstale_if_error_s = 0", |_, n| numbered(n)).await;
    let mut caller = world.member().await;
    let target = "/report/x?orgId=org_a";
    assert_eq!(caller.status(target).await, "MISS");
    let body = until("it expires", || async {
        let mut caller = world.caller(Speaks::Http2, "usr_a", "org_a").await;
        let answer = caller.get(target).await;
        (cache(&answer) == "MISS").then(|| answer.text())
    })
    .await;
    assert_eq!((body.as_str(), world.fetches()), ("{\"n\":2}", 2));
}

#[tokio::test]
async fn the_origins_own_lifetime_wins() {
    let world = World::new("ttl_s = 60\nstale_if_error_s = 0", |_, n| {
        with(n, &[("cache-control", "max-age=60"), ("age", "59")])
    })
    .await;
    let mut caller = world.member().await;
    assert_eq!(caller.status("/report/x?orgId=org_a").await, "MISS");
    until("a second is all that was left", || async {
        let mut caller = world.member().await;
        (caller.status("/report/x?orgId=org_a").await == "MISS").then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_fetch_for_twenty_who_ask_at_once() {
    let gate = Gate::new();
    let held = gate.clone();
    let world = World::new("ttl_s = 60", move |seen, n| {
        if seen.target.starts_with("/report") {
            Script::Held(held.clone(), Box::new(numbered(n)))
        } else {
            numbered(n)
        }
    })
    .await;
    let caller = world.caller(Speaks::Http2, "usr_a", "org_a").await;
    let Client::Http2(connection) = &caller.client else {
        unreachable!("asked for HTTP/2")
    };
    let headers = [("authorization", &*caller.bearer)];
    let mut answers = Vec::new();
    for _ in 0..20 {
        let started = connection.start("GET", "/report/x?orgId=org_a", &headers, true);
        answers.push(started.await.unwrap().0);
    }
    // Sent after them on the same connection, so the edge has read them all.
    let after = connection
        .request("GET", "/open/x", &[], b"")
        .await
        .unwrap();
    assert_eq!(after.status, 200);
    until("the one fetch", || async {
        (world.fetches() >= 2).then_some(())
    })
    .await;
    gate.open();
    let (mut misses, mut hits) = (0, 0);
    for answer in answers {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        match answer.headers()["x-cache"].to_str().unwrap() {
            "MISS" => misses += 1,
            "HIT" => hits += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!((misses, hits), (1, 19));
    let fetched = world
        .origin
        .seen()
        .into_iter()
        .filter(|s| s.target.starts_with("/report"));
    assert_eq!(fetched.count(), 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_hold_the_others() {
    let gate = Gate::new();
    let held = gate.clone();
    let world = World::new("ttl_s = 60", move |_, n| match n {
        1 => Script::Held(held.clone(), Box::new(numbered(n))),
        _ => numbered(n),
    })
    .await;
    let impatient = world.caller(Speaks::Http2, "usr_a", "org_a").await;
    let Client::Http2(connection) = &impatient.client else {
        unreachable!("asked for HTTP/2")
    };
    let headers = [("authorization", &*impatient.bearer)];
    let (answer, _) = connection
        .start("GET", "/report/x?orgId=org_a", &headers, true)
        .await
        .unwrap();
    until("the fetch began", || async {
        (world.fetches() == 1).then_some(())
    })
    .await;
    drop(answer);
    let mut patient = world.member().await;
    let answer = patient.get("/report/x?orgId=org_a").await;
    assert_eq!(answer.status, 200);
    gate.open();
    assert_eq!(patient.status("/report/x?orgId=org_a").await, "HIT");
}

#[tokio::test]
async fn a_ttl_of_nothing_switches_the_cache_off() {
    let world = World::new("ttl_s = 0", |_, n| {
        with(n, &[("cache-control", "max-age=60")])
    })
    .await;
    let mut caller = world.member().await;
    for n in 1..=2 {
        let answer = caller.get("/report/x?orgId=org_a").await;
        assert_eq!(
            (&*cache(&answer), answer.text()),
            ("BYPASS", format!("{{\"n\":{n}}}"))
        );
        assert_eq!(
            answer.header("cache-status"),
            Some("maitred; fwd=bypass; detail=off")
        );
    }
}

#[tokio::test]
async fn what_must_not_be_stored_is_not() {
    const CASES: [(&str, &str); 6] = [
        ("set-cookie", "session=secret"),
        ("cache-control", "no-store"),
        ("cache-control", "private"),
        ("cache-control", "no-cache"),
        ("vary", "*"),
        ("cache-groups", "not a list of strings ;;"),
    ];
    let world = World::new("ttl_s = 60", |seen, n| {
        let index: usize = seen.target[8..9].parse().unwrap();
        let (name, value) = CASES[index];
        with(n, &[(name, value)])
    })
    .await;
    for (index, case) in CASES.iter().enumerate() {
        for speaks in BOTH {
            let before = world.fetches();
            let mut caller = world.caller(speaks, "usr_a", "org_a").await;
            for _ in 0..3 {
                let answer = caller.get(&format!("/report/{index}?orgId=org_a")).await;
                assert_eq!(answer.status, 200);
                assert!(["MISS", "BYPASS"].contains(&&*cache(&answer)), "{case:?}");
            }
            assert_eq!(world.fetches(), before + 3, "{case:?}");
        }
    }
    // A public answer to somebody in particular is not for everybody unless it says so.
    let mut caller = world.member().await;
    for _ in 0..2 {
        assert_ne!(caller.status("/shown/00?x=1").await, "HIT");
    }
}

#[tokio::test]
async fn errors_are_not_stored_unless_they_say_how_long() {
    let world = World::new("ttl_s = 60\nstale_if_error_s = 0", |seen, n| {
        let path = seen.target.split('?').next().unwrap();
        let (status, lifetime) = path["/report/".len()..].split_once('-').unwrap();
        let control = format!("max-age={lifetime}");
        let headers = if lifetime == "0" {
            vec![]
        } else {
            vec![("cache-control", control)]
        };
        Script::Answer {
            status: status.parse().unwrap(),
            headers,
            body: n.to_string().into_bytes(),
        }
    })
    .await;
    for (case, second) in [
        ("404-0", "MISS"),
        ("404-60", "HIT"),
        ("500-60", "MISS"),
        ("503-60", "MISS"),
        ("403-60", "MISS"),
        ("401-60", "MISS"),
        ("206-60", "MISS"),
        ("302-60", "MISS"),
        ("301-60", "HIT"),
    ] {
        let mut caller = world.caller(Speaks::Http2, "usr_a", "org_a").await;
        let target = format!("/report/{case}?orgId=org_a");
        let first = caller.get(&target).await;
        assert_eq!(cache(&first), "MISS", "{case}");
        let again = caller.get(&target).await;
        assert_eq!(
            (again.status, &*cache(&again)),
            (first.status, second),
            "{case}"
        );
    }
}

#[tokio::test]
async fn half_a_response_is_not_stored() {
    let world = World::new("ttl_s = 60", |seen, n| {
        match (n % 2, seen.target.contains("chunked")) {
            (1, true) => Script::RawThenReset(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_vec(),
            ),
            (1, false) => Script::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf".to_vec()),
            _ => numbered(n),
        }
    })
    .await;
    for (speaks, framing) in BOTH.into_iter().zip(["chunked", "length"]) {
        let mut caller = world.caller(speaks, "usr_a", "org_a").await;
        let headers = [("authorization", &*caller.bearer)];
        let target = format!("/report/{framing}?orgId=org_a");
        let cut = caller.client.request("GET", &target, &headers, b"").await;
        assert!(cut.is_err(), "{cut:?}");
        let mut caller = world.member().await;
        let whole = caller.get(&target).await;
        assert_eq!((whole.status, &*cache(&whole)), (200, "MISS"));
        assert!(whole.text().starts_with("{\"n\":"));
    }
}
