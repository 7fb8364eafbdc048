//! The phases inside the framework's proxy, over sockets: what a client and an origin observe.

mod forgetting;
mod harness;

use http::Method;
use pingora::{Error, ErrorType};
use tokio::sync::watch;

use super::should_serve_stale;
use crate::cache::{ClientNoCache, Policy, Scope};

use harness::{Answer, World, answer, policy};

/// Stale on arrival, and usable as `extra` says: no test has to wait for anything to expire.
fn stale(extra: &str, body: &str) -> Answer {
    let headers = format!("cache-control: max-age=60, {extra}\r\nage: 60\r\netag: \"1\"\r\n");
    answer(200, &headers, body)
}

#[tokio::test]
async fn a_miss_then_hits_and_one_request_to_the_origin() {
    let groups = "cache-groups: \"overview\"\r\nserver: x\r\nconnection: x-hop\r\nx-hop: 1\r\n";
    let world = World::new(policy(Scope::Public), move |_, _| {
        answer(200, groups, "hello")
    })
    .await;
    let miss = world.get("/x").await;
    assert_eq!((miss.status, miss.body.as_str()), (200, "hello"));
    assert_eq!(miss.header("x-cache"), "MISS");
    assert_eq!(miss.header("cache-status"), "maitred; fwd=miss");
    for _ in 0..3 {
        let hit = world.get("/x").await;
        assert_eq!(hit.body, "hello");
        assert_eq!(hit.header("x-cache"), "HIT");
        let status = hit.header("cache-status");
        assert!(status.starts_with("maitred; hit; ttl="), "{status}");
        assert_eq!(hit.header("age"), "0");
        assert_eq!(hit.header("content-length"), "5");
        assert_eq!(hit.header("cache-groups"), "");
        assert_eq!(hit.header("x-hop"), "");
    }
    assert_eq!(world.seen().len(), 1);
}

#[tokio::test]
async fn rfc9110_9_3_2_head_is_answered_from_get_and_fills_for_it() {
    let world = World::new(policy(Scope::Public), |_, _| answer(200, "", "hello")).await;
    let first = world.ask(&Method::HEAD, "/x", "").await;
    assert_eq!((first.status, first.body.as_str()), (200, ""));
    let get = world.get("/x").await;
    assert_eq!((get.header("x-cache"), get.body.as_str()), ("HIT", "hello"));
    let head = world.ask(&Method::HEAD, "/x", "").await;
    assert_eq!((head.header("x-cache"), head.body.as_str()), ("HIT", ""));
    assert_eq!(head.header("content-length"), "5");
    assert!(world.seen()[0].starts_with("GET "));
}

#[tokio::test]
async fn rfc9110_14_ranges_are_cut_from_the_stored_whole() {
    let chunked = || Answer {
        bytes: b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\netag: \"1\"\r\n\r\n\
            4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n"
            .to_vec(),
        when: None,
    };
    let world = World::new(policy(Scope::Public), move |_, _| chunked()).await;
    assert_eq!(world.get("/x").await.body, "0123456789");
    let part = world.get_with("/x", "range: bytes=2-4\r\n").await;
    assert_eq!((part.status, part.body.as_str()), (206, "234"));
    assert_eq!(part.header("x-cache"), "HIT");
    assert_eq!(part.header("content-range"), "bytes 2-4/10");
    let beyond = world.get_with("/x", "range: bytes=10-\r\n").await;
    assert_eq!(beyond.status, 416);
    let same = world.get_with("/x", "if-none-match: \"1\"\r\n").await;
    assert_eq!((same.status, same.body.as_str()), (304, ""));
    assert_eq!(same.header("x-cache"), "HIT");
    assert_eq!(world.seen().len(), 1);
}

#[tokio::test]
async fn one_fetch_for_all_who_ask_at_once() {
    let (go, when) = watch::channel(false);
    let world = World::new(policy(Scope::Public), move |_, _| Answer {
        when: Some(when.clone()),
        ..answer(200, "", "hello")
    })
    .await;
    let asked: Vec<_> = (0..50).map(|_| world.get("/x")).collect();
    let release = async {
        world.seen_at_least(1).await;
        go.send_replace(true);
    };
    let (got, ()) = tokio::join!(futures_util::future::join_all(asked), release);
    let count = |x: &str| got.iter().filter(|g| g.header("x-cache") == x).count();
    assert_eq!((count("MISS"), count("HIT")), (1, 49));
    assert!(got.iter().all(|g| g.body == "hello"));
    let collapsed = "maitred; fwd=miss; collapsed; ttl=";
    let status = |g: &&harness::Got| g.header("cache-status").starts_with(collapsed);
    assert!(got.iter().filter(status).count() > 0);
    assert_eq!(world.seen().len(), 1);
}

#[tokio::test]
async fn what_turns_out_uncacheable_is_not_waited_for_again() {
    let world = World::new(policy(Scope::Public), |n, _| {
        let cookie = format!("set-cookie: a={n}\r\n");
        answer(200, &cookie, "mine")
    })
    .await;
    let first = world.get("/x").await;
    assert_eq!(first.header("x-cache"), "MISS");
    let status = "maitred; fwd=miss; stored=?0; detail=set-cookie";
    assert_eq!(first.header("cache-status"), status);
    let second = world.get("/x").await;
    assert_eq!(second.header("x-cache"), "BYPASS");
    assert_eq!(second.header("set-cookie"), "a=2");
    assert_eq!(world.seen().len(), 2);
}

#[tokio::test]
async fn rfc9111_4_3_a_stale_response_is_confirmed_and_renewed() {
    let world = World::new(policy(Scope::Public), |n, _| match n {
        1 => stale("stale-if-error=60", "hello"),
        _ => answer(
            304,
            "etag: \"1\"\r\ncache-control: max-age=60\r\nx-new: 1\r\nage: 7\r\n",
            "",
        ),
    })
    .await;
    world.get("/x").await;
    let confirmed = world.get("/x").await;
    assert_eq!((confirmed.status, confirmed.body.as_str()), (200, "hello"));
    assert_eq!(confirmed.header("x-cache"), "REVALIDATED");
    let status = confirmed.header("cache-status");
    assert!(
        status.starts_with("maitred; fwd=stale; fwd-status=304; ttl=5"),
        "{status}"
    );
    assert_eq!(confirmed.header("age"), "7");
    assert!(
        world.seen()[1].contains("if-none-match: \"1\"")
            || world.seen()[1].contains("If-None-Match: \"1\"")
    );
    let hit = world.get("/x").await;
    assert_eq!((hit.header("x-cache"), hit.header("x-new")), ("HIT", "1"));
    assert_eq!(hit.header("age"), "7");
    assert_eq!(world.seen().len(), 2);
}

#[tokio::test]
async fn rfc5861_3_stale_while_a_background_fetch_runs() {
    let world = World::new(policy(Scope::Public), |n, _| match n {
        1 => stale("stale-while-revalidate=60", "old"),
        _ => answer(200, "cache-control: max-age=60\r\n", "new"),
    })
    .await;
    world.get("/x").await;
    let old = world.get("/x").await;
    assert_eq!((old.header("x-cache"), old.body.as_str()), ("STALE", "old"));
    let status = old.header("cache-status");
    assert!(
        status.ends_with("detail=stale-while-revalidate"),
        "{status}"
    );
    world.seen_at_least(2).await;
    let new = world.until("/x", "HIT").await;
    assert_eq!(new.body, "new");
    assert_eq!(world.seen().len(), 2);
}

#[tokio::test]
async fn rfc5861_4_stale_if_the_origin_fails() {
    let world = World::new(policy(Scope::Public), |n, _| match n {
        1 => stale("stale-if-error=60", "old"),
        2 => answer(503, "", "sorry"),
        3 => Answer {
            bytes: b"this is no HTTP\r\n\r\n".to_vec(),
            when: None,
        },
        _ => answer(501, "", "never heard of it"),
    })
    .await;
    world.get("/x").await;
    for _ in 0..2 {
        let old = world.get("/x").await;
        assert_eq!((old.status, old.body.as_str()), (200, "old"));
        assert_eq!(old.header("x-cache"), "STALE");
        let status = old.header("cache-status");
        assert!(status.ends_with("detail=stale-if-error"), "{status}");
        assert!(old.header("age").parse::<u32>().unwrap() >= 60);
    }
    // Not one of the failures that RFC 5861 means.
    assert_eq!(world.get("/x").await.status, 501);
}

#[tokio::test]
async fn rfc9111_5_2_2_2_what_must_be_revalidated_is_not_served_when_the_origin_fails() {
    let world = World::new(policy(Scope::Public), |n, _| match n {
        1 => answer(
            200,
            "cache-control: max-age=1, must-revalidate, stale-if-error=60\r\n",
            "old",
        ),
        _ => answer(503, "", "sorry"),
    })
    .await;
    world.get("/x").await;
    let mut status = 200;
    for _ in 0..300 {
        status = world.get("/x").await.status;
        if status != 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(status, 503);
}

#[tokio::test]
async fn rfc9111_5_2_1_7_only_if_cached() {
    let world = World::new(policy(Scope::Public), |_, _| answer(200, "", "hello")).await;
    let only = "cache-control: only-if-cached\r\n";
    assert_eq!(world.get_with("/x", only).await.status, 504);
    assert_eq!(world.seen().len(), 0);
    world.get("/x").await;
    let hit = world.get_with("/x", only).await;
    assert_eq!((hit.status, hit.header("x-cache")), (200, "HIT"));
}

#[tokio::test]
async fn rfc9111_5_2_1_4_no_cache_reaches_the_origin_where_honoured() {
    let honouring = Policy {
        client_no_cache: ClientNoCache::Honour,
        ..policy(Scope::Public)
    };
    for (policy, seen) in [(honouring, 2), (policy(Scope::Public), 1)] {
        let world = World::new(policy, |n, _| match n {
            1 => answer(200, "etag: \"1\"\r\n", "hello"),
            _ => answer(304, "etag: \"1\"\r\n", ""),
        })
        .await;
        world.get("/x").await;
        let again = world.get_with("/x", "cache-control: no-cache\r\n").await;
        assert_eq!(again.body, "hello");
        let expected = if seen == 2 { "REVALIDATED" } else { "HIT" };
        assert_eq!(again.header("x-cache"), expected);
        assert_eq!(world.seen().len(), seen);
    }
}

#[tokio::test]
async fn rfc9111_5_2_1_5_no_store_stores_nothing_and_harms_nobody() {
    let world = World::new(policy(Scope::Public), |_, _| answer(200, "", "hello")).await;
    let secretive = "cache-control: no-store\r\n";
    for _ in 0..2 {
        let got = world.get_with("/x", secretive).await;
        let status = "maitred; fwd=miss; stored=?0; detail=client-no-store";
        assert_eq!(got.header("cache-status"), status);
    }
    assert_eq!(world.get("/x").await.header("x-cache"), "MISS");
    assert_eq!(world.get("/x").await.header("x-cache"), "HIT");
    let hit = world.get_with("/x", secretive).await;
    assert_eq!(hit.header("x-cache"), "HIT", "no way around the store");
}

#[tokio::test]
async fn rfc9111_4_1_variants_are_kept_apart() {
    let world = World::new(policy(Scope::Public), |_, head| {
        let zipped = head.to_ascii_lowercase().contains("gzip");
        let body = if zipped { "zipped" } else { "plain" };
        answer(200, "vary: accept-encoding\r\n", body)
    })
    .await;
    let zip = "accept-encoding: gzip, br\r\n";
    assert_eq!(world.get("/x").await.body, "plain");
    assert_eq!(world.get_with("/x", zip).await.body, "zipped");
    let same = world
        .get_with("/x", "accept-encoding: br,GZIP;q=1\r\n")
        .await;
    assert_eq!(
        (same.header("x-cache"), same.body.as_str()),
        ("HIT", "zipped")
    );
    let plain = world.get("/x").await;
    assert_eq!(
        (plain.header("x-cache"), plain.body.as_str()),
        ("HIT", "plain")
    );
    assert_eq!(world.seen().len(), 2);
}

#[tokio::test]
async fn what_is_too_large_passes_through_whole_and_is_not_stored() {
    let body = "x".repeat(150_000);
    let large = body.clone();
    let world = World::new(policy(Scope::Public), move |_, head| {
        if head.starts_with("GET /chunked") {
            let framing = "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n";
            let chunk = format!("{framing}{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
            return Answer {
                bytes: chunk.into_bytes(),
                when: None,
            };
        }
        answer(200, "", &large)
    })
    .await;
    for path in ["/chunked", "/counted"] {
        for _ in 0..2 {
            let got = world.get(path).await;
            assert_eq!(got.body.len(), body.len(), "{path}");
            assert_ne!(got.header("x-cache"), "HIT", "{path}");
        }
    }
    assert_eq!(world.cache.store().stats().entries, 0);
}

#[tokio::test]
async fn organisations_do_not_see_each_others_answers() {
    let world = World::new(policy(Scope::Org), |_, head| {
        let org = head
            .lines()
            .find(|l| l.to_ascii_lowercase().starts_with("x-org"));
        answer(200, "", org.unwrap_or("nobody"))
    })
    .await;
    for _ in 0..2 {
        for org in ["a", "b"] {
            let got = world.get_with("/x", &format!("x-org: {org}\r\n")).await;
            assert!(got.body.ends_with(&format!(": {org}")), "{}", got.body);
        }
    }
    assert_eq!(world.seen().len(), 2);
    let nobody = world.get("/x").await;
    assert_eq!(
        (nobody.header("x-cache"), nobody.body.as_str()),
        ("BYPASS", "nobody")
    );
    let status = "maitred; fwd=bypass; detail=anonymous";
    assert_eq!(nobody.header("cache-status"), status);
}

#[tokio::test]
async fn what_is_not_in_the_key_does_not_reach_the_origin() {
    let keyed = Policy {
        query: Some(vec!["from".into()]),
        ..policy(Scope::Public)
    };
    let world = World::new(keyed, |_, _| answer(200, "", "hello")).await;
    world.get("/x?utm=1&from=2").await;
    assert_eq!(
        world.get("/x?from=2&callback=evil").await.header("x-cache"),
        "HIT"
    );
    assert!(
        world.seen()[0].starts_with("GET /x?from=2 HTTP/1.1\r\n"),
        "{}",
        world.seen()[0]
    );
    // A body on a GET is not part of the key either.
    let fat = world.get_with("/x?from=2", "content-length: 0\r\n").await;
    assert_eq!(fat.header("x-cache"), "HIT");
}

#[tokio::test]
async fn failures_and_parts_are_not_stored_and_do_not_stick() {
    let world = World::new(policy(Scope::Public), |n, _| match n {
        1 => answer(500, "cache-control: max-age=60\r\n", "oops"),
        2 => answer(404, "", "not yet"),
        3 => answer(
            206,
            "cache-control: max-age=60\r\ncontent-range: bytes 0-0/5\r\n",
            "h",
        ),
        _ => answer(200, "", "hello"),
    })
    .await;
    for status in [500, 404] {
        let got = world.get("/x").await;
        assert_eq!((got.status, got.header("x-cache")), (status, "MISS"));
    }
    assert_ne!(world.get("/x").await.header("x-cache"), "HIT");
    assert_ne!(world.get("/x").await.header("x-cache"), "HIT");
    let hit = world.get("/x").await;
    assert_eq!((hit.header("x-cache"), hit.body.as_str()), ("HIT", "hello"));
}

#[tokio::test]
async fn rfc9111_5_1_age_from_the_origin_counts_on_hits() {
    let world = World::new(policy(Scope::Public), |_, _| {
        answer(200, "cache-control: max-age=60\r\nage: 50\r\n", "hello")
    })
    .await;
    world.get("/x").await;
    let hit = world.get("/x").await;
    let age: u32 = hit.header("age").parse().unwrap();
    assert!((50..55).contains(&age));
    let ttl: i64 = hit
        .header("cache-status")
        .rsplit('=')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((5..=10).contains(&ttl));
}

#[test]
fn an_http2_request_line_gets_no_background_fetch_and_no_silent_staleness() {
    let mut request = http::Request::new(()).into_parts().0;
    assert!(should_serve_stale(&request, None));
    request.version = http::Version::HTTP_2;
    assert!(!should_serve_stale(&request, None));
}

#[test]
fn rfc5861_4_which_failures_allow_a_stale_answer() {
    let request = http::Request::new(()).into_parts().0;
    let allows = |error: &Error| should_serve_stale(&request, Some(error));
    for (status, allowed) in [
        (500, true),
        (501, false),
        (502, true),
        (504, true),
        (404, false),
    ] {
        let error = Error::new_up(ErrorType::HTTPStatus(status));
        assert_eq!(allows(&error), allowed, "{status}");
    }
    assert!(allows(&Error::new_up(ErrorType::ConnectRefused)));
    assert!(allows(&Error::new_in(ErrorType::Custom("breaker open"))));
    assert!(!allows(&Error::new_down(ErrorType::ReadError)));
}
