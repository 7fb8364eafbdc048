//! The configuration as an operator meets it: what loads, what is refused, and in which words.

use super::{Config, ConfigErrors, ConfigSource, Env};

/// Secrets that production takes.
const SECRETS: [(&str, &str); 3] = [
    ("WH_SECRET", "0123456789abcdef0123456789abcdef"),
    ("EDGE_ASSERTION_SECRET", "fedcba9876543210fedcba9876543210"),
    (
        "EDGE_DELIVERY_SECRET",
        "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    ),
];

fn development(env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    ConfigSource {
        path: None,
        env: env.iter().copied().collect(),
    }
    .load()
}

fn production(env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let env: Env = SECRETS.iter().chain(env).copied().collect();
    ConfigSource {
        path: Some("config/maitred.toml".into()),
        env,
    }
    .load()
}

#[test]
fn the_built_in_development_configuration_loads() {
    let config = development(&[]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.routes.len(), 24);
    assert!(config.embedded_api.is_some());
}

#[test]
fn the_production_configuration_loads_with_its_secrets() {
    let config = production(&[]).unwrap_or_else(|e| panic!("{e}"));
    assert!(config.embedded_api.is_none());
}
