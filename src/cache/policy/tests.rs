//! Requests and responses against the rules, by section of the RFC.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, response};
use proptest::prelude::*;

use super::{Credentials, Decision, Demand, Lifetime, Reason, Storing, cacheable, freshness};
use crate::cache::{Bypass, ClientNoCache, Policy, Scope};
use crate::kernel::clock::UnixMs;

/// Sun, 06 Nov 1994 08:49:37 GMT.
const NOW: UnixMs = UnixMs(784_111_777_000);

fn policy() -> Policy {
    Policy {
        name: "overview".into(),
        ttl_s: 15,
        scope: Scope::Org,
        query: None,
        stale_while_revalidate_s: 5,
        stale_if_error_s: 60,
        object_bytes_max: 1 << 20,
        client_no_cache: ClientNoCache::Honour,
    }
}

fn scoped(scope: Scope) -> Policy {
    Policy { scope, ..policy() }
}

fn response(status: u16, headers: &[(&str, &str)]) -> response::Parts {
    let mut parts = Response::new(()).into_parts().0;
    parts.status = StatusCode::from_u16(status).unwrap();
    parts.headers = fields(headers);
    parts
}

fn fields(headers: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| {
        let name: HeaderName = name.parse().unwrap();
        (name, HeaderValue::from_str(value).unwrap())
    };
    let mut map = HeaderMap::new();
    for (name, value) in headers.iter().map(field) {
        map.append(name, value);
    }
    map
}

fn decide(headers: &[(&str, &str)]) -> Decision {
    freshness(
        &response(200, headers),
        &policy(),
        Credentials::Present,
        NOW,
    )
}

fn stored(headers: &[(&str, &str)]) -> Lifetime {
    match decide(headers) {
        Decision::Store(lifetime) => lifetime,
        Decision::DoNotStore(reason) => panic!("{headers:?}: {reason:?}"),
    }
}

fn refused(headers: &[(&str, &str)]) -> Reason {
    match decide(headers) {
        Decision::DoNotStore(reason) => reason,
        Decision::Store(lifetime) => panic!("{headers:?}: {lifetime:?}"),
    }
}

fn cache_control(value: &str) -> Lifetime {
    stored(&[("cache-control", value)])
}

#[test]
fn rfc9111_4_2_1_the_order_of_lifetimes() {
    assert_eq!(stored(&[]).fresh_s, 15, "the configured TTL");
    assert_eq!(cache_control("max-age=7").fresh_s, 7);
    assert_eq!(cache_control("max-age=7, s-maxage=3").fresh_s, 3);
    let expires = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
    assert_eq!(stored(&[expires]).fresh_s, 60);
    assert_eq!(
        stored(&[expires, ("cache-control", "max-age=7")]).fresh_s,
        7
    );
    let date = ("date", "Sun, 06 Nov 1994 08:50:07 GMT");
    assert_eq!(stored(&[expires, date]).fresh_s, 30, "Expires less Date");
}

#[test]
fn rfc9111_5_3_an_expires_that_cannot_be_read_has_passed() {
    assert_eq!(refused(&[("expires", "0")]), Reason::NotFresh);
    assert_eq!(refused(&[("expires", "soon")]), Reason::NotFresh);
    let ahead = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
    assert_eq!(refused(&[ahead, ahead]), Reason::NotFresh);
}

#[test]
fn rfc9111_5_2_2_1_an_explicit_zero_wins_over_the_configuration() {
    for zero in ["max-age=0", "s-maxage=0, max-age=60", "max-age=soon"] {
        assert_eq!(refused(&[("cache-control", zero)]), Reason::NotFresh);
    }
}

#[test]
fn rfc9111_5_1_age_on_arrival_counts() {
    let lifetime = stored(&[("cache-control", "max-age=60"), ("age", "50")]);
    assert_eq!((lifetime.age_s, lifetime.left_s()), (50, 10));
    let spent = [(
        "cache-control",
        "max-age=60, stale-while-revalidate=0, stale-if-error=0",
    )];
    assert_eq!(refused(&[spent[0], ("age", "60")]), Reason::NotFresh);
    assert_eq!(stored(&[("age", "nonsense")]).age_s, 0);
    let overflow = stored(&[("cache-control", "max-age=9999999999"), ("age", "5")]);
    assert_eq!(overflow.left_s(), (1 << 31) - 5);
}

#[test]
fn rfc5861_stale_windows_come_from_the_response_or_else_from_the_configuration() {
    let configured = cache_control("max-age=7");
    assert_eq!(configured.stale_while_revalidate_s, 5);
    assert_eq!(configured.stale_if_error_s, 60);
    let said = cache_control("max-age=7, stale-while-revalidate=9, stale-if-error=0");
    assert_eq!(
        (said.stale_while_revalidate_s, said.stale_if_error_s),
        (9, 0)
    );
    let only_stale = cache_control("max-age=0, stale-while-revalidate=9");
    assert_eq!(
        (only_stale.fresh_s, only_stale.stale_while_revalidate_s),
        (0, 9)
    );
    assert_eq!(only_stale.stale_if_error_s, 0, "not from the configuration");
}

#[test]
fn rfc9111_5_2_2_2_what_demands_revalidation_is_never_used_stale() {
    for demand in ["must-revalidate", "proxy-revalidate", "s-maxage=7"] {
        let value = format!("max-age=7, stale-if-error=9, {demand}");
        let lifetime = cache_control(&value);
        assert_eq!(lifetime.fresh_s, 7);
        assert_eq!(lifetime.stale_while_revalidate_s, 0, "{demand}");
        assert_eq!(lifetime.stale_if_error_s, 0, "{demand}");
    }
}

#[test]
fn rfc9111_5_2_2_what_the_response_forbids() {
    for (value, reason) in [
        ("no-store, max-age=60", Reason::NoStore),
        ("no-cache, max-age=60", Reason::NoCache),
        ("no-cache=\"x-a\", max-age=60", Reason::NoCache),
        ("private, max-age=60", Reason::Private),
        ("private=\"x-a\"", Reason::Private),
    ] {
        assert_eq!(refused(&[("cache-control", value)]), reason, "{value}");
    }
}

#[test]
fn rfc9111_5_2_2_7_private_is_for_one_user_only() {
    let private = response(200, &[("cache-control", "private, max-age=60")]);
    for scope in [Scope::Public, Scope::Org] {
        let decision = freshness(&private, &scoped(scope), Credentials::Present, NOW);
        assert_eq!(decision, Decision::DoNotStore(Reason::Private));
    }
    let decision = freshness(&private, &scoped(Scope::User), Credentials::Present, NOW);
    assert!(matches!(decision, Decision::Store(_)));
}

#[test]
fn rfc9111_3_5_an_answer_to_somebody_is_public_only_if_it_says_so() {
    let public = scoped(Scope::Public);
    let decide = |value: &str, credentials| {
        let response = response(200, &[("cache-control", value)]);
        freshness(&response, &public, credentials, NOW)
    };
    let refused = Decision::DoNotStore(Reason::Authorization);
    assert_eq!(decide("max-age=60", Credentials::Present), refused);
    assert_ne!(decide("max-age=60", Credentials::Absent), refused);
    for allowing in ["public", "s-maxage=60", "must-revalidate"] {
        assert_ne!(
            decide(allowing, Credentials::Present),
            refused,
            "{allowing}"
        );
    }
    assert!(matches!(decide_scoped(Scope::Org), Decision::Store(_)));
}

fn decide_scoped(scope: Scope) -> Decision {
    freshness(
        &response(200, &[]),
        &scoped(scope),
        Credentials::Present,
        NOW,
    )
}

#[test]
fn rfc9110_15_1_statuses_by_list() {
    let explicit = [("cache-control", "max-age=60")];
    for status in 200..600 {
        let decision = freshness(
            &response(status, &explicit),
            &policy(),
            Credentials::Present,
            NOW,
        );
        let stored = matches!(decision, Decision::Store(_));
        let listed = matches!(status, 200 | 203 | 301 | 308 | 404 | 410);
        assert_eq!(stored, listed, "{status}");
    }
}

#[test]
fn an_error_is_kept_only_if_the_origin_says_for_how_long() {
    for (status, kept) in [(404, false), (410, false), (301, true), (203, true)] {
        let decision = freshness(&response(status, &[]), &policy(), Credentials::Present, NOW);
        assert_eq!(matches!(decision, Decision::Store(_)), kept, "{status}");
    }
}

#[test]
fn what_belongs_to_one_client_or_is_no_whole_is_never_stored() {
    for (name, value, reason) in [
        ("set-cookie", "a=b", Reason::SetCookie),
        ("vary", "*", Reason::Vary),
        ("vary", "origin, *", Reason::Vary),
        ("content-range", "bytes 0-1/9", Reason::Partial),
    ] {
        assert_eq!(
            refused(&[(name, value), ("cache-control", "public, max-age=9")]),
            reason
        );
    }
}

#[test]
fn what_cannot_be_read_is_not_stored() {
    let mut unreadable = response(200, &[]);
    let value = HeaderValue::from_bytes(b"max-age=60\xff").unwrap();
    unreadable.headers.insert("cache-control", value);
    assert_eq!(
        freshness(&unreadable, &policy(), Credentials::Present, NOW),
        Decision::DoNotStore(Reason::NoStore)
    );
}

#[test]
fn labels_are_told_apart() {
    let mut labels: Vec<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), Reason::ALL.len());
}

fn request(method: &str, headers: &[(&str, &str)]) -> http::request::Parts {
    let mut parts = Request::new(()).into_parts().0;
    parts.method = method.parse().unwrap();
    parts.headers = fields(headers);
    parts
}

#[test]
fn rfc9110_9_2_3_only_get_and_head_without_a_body() {
    let ask = |method, headers: &[_]| cacheable(&request(method, headers), &policy());
    assert!(ask("GET", &[]).is_ok());
    assert!(ask("HEAD", &[("content-length", "0")]).is_ok());
    assert_eq!(ask("POST", &[]), Err(Bypass::Method));
    assert_eq!(ask("get", &[]), Err(Bypass::Method));
    assert_eq!(ask("GET", &[("content-length", "1")]), Err(Bypass::Body));
    let chunked = [("transfer-encoding", "chunked")];
    assert_eq!(ask("GET", &chunked), Err(Bypass::Body));
}

#[test]
fn a_ttl_of_zero_switches_the_cache_off() {
    let off = Policy {
        ttl_s: 0,
        ..policy()
    };
    assert_eq!(cacheable(&request("GET", &[]), &off), Err(Bypass::Off));
}

#[test]
fn rfc9111_4_3_2_preconditions_that_only_the_origin_can_judge_go_there() {
    for name in ["if-match", "if-unmodified-since"] {
        let asked = cacheable(&request("GET", &[(name, "\"x\"")]), &policy());
        assert_eq!(asked, Err(Bypass::Precondition));
    }
    assert!(cacheable(&request("GET", &[("if-none-match", "\"x\"")]), &policy()).is_ok());
}

#[test]
fn rfc9111_5_2_1_request_directives_where_honoured() {
    let ask =
        |value: &str| cacheable(&request("GET", &[("cache-control", value)]), &policy()).unwrap();
    assert!(ask("no-cache").demand.validated);
    assert_eq!(ask("max-age=9").demand.max_age_s, Some(9));
    assert_eq!(ask("min-fresh=9").demand.min_fresh_s, Some(9));
    assert_eq!(ask("no-store").storing, Storing::Forbidden);
    assert!(ask("only-if-cached").only_if_cached);
}

#[test]
fn rfc9111_5_4_pragma_counts_where_there_is_no_cache_control() {
    let pragma = ("pragma", "No-Cache");
    let ask = |headers: &[_]| cacheable(&request("GET", headers), &policy()).unwrap();
    assert!(ask(&[pragma]).demand.validated);
    assert!(
        !ask(&[pragma, ("cache-control", "max-age=9")])
            .demand
            .validated
    );
}

#[test]
fn a_client_cannot_reach_the_origin_where_that_is_ignored() {
    let ignoring = Policy {
        client_no_cache: ClientNoCache::Ignore,
        ..policy()
    };
    for headers in [
        [("cache-control", "no-cache, max-age=0, min-fresh=9")],
        [("pragma", "no-cache")],
    ] {
        let wants = cacheable(&request("GET", &headers), &ignoring).unwrap();
        assert_eq!(wants.demand, Demand::default());
    }
    // These two harm nobody: they are followed all the same.
    let wants = cacheable(
        &request("GET", &[("cache-control", "no-store, only-if-cached")]),
        &ignoring,
    );
    let wants = wants.unwrap();
    assert!(wants.only_if_cached);
    assert_eq!(wants.storing, Storing::Forbidden);
}

#[test]
fn rfc9111_5_2_1_when_a_demand_is_met() {
    let demand = |max_age_s, min_fresh_s| Demand {
        validated: false,
        max_age_s,
        min_fresh_s,
    };
    assert!(demand(Some(5), None).met_by(5, 0));
    assert!(!demand(Some(5), None).met_by(6, 100));
    assert!(demand(None, Some(5)).met_by(100, 5));
    assert!(!demand(None, Some(5)).met_by(0, 4));
    assert!(Demand::default().met_by(1_000, -1_000));
}

proptest! {
    /// Whatever the origin sends: what is stored obeys the hard rules.
    #[test]
    fn what_is_stored_may_be(
        status in prop_oneof![Just(200u16), 200..600u16],
        control in "(no-store|no-cache|private|public|max-age=[0-9]{1,3}|s-maxage=[0-9]|[ ,=\"]){0,6}",
        age in prop::option::of(0..400u32),
        cookie in any::<bool>(),
    ) {
        let age = age.map(|a| a.to_string());
        let mut headers = vec![("cache-control", control.as_str())];
        headers.extend(age.as_deref().map(|a| ("age", a)));
        headers.extend(cookie.then_some(("set-cookie", "a=b")));
        let decision = freshness(&response(status, &headers), &policy(), Credentials::Present, NOW);
        if let Decision::Store(lifetime) = decision {
            prop_assert!(!cookie);
            prop_assert!(status < 500 && status != 206);
            let window = lifetime.stale_if_error_s.max(lifetime.stale_while_revalidate_s);
            prop_assert!(lifetime.left_s() + i64::from(window) > 0);
        }
    }
}
