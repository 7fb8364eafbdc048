//! What a request may ask of the cache, and what every answer says about it.

use super::{NO_BREAKER, World, cache, numbered, with};
use crate::harness::either::{BOTH, Client, Speaks};
use crate::harness::origin::Script;

#[tokio::test]
async fn a_query_has_one_spelling_and_no_more_than_is_known() {
    let world = World::new("ttl_s = 60", |_, n| numbered(n)).await;
    let mut caller = world.member().await;
    assert_eq!(
        caller
            .status("/report/x?range=today&orgId=org_a&utm=1")
            .await,
        "MISS"
    );
    for same in [
        "/report/x?orgId=org_a&range=today",
        "/report/x?orgId=org_a&&range=today&evil=1",
        "/report/x?range=t%6fday&orgId=org%5fa",
        "/report/./y/../x?orgId=org_a&range=today",
    ] {
        assert_eq!(caller.status(same).await, "HIT", "{same}");
    }
    for other in [
        "/report/x?orgId=org_a&range=week",
        "/report/X?orgId=org_a&range=today",
    ] {
        assert_eq!(caller.status(other).await, "MISS", "{other}");
    }
    assert_eq!(
        world.origin.seen()[0].target,
        "/report/x?orgId=org_a&range=today"
    );
}

#[tokio::test]
async fn head_is_answered_from_a_stored_get() {
    let world = World::new("ttl_s = 60", |_, n| numbered(n)).await;
    for speaks in BOTH {
        let target = format!("/report/{speaks:?}?orgId=org_a");
        let mut caller = world.caller(speaks, "usr_a", "org_a").await;
        let whole = caller.get(&target).await;
        let head = caller.send("HEAD", &target, &[]).await;
        assert_eq!(
            (head.status, &*cache(&head), head.body.len()),
            (200, "HIT", 0)
        );
        let length = whole.body.len().to_string();
        assert_eq!(head.header("content-length"), Some(&*length));
        assert_eq!(
            caller.status(&target).await,
            "HIT",
            "the connection goes on"
        );
    }
    assert_eq!(world.fetches(), 2);
}

#[tokio::test]
async fn a_validator_that_matches_is_304() {
    let world = World::new("ttl_s = 60", |_, n| with(n, &[("etag", "\"v1\"")])).await;
    for speaks in BOTH {
        let target = format!("/report/{speaks:?}?orgId=org_a");
        let mut caller = world.caller(speaks, "usr_a", "org_a").await;
        caller.get(&target).await;
        for tag in ["\"v1\"", "W/\"v1\"", "\"v0\", \"v1\"", "*"] {
            let same = caller.send("GET", &target, &[("if-none-match", tag)]).await;
            assert_eq!((same.status, &*cache(&same)), (304, "HIT"), "{tag}");
            assert_eq!((same.header("etag"), same.body.len()), (Some("\"v1\""), 0));
        }
        let differs = caller
            .send("GET", &target, &[("if-none-match", "\"v2\"")])
            .await;
        assert_eq!((differs.status, &*cache(&differs)), (200, "HIT"));
        let ranged = caller.send("GET", &target, &[("range", "bytes=1-3")]).await;
        assert_eq!((ranged.status, ranged.text().as_str()), (206, "\"n\""));
    }
    assert_eq!(world.fetches(), 2);
}

#[tokio::test]
async fn variants_are_kept_apart() {
    let world = World::new("ttl_s = 60", |seen, _| Script::Answer {
        status: 200,
        headers: vec![("vary", "Accept-Language".into())],
        body: seen
            .header("accept-language")
            .unwrap_or("none")
            .as_bytes()
            .to_vec(),
    })
    .await;
    let mut caller = world.member().await;
    for round in ["MISS", "HIT"] {
        for language in ["es", "en"] {
            let headers = [("accept-language", language)];
            let answer = caller.send("GET", "/report/x?orgId=org_a", &headers).await;
            assert_eq!(
                (answer.text().as_str(), &*cache(&answer)),
                (language, round)
            );
        }
    }
}

#[tokio::test]
async fn only_if_cached_is_answered_from_the_store_or_not_at_all() {
    let world = World::new("ttl_s = 60", |_, n| numbered(n)).await;
    let only = [("cache-control", "only-if-cached")];
    for speaks in BOTH {
        let before = world.fetches();
        let target = format!("/report/{speaks:?}?orgId=org_a");
        let mut caller = world.caller(speaks, "usr_a", "org_a").await;
        let refused = caller.send("GET", &target, &only).await;
        assert_eq!(refused.status, 504);
        assert_eq!(refused.json()["type"], "urn:maitred:refusal:only-if-cached");
        assert_eq!(world.fetches(), before);
        let mut caller = world.caller(speaks, "usr_a", "org_a").await;
        assert_eq!(caller.status(&target).await, "MISS");
        let stored = caller.send("GET", &target, &only).await;
        assert_eq!((stored.status, &*cache(&stored)), (200, "HIT"));
    }
}

#[tokio::test]
async fn a_client_cannot_push_past_the_cache() {
    let world = World::new("ttl_s = 60", |_, n| numbered(n)).await;
    let mut caller = world.member().await;
    caller.get("/report/x?orgId=org_a").await;
    for (name, value) in [
        ("cache-control", "no-cache"),
        ("cache-control", "max-age=0"),
        ("cache-control", "no-store"),
        ("pragma", "no-cache"),
    ] {
        let answer = caller
            .send("GET", "/report/x?orgId=org_a", &[(name, value)])
            .await;
        assert_eq!(cache(&answer), "HIT", "{name}: {value}");
    }
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn where_it_is_honoured_no_cache_revalidates() {
    let world = World::new("ttl_s = 60\nclient_no_cache = \"honour\"", |seen, n| {
        if seen.header("if-none-match") == Some("\"v1\"") {
            return Script::Raw(b"HTTP/1.1 304 Not Modified\r\netag: \"v1\"\r\n\r\n".to_vec());
        }
        with(n, &[("etag", "\"v1\"")])
    })
    .await;
    for speaks in BOTH {
        let target = format!("/report/{speaks:?}?orgId=org_a");
        let mut caller = world.caller(speaks, "usr_a", "org_a").await;
        let first = caller.get(&target).await;
        let again = caller
            .send("GET", &target, &[("cache-control", "no-cache")])
            .await;
        assert_eq!((again.status, &*cache(&again)), (200, "REVALIDATED"));
        assert_eq!(again.body, first.body);
        let told = again.header("cache-status").unwrap();
        let ttl = told.strip_prefix("maitred; fwd=stale; fwd-status=304; ttl=");
        assert!(["59", "60"].contains(&ttl.unwrap()), "{told}");
    }
    assert_eq!(world.fetches(), 4);
}

#[tokio::test]
async fn every_answer_of_a_cached_route_says_what_the_cache_did() {
    let world = World::with("ttl_s = 60\nstale_if_error_s = 0", NO_BREAKER, |seen, n| {
        let path = seen.target.split('?').next().unwrap();
        match path {
            "/report/gone" => Script::RawThenReset(Vec::new()),
            "/report/ok" => numbered(n),
            _ => Script::status(path["/report/".len()..].parse().unwrap()),
        }
    })
    .await;
    for speaks in BOTH {
        for (path, status) in [
            ("ok", 200),
            ("404", 404),
            ("500", 500),
            ("gone", 502),
            ("204", 204),
        ] {
            for method in ["GET", "HEAD"] {
                let mut caller = world.caller(speaks, "usr_a", "org_a").await;
                let target = format!("/report/{path}?orgId=org_a");
                let answer = caller.send(method, &target, &[]).await;
                assert_eq!(answer.status, status, "{path}");
                assert_ne!(cache(&answer), "nothing", "{speaks:?} {method} {path}");
                let told = answer
                    .headers
                    .iter()
                    .filter(|(n, _)| n == "cache-status")
                    .count();
                assert_eq!(told, 1, "{speaks:?} {method} {path}");
                assert_eq!(answer.header("cache-groups"), None);
            }
        }
    }
    let mut plain = Client::open(&world.edge, Speaks::Http2).await;
    let other = plain.get("/healthz", &[]).await;
    assert_eq!(
        cache(&other),
        "nothing",
        "only cached routes speak of a cache"
    );
}
