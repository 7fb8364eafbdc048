//! The configuration as an operator meets it: what loads, what is refused, and in which words.

mod environment;
mod golden;
mod production;
mod reference;
mod special;

use super::{Config, ConfigErrors, ConfigSource, Env, Route};
use crate::plan::Then;
use crate::webhook::{OrderKey, dispatch};
use crate::{auth, cache, limit};

/// Secrets that production takes.
pub(super) const SECRETS: [(&str, &str); 3] = [
    ("WH_SECRET", "0123456789abcdef0123456789abcdef"),
    ("EDGE_ASSERTION_SECRET", "fedcba9876543210fedcba9876543210"),
    (
        "EDGE_DELIVERY_SECRET",
        "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    ),
];

/// The built-in development configuration.
fn development(env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    ConfigSource {
        path: None,
        env: env.iter().copied().collect(),
    }
    .load()
}

/// `config/maitred.toml` with good secrets; `env` wins over them.
fn production(env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let env: Env = SECRETS.iter().chain(env).copied().collect();
    ConfigSource {
        path: Some("config/maitred.toml".into()),
        env,
    }
    .load()
}

/// `config/maitred.toml` with `text` laid over it.
fn production_with(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let base = std::env::current_dir().unwrap().join("config/maitred.toml");
    let text = format!("include = [{:?}]\n{text}", base.display().to_string());
    let env: Env = SECRETS.iter().chain(env).copied().collect();
    from_text(&text, env)
}

/// A file with just this text, which is called `maitred.toml` in messages.
fn from_text(text: &str, env: Env) -> Result<Config, ConfigErrors> {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("maitred-text-{}-{number}.toml", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, text).unwrap();
    let loaded = ConfigSource {
        path: Some(path.clone()),
        env,
    }
    .load();
    std::fs::remove_file(&path).unwrap();
    loaded
}

/// The messages, which must be there.
fn errors(outcome: Result<Config, ConfigErrors>) -> String {
    match outcome {
        Ok(_) => panic!("it loaded"),
        Err(errors) => errors.to_string(),
    }
}

fn route<'c>(config: &'c Config, pattern: &str, method: &str) -> &'c Route {
    let wanted =
        |r: &&Route| r.pattern == pattern && r.methods.iter().any(|m| m.as_str() == method);
    config
        .routes
        .iter()
        .find(wanted)
        .unwrap_or_else(|| panic!("no {method} {pattern}"))
}

fn cached<'c>(config: &'c Config, pattern: &str) -> Option<&'c cache::Policy> {
    match &route(config, pattern, "GET").plan.then {
        Then::Forward { cache, .. } => cache.as_deref(),
        other @ (Then::Ingest(_) | Then::Subscribe(_) | Then::Reply(_)) => panic!("{other:?}"),
    }
}

#[test]
fn dispatch_has_the_documented_defaults_and_what_differs_by_endpoint() {
    let config = production(&[]).unwrap();
    let mut policy = config.dispatch.as_ref().clone();
    let endpoints = std::mem::take(&mut policy.endpoints);
    assert_eq!(policy, dispatch::Policy::default());
    assert!(endpoints.len() > 1);
    for endpoint in endpoints.values() {
        assert_eq!(endpoint.order_timeout_s.map(u32::from), Some(300));
    }

    let text = r#"
        dispatch.backoff_cap_ms = 9_999
        webhooks.endpoints.billing.order_key = "query:x"
    "#;
    let said = errors(production_with(text, &[]));
    assert!(said.contains("dispatch.backoff_base_ms"), "{said}");
    assert!(
        said.contains("webhooks.endpoints.billing.order_key"),
        "{said}"
    );
    assert!(said.contains("header:X-Shop-Id"), "{said}");

    let text = r#"
        [webhooks.endpoints.billing]
        order_key = "json:/account"
        order_timeout_s = 0
    "#;
    let config = production_with(text, &[]).unwrap();
    assert_eq!(config.dispatch.order_timeout_s("billing"), None);
    let Then::Ingest(endpoint) = &route(&config, "/webhooks/billing", "POST").plan.then else {
        panic!("a webhook");
    };
    assert_eq!(endpoint.order_key, OrderKey::parse("json:/account").ok());
}

#[test]
fn the_built_in_development_configuration_loads() {
    let config = development(&[]).unwrap_or_else(|e| panic!("{e}"));
    assert!(config.embedded_api.is_some());
    assert!(config.files.is_empty());
    assert!(config.https.unwrap().0.address.ip().is_loopback());
}

#[test]
fn the_files_that_ship_are_the_ones_built_in() {
    let env = Env::default();
    let on_disk = ConfigSource {
        path: Some("config/dev.toml".into()),
        env,
    }
    .load();
    let on_disk = on_disk.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(on_disk.digest, development(&[]).unwrap().digest);
    assert_eq!(on_disk.files.len(), 2);
}

#[test]
fn the_production_configuration_serves_the_platform() {
    let config = production(&[]).unwrap_or_else(|e| panic!("{e}"));
    assert!(config.embedded_api.is_none());
    assert!(config.notices.is_empty(), "{:?}", config.notices);

    let login = &route(&config, "/auth/login", "POST").plan;
    assert_eq!(login.auth.need, auth::Need::Public);
    assert_eq!(
        login.limit.before_auth.as_ref().map(|c| &*c.name),
        Some("auth")
    );

    let overview = route(&config, "/franchise/overview", "HEAD");
    assert_eq!(overview.plan.limit.after_auth, limit::AfterAuth::Plan);
    assert_eq!(
        overview.plan.auth.org,
        Some(auth::OrgFrom::Query("orgId".into()))
    );
    for (path, ttl_s) in [
        ("/franchise/overview", 15),
        ("/franchise/rankings", 30),
        ("/franchise/budgets", 60),
        ("/franchise/forecast/items", 300),
    ] {
        let policy = cached(&config, path).unwrap_or_else(|| panic!("{path} is not cached"));
        assert_eq!(
            (policy.ttl_s, policy.scope),
            (ttl_s, cache::Scope::Org),
            "{path}"
        );
    }
    let put = &route(&config, "/franchise/budgets", "PUT").plan.then;
    assert!(matches!(put, Then::Forward { cache: None, .. }));
    let stream = &route(&config, "/stream/kpis", "GET").plan.then;
    assert!(matches!(stream, Then::Subscribe(s) if s.heartbeat_s == 30));
    for name in ["billing", "marketplace"] {
        let webhook = &route(&config, &format!("/webhooks/{name}"), "POST")
            .plan
            .then;
        assert!(matches!(webhook, Then::Ingest(e) if e.secrets.len() == 1));
    }
    assert!(!config.routes.iter().any(|r| r.pattern == "/{*rest}"));
}

#[test]
fn debug_output_shows_no_secret() {
    let shown = format!("{:?}", production(&[]).unwrap());
    for (_, secret) in SECRETS {
        assert!(!shown.contains(secret));
    }
}

#[test]
fn the_digest_moves_with_the_file_and_not_with_a_secret() {
    let digest = |env: &[(&str, &str)]| production(env).unwrap().digest;
    let other = ("WH_SECRET", "ffffffffffffffffffffffffffffffff");
    assert_eq!(digest(&[]), digest(&[other]));
    assert_ne!(digest(&[]), digest(&[("PLAN_LIMIT_FREE", "11")]));
}
