use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::Limiter;
use crate::kernel::clock::{Clock, Dial, UnixMs};
use crate::limit::Quota;
use crate::limit::key::Key;

fn quota(requests: u32, window_s: u32) -> Quota {
    Quota {
        requests: NonZeroU32::new(requests).unwrap(),
        window_s: NonZeroU32::new(window_s).unwrap(),
    }
}

fn limiter(keys_max: usize) -> (Limiter, Dial, Arc<str>) {
    let (clock, dial) = Clock::manual(UnixMs(1_700_000_000_000));
    (Limiter::new(clock, keys_max), dial, "plan".into())
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_whole_quota_may_come_at_once_and_no_more() {
    let (limiter, dial, plan) = limiter(100);
    let (quota, key) = (quota(60, 60), Key::subject("usr_1"));
    for nth in 1..=60 {
        let decision = limiter.take(&plan, quota, &key);
        assert_eq!(decision.retry_after_s, None);
        assert_eq!((decision.remaining, decision.reset_s), (60 - nth, nth));
    }
    let refused = limiter.take(&plan, quota, &key);
    assert_eq!(
        (refused.remaining, refused.retry_after_s, refused.reset_s),
        (0, Some(1), 60)
    );
    dial.advance(SECOND);
    assert_eq!(limiter.take(&plan, quota, &key).retry_after_s, None);
    assert_eq!(limiter.take(&plan, quota, &key).retry_after_s, Some(1));
    dial.advance(SECOND * 60);
    assert_eq!(limiter.take(&plan, quota, &key).remaining, 59);
}

#[test]
fn a_slow_quota_says_how_long_to_wait() {
    let (limiter, dial, plan) = limiter(100);
    let (quota, key) = (quota(5, 900), Key::subject("usr_1"));
    for _ in 0..5 {
        assert_eq!(limiter.take(&plan, quota, &key).retry_after_s, None);
    }
    assert_eq!(limiter.take(&plan, quota, &key).retry_after_s, Some(180));
    dial.advance(Duration::from_millis(179_500));
    assert_eq!(limiter.take(&plan, quota, &key).retry_after_s, Some(1));
    dial.advance(Duration::from_millis(500));
    assert_eq!(limiter.take(&plan, quota, &key).retry_after_s, None);
}

#[test]
fn looking_counts_nothing_and_agrees_with_taking() {
    let (limiter, _dial, plan) = limiter(100);
    let (quota, key) = (quota(3, 60), Key::subject("usr_1"));
    for left in (0..3).rev() {
        for _ in 0..10 {
            assert_eq!(limiter.look(&plan, quota, &key).retry_after_s, None);
            assert_eq!(limiter.look(&plan, quota, &key).remaining, left + 1);
        }
        assert_eq!(limiter.take(&plan, quota, &key).remaining, left);
    }
    let (looked, taken) = (
        limiter.look(&plan, quota, &key),
        limiter.take(&plan, quota, &key),
    );
    assert_eq!(looked.retry_after_s, Some(20));
    assert_eq!(looked, taken);
    assert_eq!(limiter.keys(), 1);
}

#[test]
fn keys_and_classes_do_not_share() {
    let (limiter, _dial, plan) = limiter(100);
    let quota = quota(1, 60);
    assert_eq!(
        limiter
            .take(&plan, quota, &Key::subject("usr_1"))
            .retry_after_s,
        None
    );
    assert_eq!(
        limiter
            .take(&plan, quota, &Key::subject("usr_2"))
            .retry_after_s,
        None
    );
    let login: Arc<str> = "login".into();
    assert_eq!(
        limiter
            .take(&login, quota, &Key::subject("usr_1"))
            .retry_after_s,
        None
    );
    assert!(
        limiter
            .take(&plan, quota, &Key::subject("usr_1"))
            .retry_after_s
            .is_some()
    );
}

#[test]
fn a_changed_quota_counts_anew_and_resets_nobody_else() {
    let (limiter, _dial, plan) = limiter(100);
    let (old, new, key) = (quota(1, 60), quota(2, 60), Key::subject("usr_1"));
    let login: Arc<str> = "login".into();
    assert_eq!(limiter.take(&plan, old, &key).retry_after_s, None);
    assert_eq!(limiter.take(&login, old, &key).retry_after_s, None);
    assert_eq!(limiter.take(&plan, new, &key).remaining, 1);
    assert!(limiter.take(&login, old, &key).retry_after_s.is_some());
    // A request that still has the old configuration meets the old count.
    assert!(limiter.take(&plan, old, &key).retry_after_s.is_some());
    assert_eq!(limiter.take(&plan, new, &key).remaining, 0);
}

#[test]
fn idle_keys_and_classes_are_forgotten() {
    let (limiter, dial, plan) = limiter(100);
    for name in ["usr_1", "usr_2"] {
        let _ = limiter.take(&plan, quota(2, 60), &Key::subject(name));
    }
    limiter.sweep();
    assert_eq!(limiter.keys(), 2);
    dial.advance(SECOND * 120);
    let _ = limiter.take(&plan, quota(2, 60), &Key::subject("usr_3"));
    limiter.sweep();
    assert_eq!(limiter.keys(), 1);
    assert_eq!(limiter.classes.load().len(), 1);
    dial.advance(SECOND * 86_461);
    limiter.sweep();
    assert_eq!(limiter.classes.load().len(), 0);
}

#[test]
fn a_flood_of_newcomers_shares_few_keys_and_leaves_known_callers_alone() {
    let (limiter, _dial, plan) = limiter(1000);
    let quota = quota(2, 60);
    let known = Key::subject("known");
    assert_eq!(limiter.take(&plan, quota, &known).retry_after_s, None);
    let passed = (0..100_000u32)
        .filter(|n| {
            limiter
                .take(&plan, quota, &Key::V4(*n))
                .retry_after_s
                .is_none()
        })
        .count();
    assert!(limiter.keys() <= 1000 + 256, "{}", limiter.keys());
    assert!(passed <= 999 + 256 * 2, "{passed}");
    assert_eq!(limiter.take(&plan, quota, &known).remaining, 0);
}

#[test]
fn threads_together_get_exactly_the_quota() {
    let (limiter, _dial, plan) = limiter(100);
    let (quota, key) = (quota(100, 3600), Key::subject("usr_1"));
    let passed: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let take = |_: &u32| limiter.take(&plan, quota, &key).retry_after_s.is_none();
                    (0..50u32).filter(take).count()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(passed, 100);
}
