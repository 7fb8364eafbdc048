//! What may share an entry, and what must not.

use std::net::{IpAddr, Ipv4Addr};

use http::Method;
use proptest::prelude::*;

use super::{Key, build, normalise};
use crate::cache::owner::Owner;
use crate::cache::{ClientNoCache, Policy, Scope};
use crate::kernel::facts::{Facts, Protocol, Scheme};
use crate::kernel::id::Random;

fn policy(name: &str, query: Option<&[&str]>) -> Policy {
    Policy {
        name: name.into(),
        ttl_s: 15,
        scope: Scope::Org,
        query: query.map(|q| q.iter().map(|p| (*p).into()).collect()),
        stale_while_revalidate_s: 0,
        stale_if_error_s: 0,
        object_bytes_max: 1 << 20,
        client_no_cache: ClientNoCache::Ignore,
    }
}

fn facts(scheme: Scheme, host: &str, path: &str, query: Option<&str>) -> Facts {
    Facts {
        request_id: Random::seeded(1).request_id(),
        method: Method::GET,
        scheme,
        protocol: Protocol::Http1,
        host: host.into(),
        path: path.into(),
        query: query.map(Into::into),
        client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        sni: None,
        content_length: None,
    }
}

fn user(subject: &str) -> Owner {
    Owner::User {
        subject: subject.into(),
        orgs: ["org_a".into()].into(),
    }
}

fn keyed(owner: &Owner, query: Option<&str>) -> Key {
    let facts = facts(Scheme::Https, "api.example", "/overview", query);
    build("prod", &policy("overview", None), owner, &facts)
}

#[test]
fn owners_do_not_share() {
    let owners = [
        Owner::Public,
        Owner::Org("a".into()),
        Owner::Org("b".into()),
        user("a"),
        user("b"),
    ];
    for (i, one) in owners.iter().enumerate() {
        for other in &owners[i + 1..] {
            assert_ne!(keyed(one, None).bytes(), keyed(other, None).bytes());
        }
    }
}

#[test]
fn the_order_of_parameters_does_not_matter_that_of_one_parameter_does() {
    let key = |query| keyed(&Owner::Public, Some(query));
    assert_eq!(key("b=2&a=1").bytes(), key("a=1&&b=2&").bytes());
    assert_ne!(key("a=1&a=2").bytes(), key("a=2&a=1").bytes());
    assert_eq!(key("b=2&a=2&a=1").query(), Some("a=2&a=1&b=2"));
}

#[test]
fn one_spelling_for_the_same_parameter() {
    let key = |query| keyed(&Owner::Public, Some(query));
    assert_eq!(key("%61=%7e%2f").bytes(), key("a=~%2F").bytes());
    assert_ne!(key("a=%2F").bytes(), key("a=/").bytes());
    assert_eq!(key("a=%zz%4").query(), Some("a=%25zz%254"));
    assert_eq!(key("%%361=x").query(), Some("%2561=x"));
    assert_eq!(key("é=%C3%a9").query(), Some("é=%C3%A9"));
}

#[test]
fn no_query_and_an_empty_one_are_the_same() {
    assert_eq!(
        keyed(&Owner::Public, None).bytes(),
        keyed(&Owner::Public, Some("&")).bytes()
    );
    assert_eq!(keyed(&Owner::Public, Some("")).query(), None);
}

#[test]
fn what_is_not_keyed_is_not_forwarded() {
    let allowed = ["from".to_owned(), "ids[]".to_owned()];
    let kept = |query| normalise(Some(query), Some(&allowed));
    assert_eq!(kept("utm=x&from=1").as_deref(), Some("from=1"));
    assert_eq!(kept("utm=x"), None);
    // A disguise is seen through, and what a lenient origin might split at is part of the key.
    assert_eq!(kept("%66rom=1").as_deref(), Some("from=1"));
    assert_eq!(kept("from=1;utm=x").as_deref(), Some("from=1;utm=x"));
    assert_eq!(kept("utm=x;from=1"), None);
    assert_eq!(kept("ids%5b%5D=7").as_deref(), Some("ids%5B%5D=7"));
    assert_eq!(kept("FROM=1"), None);
}

#[test]
fn people_can_read_it() {
    let describe = |owner| keyed(&owner, Some("to=2&from=1")).describe();
    assert_eq!(
        describe(Owner::Org("org_x".into())),
        "prod:overview:org_x:https://api.example/overview?from=1&to=2"
    );
    assert!(describe(Owner::Public).starts_with("prod:overview:public:"));
    assert!(describe(user("usr_1")).starts_with("prod:overview:user=usr_1:"));
}

#[test]
fn the_target_is_the_resource_whatever_the_query() {
    assert_eq!(
        &**keyed(&Owner::Public, Some("a=1")).target(),
        "api.example/overview"
    );
}

/// Everything that a key is made of, before it is one.
type Ingredients = (
    String,
    String,
    (u8, String),
    bool,
    String,
    String,
    Option<String>,
);

fn ingredients() -> impl Strategy<Value = Ingredients> {
    // A small alphabet makes near misses likely.
    let word = || "[ab:/&=%0]{0,4}";
    (
        word(),
        word(),
        (0..3u8, word()),
        any::<bool>(),
        word(),
        word(),
        prop::option::of("[ab=&]{0,6}".prop_map(String::from)),
    )
}

fn make((prefix, name, (scope, id), tls, host, path, query): &Ingredients) -> Key {
    let owner = match scope {
        0 => Owner::Public,
        1 => Owner::Org(id.as_str().into()),
        _ => user(id),
    };
    let scheme = if *tls { Scheme::Https } else { Scheme::Http };
    let facts = facts(scheme, host, path, query.as_deref());
    build(prefix, &policy(name, None), &owner, &facts)
}

/// What two sets of ingredients must agree in to share a key.
fn meaning(from: &Ingredients) -> Ingredients {
    let mut same = from.clone();
    if same.2.0 == 0 {
        same.2.1.clear();
    }
    same.6 = normalise(from.6.as_deref(), None);
    same
}

proptest! {
    #[test]
    fn keys_are_equal_only_where_the_meaning_is(one in ingredients(), other in ingredients()) {
        let equal = make(&one).bytes() == make(&other).bytes();
        prop_assert_eq!(equal, meaning(&one) == meaning(&other));
    }

    #[test]
    fn normalising_twice_changes_nothing(query in "[a-c%&=+;0-9A-Fé]{0,24}") {
        let once = normalise(Some(&query), None);
        prop_assert_eq!(&normalise(once.as_deref(), None), &once);
    }

    #[test]
    fn the_origin_reads_the_names_that_the_client_wrote(query in "[a-c%&=+0-9A-F]{0,24}") {
        let names = |query: &str| {
            let pairs = query.split('&').filter(|p| !p.is_empty());
            let mut names: Vec<_> = pairs.map(super::decoded_name).collect();
            names.sort();
            names
        };
        let forwarded = normalise(Some(&query), None).unwrap_or_default();
        prop_assert_eq!(names(&forwarded), names(&query));
    }

    #[test]
    fn nothing_but_allowed_names_is_forwarded(query in "[a-c%&=+;0-9]{0,24}") {
        let allowed = ["a".to_owned()];
        let kept = normalise(Some(&query), Some(&allowed)).unwrap_or_default();
        for pair in kept.split('&').filter(|p| !p.is_empty()) {
            prop_assert_eq!(pair.split('=').next(), Some("a"));
        }
    }

    #[test]
    fn any_text_is_survived(query in "\\PC{0,40}") {
        let key = keyed(&Owner::Public, Some(&query));
        let _ = key.describe();
    }
}
