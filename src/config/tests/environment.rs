//! Variables that override keys, and secrets.

use std::num::NonZeroU32;

use super::{cached, development, errors, from_text, production, production_with, route};
use crate::cluster::redis::{Address, Needs};
use crate::config::{Env, InboxEngine, LogFormat, ReplayStore};
use crate::kernel::secret::Secret;
use crate::plan::Then;

#[test]
fn every_name_overrides_its_key() {
    let config = production(&[
        ("CORS_ORIGINS", "https://a.example, https://b.example"),
        ("PLAN_LIMIT_FREE", "11"),
        ("PLAN_LIMIT_PRO", "61"),
        ("PLAN_LIMIT_ENT", "241"),
        ("SSE_RATE_LIMIT_PER_MIN", "7"),
        ("SSE_CONCURRENCY_PER_USER", "3"),
        ("SSE_HEARTBEAT_INTERVAL", "20"),
        ("CACHE_PREFIX", "blue"),
        ("LOG_LEVEL", "debug"),
        ("ENABLE_METRICS", "false"),
    ])
    .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        config.cors.origins,
        ["https://a.example", "https://b.example"]
    );
    let plan = |name: &str| config.plans[name].requests.get();
    assert_eq!([plan("FREE"), plan("PRO"), plan("ENT")], [11, 61, 241]);
    let Then::Subscribe(stream) = &route(&config, "/stream/kpis", "GET").plan.then else {
        panic!("not a stream")
    };
    assert_eq!(stream.connects_per_min, NonZeroU32::new(7).unwrap());
    assert_eq!((stream.concurrent_per_user, stream.heartbeat_s), (3, 20));
    assert_eq!(config.cache.prefix, "blue");
    assert_eq!(
        (config.log.level.as_str(), config.log.format),
        ("debug", LogFormat::Json)
    );
    assert!(!config.metrics);
}

#[test]
fn each_ttl_has_its_name_and_zero_switches_the_cache_off() {
    for (name, path) in [
        ("E22_OVERVIEW_TTL", "/franchise/overview"),
        ("E22_RANKINGS_TTL", "/franchise/rankings"),
        ("E22_BUDGETS_TTL", "/franchise/budgets"),
        ("E22_FORECAST_TTL", "/franchise/forecast/items"),
    ] {
        let config = production(&[(name, "99")]).unwrap();
        assert_eq!(cached(&config, path).map(|p| p.ttl_s), Some(99), "{name}");
        let config = production(&[(name, "0")]).unwrap();
        // The route keeps its policy, so that its answers say BYPASS.
        assert_eq!(cached(&config, path).map(|p| p.ttl_s), Some(0), "{name}");
    }
}

#[test]
fn the_tolerance_goes_both_ways() {
    let config = production(&[("WH_TIMESTAMP_TOLERANCE", "42")]).unwrap();
    let Then::Ingest(endpoint) = &route(&config, "/webhooks/billing", "POST").plan.then else {
        panic!("not a webhook")
    };
    let shown = format!("{:?}", endpoint.scheme);
    assert!(
        shown.contains("past_s: 42") && shown.contains("future_s: 42"),
        "{shown}"
    );
}

#[test]
fn a_bad_value_names_the_variable_and_what_it_takes() {
    let text = errors(production(&[
        ("PLAN_LIMIT_FREE", "ten"),
        ("SSE_HEARTBEAT_INTERVAL", "0"),
        ("E22_OVERVIEW_TTL", "${E22_OVERVIEW_TTL}"),
    ]));
    for expected in [
        "$PLAN_LIMIT_FREE: plans.FREE.requests: `ten` is not allowed; expected a whole number from 1 \
         to 100000000",
        "$SSE_HEARTBEAT_INTERVAL: defaults.stream.heartbeat_s: 0 is out of range; expected a whole \
         number from 1 to 300",
        "$E22_OVERVIEW_TTL: cache.policies.overview.ttl_s: holds a placeholder that was never filled \
         in",
    ] {
        assert!(text.contains(expected), "{expected}\nnot in\n{text}");
    }
}

#[test]
fn a_blank_variable_counts_as_not_set() {
    let config = production(&[("PLAN_LIMIT_FREE", " ")]).unwrap();
    assert_eq!(config.plans["FREE"].requests.get(), 10);
}

#[test]
fn a_variable_for_a_key_that_is_not_there_is_an_error() {
    let text = errors(production_with(
        "[env]\nX = [\"plans.GOLD.requests\"]\n",
        &[],
    ));
    assert!(
        text.contains("env.X: `plans.GOLD.requests` is not a key"),
        "{text}"
    );
}

const REDIS: &[(&str, &str)] = &[
    ("REDIS_HOST", "redis.internal"),
    ("REDIS_PORT", "6380"),
    ("REDIS_DB", "1"),
    ("REDIS_TLS", "true"),
    ("REDIS_PASSWORD", "secret"),
];

#[test]
fn a_redis_that_nothing_uses_is_said_to_be_idle() {
    let config = production(REDIS).unwrap();
    let settings = config.redis.unwrap();
    let expected = Address::Tcp {
        host: "redis.internal".into(),
        port: 6380,
    };
    assert_eq!((settings.address, settings.db), (expected, 1));
    assert!(settings.tls.is_some());
    assert_eq!(settings.password, Some(Secret::new("secret")));
    assert_eq!(settings.needs, Needs::default(), "it may be any server");
    let idle = config.notices.iter().any(|n| n.contains("nothing is kept"));
    assert!(idle, "{:?}", config.notices);
    assert_eq!(production(&[]).unwrap().redis, None);
}

#[test]
fn a_shared_replay_store_needs_a_server_that_keeps_everything() {
    let shared = "[webhooks]\nreplay_store = \"redis\"\n";
    let text = errors(production_with(shared, &[]));
    assert!(
        text.contains("webhooks.replay_store: there is no Redis"),
        "{text}"
    );
    let config = production_with(shared, REDIS).unwrap();
    assert_eq!(config.replay.store, ReplayStore::Redis);
    assert!(config.redis.unwrap().needs.no_eviction);
    let accepted = format!("{shared}[redis]\ndanger_may_evict = true\n");
    let config = production_with(&accepted, REDIS).unwrap();
    assert!(!config.redis.unwrap().needs.no_eviction);
    let told = config
        .notices
        .iter()
        .any(|n| n.contains("danger_may_evict"));
    assert!(told, "{:?}", config.notices);
}

#[test]
fn a_shared_inbox_needs_a_durable_server_and_a_shared_replay_store() {
    let inbox = "[inbox]\nengine = \"redis\"\n";
    let text = errors(production_with(inbox, REDIS));
    assert!(
        text.contains("must share what they have accepted"),
        "{text}"
    );
    let both = format!("{inbox}[webhooks]\nreplay_store = \"redis\"\n");
    let text = errors(production_with(&both, &[]));
    assert!(text.contains("inbox.engine: there is no Redis"), "{text}");
    let config = production_with(&both, REDIS).unwrap();
    assert_eq!(config.inbox.engine, InboxEngine::Redis);
    let everything = Needs {
        no_eviction: true,
        durable: true,
    };
    assert_eq!(config.redis.unwrap().needs, everything);
    let accepted = format!("{both}[redis]\ndanger_not_durable = true\n");
    let config = production_with(&accepted, REDIS).unwrap();
    assert!(!config.redis.unwrap().needs.durable);
}

#[test]
fn where_redis_is_must_be_said_whole() {
    for (redis, mentions) in [
        ("host = \"redis:6379\"", "redis.host"),
        ("host = \"unix:redis.sock\"", "absolute path"),
        ("host = \"unix:/redis.sock\"\ntls = true", "redis.tls"),
        ("host = \"redis\"\nca_file = \"ca.pem\"", "redis.ca_file"),
    ] {
        let text = errors(production_with(&format!("[redis]\n{redis}\n"), &[]));
        assert!(text.contains(mentions), "{text}");
    }
}

#[test]
fn the_previous_secret_counts_too() {
    let old = ("WH_SECRET_PREVIOUS", "abcdefabcdefabcdefabcdefabcdefab");
    let config = production(&[old]).unwrap();
    let Then::Ingest(endpoint) = &route(&config, "/webhooks/billing", "POST").plan.then else {
        panic!("not a webhook")
    };
    let names: Vec<_> = endpoint
        .secrets
        .iter()
        .map(|s| s.name().to_string())
        .collect();
    assert_eq!(names, ["current", "previous"]);
}

#[test]
fn bad_secrets_are_refused_without_being_shown() {
    for (value, expected) in [
        ("", "variable WH_SECRET is blank"),
        ("   ", "variable WH_SECRET is blank"),
        ("${WH_SECRET}", "placeholder"),
        ("short-and-sweet-but-31-long-0000", ""),
        (
            "short-and-sweet-but-31-long-000",
            "has 31 characters; expected at least 32",
        ),
        (
            "öööööööööööööööö",
            "has 16 characters; expected at least 32",
        ),
        ("0123456789abcdef0123456789abcdef\n", "white space"),
    ] {
        let outcome = production(&[("WH_SECRET", value)]);
        if expected.is_empty() {
            assert!(outcome.is_ok(), "{value:?}");
            continue;
        }
        let text = errors(outcome);
        assert!(text.contains(expected), "{value:?}: {text}");
        assert!(
            value.trim().is_empty() || value.contains('$') || !text.contains(value),
            "{text}"
        );
    }
}

#[test]
fn a_missing_secret_says_where_to_put_it() {
    let text = errors(from_text(
        "[tls]\ncertificates = [{ chain = \"c\", key = \"k\" }]\n[upstreams.api]\nendpoints = [\"a:1\"]\n",
        Env::default(),
    ));
    assert!(
        text.contains(
            "identity.assertion_secret: no secret: variable EDGE_ASSERTION_SECRET is not set"
        ),
        "{text}"
    );
    assert!(
        text.contains("delivery.secret: no secret: variable EDGE_DELIVERY_SECRET"),
        "{text}"
    );
}

#[test]
fn the_delivery_secret_has_its_form() {
    for value in [
        "whsec_!!!",
        "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3",
        "whsec_c2hvcnQ=",
    ] {
        let text = errors(production(&[("EDGE_DELIVERY_SECRET", value)]));
        assert!(
            text.contains("expected `whsec_` and base64 of 24 to 64 bytes"),
            "{text}"
        );
    }
}

#[test]
fn a_secret_file_loses_one_line_break_and_no_more() {
    let path = std::env::temp_dir().join(format!("maitred-secret-{}", std::process::id()));
    let text = format!(
        "[identity]\nassertion_secret = {{ env = \"NOT_SET\", secret_file = {:?} }}\n",
        path
    );
    let secret = "0123456789abcdef0123456789abcdef";
    for (content, good) in [
        (secret.to_owned(), true),
        (format!("{secret}\n"), true),
        (format!("{secret}\r\n"), true),
        (format!("{secret}\n\n"), false),
        (format!(" {secret}\n"), false),
    ] {
        std::fs::write(&path, &content).unwrap();
        let outcome = production_with(&text, &[]);
        match outcome {
            Ok(config) => {
                assert!(good, "{content:?}");
                assert_eq!(config.assertion_secret.expose(), secret.as_bytes());
                assert!(config.files.contains(&path));
            }
            Err(e) => assert!(!good, "{content:?}: {e}"),
        }
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn development_needs_no_variable_and_takes_them_all_the_same() {
    let config = development(&[("DATABASE_URL", "sqlite::memory:")]).unwrap();
    assert_eq!(config.embedded_api.unwrap().database_url, "sqlite::memory:");
}
