//! The store by itself: what is kept, what makes room, what is kept out. Races run on threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use pingora::cache::CacheMeta;
use pingora::cache::key::CacheKey;
use pingora::cache::storage::{MissFinishType, Storage};
use pingora::cache::trace::{Span, SpanHandle};
use pingora::http::ResponseHeader;

use super::{Claim, Declared, Hit, Store};
use crate::cache::Limits;
use crate::cache::groups::{Selector, Which, Whose};
use crate::cache::owner::Owner;
use crate::kernel::clock::{Clock, Dial, UnixMs};

const NOW: UnixMs = UnixMs(1_700_000_000_000);

fn store(bytes_max: u64) -> (&'static Store, Dial) {
    let (clock, dial) = Clock::manual(NOW);
    let limits = Limits {
        bytes_max,
        ..Limits::default()
    };
    (Store::leak(&limits, clock), dial)
}

fn span() -> SpanHandle {
    Span::inactive().handle()
}

fn key(store: &Store, org: &str, path: &str) -> CacheKey {
    let owner = Owner::Org(org.into());
    let claim = Claim::new(owner, "overview".into(), format!("host{path}").into());
    store.fetch_starts(&claim);
    let mut key = CacheKey::new(format!("{org}|{path}"), "");
    key.extensions.insert(Arc::new(claim));
    key
}

fn meta(fields: &[(&'static str, &str)], groups: &[&str]) -> CacheMeta {
    let mut header = ResponseHeader::build(200, None).unwrap();
    for (name, value) in fields {
        header.append_header(*name, *value).unwrap();
    }
    let now = UNIX_EPOCH + Duration::from_millis(NOW.0.unsigned_abs());
    let mut meta = CacheMeta::new(now + Duration::from_secs(60), now, 5, 6, header);
    let groups = groups.iter().map(|g| (*g).into()).collect();
    meta.extensions_mut().insert(Declared(groups));
    meta
}

async fn fill(store: &'static Store, key: &CacheKey, meta: &CacheMeta, body: &[u8]) {
    let mut fill = store.get_miss_handler(key, meta, &span()).await.unwrap();
    fill.write_body(Bytes::copy_from_slice(body), true)
        .await
        .unwrap();
    fill.finish().await.unwrap();
}

async fn found(store: &'static Store, key: &CacheKey) -> Option<(CacheMeta, Vec<u8>)> {
    let (meta, mut hit) = store.lookup(key, &span()).await.unwrap()?;
    let mut body = Vec::new();
    while let Some(piece) = hit.read_body().await.unwrap() {
        body.extend_from_slice(&piece);
    }
    Some((meta, body))
}

fn group(org: &str, group: &str) -> Selector {
    Selector {
        whose: Whose::Org(org.into()),
        which: Which::Groups(vec![group.into()]),
    }
}

#[tokio::test]
async fn what_goes_in_comes_out() {
    let (store, _) = store(1 << 20);
    let key = key(store, "a", "/x");
    fill(store, &key, &meta(&[("etag", "\"1\"")], &[]), b"body").await;
    let (found, body) = found(store, &key).await.unwrap();
    assert_eq!(body, b"body");
    assert_eq!(found.headers()["etag"], "\"1\"");
    assert_eq!(found.headers()["content-length"], "4", "known once whole");
    assert_eq!(found.stale_while_revalidate_sec(), 5);
    assert_eq!(found.stale_if_error_sec(), 6);
    assert_eq!(found.fresh_sec(), 60);
}

#[tokio::test]
async fn a_hit_copies_no_body() {
    let (store, _) = store(1 << 20);
    let key = key(store, "a", "/x");
    fill(store, &key, &meta(&[], &[]), b"body").await;
    let mut places = Vec::new();
    for _ in 0..2 {
        let (_, mut hit) = store.lookup(&key, &span()).await.unwrap().unwrap();
        places.push(hit.read_body().await.unwrap().unwrap().as_ptr());
    }
    assert_eq!(places[0], places[1]);
}

#[tokio::test]
async fn ranges_are_sought_and_read_again() {
    let (store, _) = store(1 << 20);
    let key = key(store, "a", "/x");
    fill(store, &key, &meta(&[], &[]), b"0123456789").await;
    let (_, mut hit) = store.lookup(&key, &span()).await.unwrap().unwrap();
    assert!(hit.can_seek());
    for (start, end, expected) in [(2, Some(4), "23"), (8, None, "89"), (8, Some(99), "89")] {
        hit.seek(start, end).unwrap();
        assert_eq!(hit.read_body().await.unwrap().unwrap(), expected);
        assert!(hit.read_body().await.unwrap().is_none());
    }
    assert!(hit.seek(10, None).is_err());
}

#[tokio::test]
async fn an_equal_hash_is_not_enough() {
    let (store, _) = store(1 << 20);
    let one = key(store, "a", "/x");
    let mut other = key(store, "b", "/x");
    let hash = pingora::cache::key::CacheHashKey::primary_bin(&one);
    other.set_primary_bin_override(hash);
    fill(store, &one, &meta(&[], &[]), b"secret of a").await;
    assert!(found(store, &other).await.is_none());
    assert!(found(store, &one).await.is_some());
}

#[tokio::test]
async fn a_body_that_is_cut_off_or_too_long_is_not_stored() {
    let (store, _) = store(1 << 20);
    for length in ["5", "3", "x"] {
        let key = key(store, "a", length);
        fill(
            store,
            &key,
            &meta(&[("content-length", length)], &[]),
            b"body",
        )
        .await;
        assert!(found(store, &key).await.is_none(), "{length}");
    }
    assert_eq!(store.stats().refused, 3);
}

#[tokio::test]
async fn a_fill_that_is_dropped_leaves_nothing() {
    let (store, _) = store(1 << 20);
    let key = key(store, "a", "/x");
    let mut fill = store
        .get_miss_handler(&key, &meta(&[], &[]), &span())
        .await
        .unwrap();
    fill.write_body(Bytes::from_static(b"half"), false)
        .await
        .unwrap();
    drop(fill);
    assert!(found(store, &key).await.is_none());
    assert_eq!(store.filling_bytes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn bodies_that_are_coming_in_are_bounded() {
    let (store, _) = store(1 << 20);
    let mut fills = Vec::new();
    for i in 0..8 {
        let key = key(store, "a", &i.to_string());
        let mut fill = store
            .get_miss_handler(&key, &meta(&[], &[]), &span())
            .await
            .unwrap();
        fill.write_body(Bytes::from(vec![0; 100_000]), false)
            .await
            .unwrap();
        fills.push(fill);
    }
    let filling = store.filling_bytes.load(Ordering::Relaxed);
    assert!(filling <= (1 << 20) / 4, "{filling}");
    for fill in fills {
        let Ok(MissFinishType::Created(_)) = fill.finish().await else {
            panic!("a fill that is given up is no error for the client");
        };
    }
    assert_eq!(store.filling_bytes.load(Ordering::Relaxed), 0);
    assert_eq!(store.stats().stored, 2);
    assert_eq!(store.stats().refused, 6);
}

#[tokio::test]
async fn bytes_stay_within_the_limit_whatever_comes() {
    let (store, _) = store(1 << 20);
    for i in 0..3_000_usize {
        let key = key(store, "a", &i.to_string());
        fill(store, &key, &meta(&[], &[]), &vec![0; i * 37 % 5_000]).await;
        let stats = store.stats();
        assert!(stats.bytes <= stats.bytes_max);
    }
    let stats = store.stats();
    assert!(stats.bytes > stats.bytes_max / 2, "{stats:?}");
    assert!(stats.evicted > 0);
    assert_eq!(stats.bytes_max, 1 << 20);
}

#[tokio::test]
async fn what_is_larger_than_the_store_is_not_stored() {
    let (store, _) = store(1 << 20);
    let key = key(store, "a", "/x");
    fill(store, &key, &meta(&[], &[]), &vec![0; (1 << 20) + 1]).await;
    assert!(found(store, &key).await.is_none());
}

#[tokio::test]
async fn one_pass_over_cold_entries_does_not_push_out_the_warm_ones() {
    let (store, _) = store(1 << 20);
    let warm: Vec<CacheKey> = (0..100)
        .map(|i| key(store, "warm", &i.to_string()))
        .collect();
    for key in &warm {
        fill(store, key, &meta(&[], &[]), &[0; 1_000]).await;
    }
    for _ in 0..3 {
        for key in &warm {
            assert!(found(store, key).await.is_some());
        }
    }
    for i in 0..5_000 {
        let key = key(store, "scan", &i.to_string());
        fill(store, &key, &meta(&[], &[]), &[0; 1_000]).await;
    }
    let mut left = 0;
    for key in &warm {
        left += usize::from(found(store, key).await.is_some());
    }
    assert!(left > 90, "{left} of 100 left");
}

#[tokio::test]
async fn an_invalidation_takes_its_own_and_counts_them() {
    let (store, _) = store(1 << 20);
    for (org, path, groups) in [
        ("a", "/1", &["rankings"][..]),
        ("a", "/2", &["rankings", "teams"]),
        ("a", "/3", &["teams"]),
        ("b", "/1", &["rankings"]),
    ] {
        fill(store, &key(store, org, path), &meta(&[], groups), b"x").await;
    }
    let both = Selector {
        whose: Whose::Org("a".into()),
        which: Which::Groups(vec!["rankings".into(), "none".into()]),
    };
    assert_eq!(store.matching(&both), 2);
    assert_eq!(store.invalidate(&both), 2);
    assert_eq!(store.invalidate(&both), 0);
    assert!(found(store, &key(store, "a", "/1")).await.is_none());
    assert!(found(store, &key(store, "a", "/3")).await.is_some());
    assert!(found(store, &key(store, "b", "/1")).await.is_some());
    assert_eq!(store.invalidate(&group("a", "overview")), 1, "its policy");
    assert_eq!(store.stats().invalidated, 3);
}

#[tokio::test]
async fn a_resource_is_forgotten_for_its_owner() {
    let (store, _) = store(1 << 20);
    for org in ["a", "b"] {
        fill(store, &key(store, org, "/x"), &meta(&[], &[]), b"x").await;
    }
    let target = Selector {
        whose: Whose::Org("a".into()),
        which: Which::Target("host/x".into()),
    };
    assert_eq!(store.invalidate(&target), 1);
    assert!(found(store, &key(store, "b", "/x")).await.is_some());
}

#[tokio::test]
async fn what_was_fetched_before_an_invalidation_is_not_stored_after_it() {
    let (store, _) = store(1 << 20);
    let early = key(store, "a", "/x");
    let meta = meta(&[], &["rankings"]);
    let mut fill_ = store
        .get_miss_handler(&early, &meta, &span())
        .await
        .unwrap();
    fill_
        .write_body(Bytes::from_static(b"old"), true)
        .await
        .unwrap();
    assert_eq!(store.invalidate(&group("a", "rankings")), 0);
    fill_.finish().await.unwrap();
    assert!(found(store, &early).await.is_none());
    assert_eq!(store.stats().fenced, 1);
    // A retry under the same claim starts anew.
    store.fetch_starts(super::claim(&early).unwrap());
    fill(store, &early, &meta, b"new").await;
    assert_eq!(found(store, &early).await.unwrap().1, b"new");
}

#[tokio::test]
async fn a_fetch_that_took_too_long_is_not_stored() {
    let (store, dial) = store(1 << 20);
    let key = key(store, "a", "/x");
    dial.advance(Duration::from_millis(Limits::default().fetch_ms_max + 1));
    fill(store, &key, &meta(&[], &[]), b"late").await;
    assert!(found(store, &key).await.is_none());
}

#[tokio::test]
async fn rfc9111_4_3_4_a_validation_renews_the_entry_that_was_found() {
    let (store, _) = store(1 << 20);
    let first = key(store, "a", "/x");
    fill(store, &first, &meta(&[("etag", "\"1\"")], &["g"]), b"body").await;
    assert!(found(store, &first).await.is_some());
    let mut renewed = meta(&[("etag", "\"1\""), ("x-new", "1")], &["g", "h"]);
    assert!(store.update_meta(&first, &renewed, &span()).await.unwrap());
    let (now, body) = found(store, &first).await.unwrap();
    assert_eq!(now.headers()["x-new"], "1");
    assert_eq!(body, b"body");
    assert_eq!(store.matching(&group("a", "h")), 1);
    // Without a word about groups they stay as they were.
    renewed.extensions_mut().remove::<Declared>();
    assert!(store.update_meta(&first, &renewed, &span()).await.unwrap());
    assert_eq!(store.matching(&group("a", "h")), 1);
}

#[tokio::test]
async fn a_validation_does_not_touch_a_successor_or_bring_back_the_dead() {
    let (store, _) = store(1 << 20);
    let (slow, quick) = (key(store, "a", "/x"), key(store, "a", "/x"));
    fill(store, &slow, &meta(&[], &["g"]), b"old").await;
    assert!(found(store, &slow).await.is_some());
    fill(store, &quick, &meta(&[], &["g"]), b"new").await;
    let renewed = meta(&[("x-new", "1")], &["g"]);
    assert!(!store.update_meta(&slow, &renewed, &span()).await.unwrap());
    assert_eq!(found(store, &quick).await.unwrap().1, b"new");
    store.invalidate(&group("a", "g"));
    assert!(!store.update_meta(&quick, &renewed, &span()).await.unwrap());
    assert!(found(store, &quick).await.is_none());
}

#[tokio::test]
async fn a_validation_that_began_before_an_invalidation_renews_nothing() {
    let (store, _) = store(1 << 20);
    let slow = key(store, "a", "/x");
    // Another request's fetch, begun after the invalidation, has put a new entry there.
    store.invalidate(&group("a", "g"));
    let quick = key(store, "a", "/x");
    fill(store, &quick, &meta(&[], &["g"]), b"new").await;
    assert!(found(store, &slow).await.is_some());
    assert!(
        !store
            .update_meta(&slow, &meta(&[("x-new", "1")], &["g"]), &span())
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_hit_knows_whether_it_was_fetched_after_the_question() {
    let (store, dial) = store(1 << 20);
    let asked = key(store, "a", "/x");
    dial.advance(Duration::from_millis(5));
    let fetched = key(store, "a", "/x");
    fill(store, &fetched, &meta(&[], &[]), b"x").await;
    let (_, hit) = store.lookup(&asked, &span()).await.unwrap().unwrap();
    let hit = hit.as_any().downcast_ref::<Hit>().unwrap();
    assert!(hit.fetched_since(super::claim(&asked).unwrap()));
    assert!(!hit.fetched_since(super::claim(&fetched).unwrap()));
}

/// Readers, writers and an invalidator at once. The origin's content is a counter that the
/// invalidator raises before it invalidates: nobody may be served, nor the store hold, a value from
/// before an invalidation that was complete when they asked.
#[test]
fn nothing_old_is_served_once_an_invalidation_is_done() {
    let (store, _) = store(1 << 20);
    let origin = AtomicU64::new(0);
    let done = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let (origin, done, over) = (&origin, &done, &over);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    fetch(store, origin);
                }
            });
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let at_least = done.load(Ordering::SeqCst);
                    let value = read(store);
                    assert!(
                        value.is_none_or(|v| v >= at_least),
                        "{value:?} < {at_least}"
                    );
                }
            });
        }
        // Until both have happened often: whether they do in a given round is the scheduler's choice.
        let enough = |stats: super::Stats| stats.stored.min(stats.fenced) >= 100;
        while !enough(store.stats()) {
            let version = done.load(Ordering::SeqCst) + 1;
            origin.store(version, Ordering::SeqCst);
            store.invalidate(&group("a", "g"));
            done.store(version, Ordering::SeqCst);
            thread::yield_now();
        }
        over.store(true, Ordering::Relaxed);
    });
    let last = done.load(Ordering::SeqCst);
    assert!(read(store).is_none_or(|v| v == last));
}

fn block<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

/// One request that misses: the fetch starts, the origin answers, the answer is stored.
fn fetch(store: &'static Store, origin: &AtomicU64) {
    let key = key(store, "a", "/x");
    let value = origin.load(Ordering::SeqCst);
    thread::yield_now();
    block(fill(store, &key, &meta(&[], &["g"]), &value.to_be_bytes()));
}

fn read(store: &'static Store) -> Option<u64> {
    let (_, body) = block(found(store, &key(store, "a", "/x")))?;
    Some(u64::from_be_bytes(body.try_into().unwrap()))
}
