//! What the API is told from outside, checked whole before anything starts: all faults at once, and
//! nothing insecure in production.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::kernel::secret::Secret;

pub(crate) const ASSERTION_SECRET_CHARS_MIN: usize = 32;
const DELIVERY_PREFIX: &str = "whsec_";
const DELIVERY_KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const POOL_CONNECTIONS: std::ops::RangeInclusive<u32> = 1..=200;
const STATEMENT_TIMEOUT_MS: std::ops::RangeInclusive<u64> = 100..=600_000;

/// Public and worthless: development only.
pub const DEVELOPMENT_ASSERTION_SECRET: &str = "dev-assertion-secret-dev-assertion-secret";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    Development,
    Production,
}

#[derive(Clone)]
pub struct Config {
    pub database_url: String,
    /// Shared with the edge: signs the identity assertion.
    pub assertion_secret: Secret,
    /// Shared with the edge: signs webhook deliveries; `whsec_` + base64.
    pub delivery_secret: Secret,
    pub environment: Environment,
    pub pool_min: u32,
    pub pool_max: u32,
    pub statement_timeout_ms: u64,
}

/// Without the database's address, which may hold a password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("environment", &self.environment)
            .field("pool_min", &self.pool_min)
            .field("pool_max", &self.pool_max)
            .field("statement_timeout_ms", &self.statement_timeout_ms)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub faults: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the configuration is not usable: {}",
            self.faults.join("; ")
        )
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the process environment; see [`Config::from_lookup`].
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// The same from any source, so that it is tested without touching the process.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut faults = Vec::new();
        let environment = match lookup("CHEFCLOUD_ENV").as_deref() {
            None | Some("development") => Environment::Development,
            Some("production") => Environment::Production,
            Some(_) => {
                faults.push("CHEFCLOUD_ENV must be development or production".to_owned());
                Environment::Production
            }
        };
        let mut needed = |name: &str, development: &str| match (lookup(name), environment) {
            (Some(value), Environment::Development | Environment::Production) => value,
            (None, Environment::Development) => development.to_owned(),
            (None, Environment::Production) => {
                faults.push(format!("{name} is required in production"));
                String::new()
            }
        };
        let database_url = needed("DATABASE_URL", "sqlite://chefcloud-dev.db");
        let assertion = needed("EDGE_ASSERTION_SECRET", DEVELOPMENT_ASSERTION_SECRET);
        let delivery = needed("EDGE_DELIVERY_SECRET", &development_delivery_secret());
        let config = Self {
            database_url,
            assertion_secret: Secret::new(assertion),
            delivery_secret: Secret::new(delivery),
            environment,
            pool_min: number(&lookup, "DB_POOL_MIN", 2, &mut faults),
            pool_max: number(&lookup, "DB_POOL_MAX", 10, &mut faults),
            statement_timeout_ms: number(&lookup, "DB_STATEMENT_TIMEOUT", 30_000, &mut faults),
        };
        match config.check() {
            Ok(()) if faults.is_empty() => Ok(config),
            Ok(()) => Err(ConfigError { faults }),
            Err(more) => Err(ConfigError {
                faults: faults.into_iter().chain(more.faults).collect(),
            }),
        }
    }

    pub fn development(
        database_url: String,
        assertion_secret: String,
        delivery_secret: String,
    ) -> Self {
        Self {
            database_url,
            assertion_secret: Secret::new(assertion_secret),
            delivery_secret: Secret::new(delivery_secret),
            environment: Environment::Development,
            pool_min: 2,
            pool_max: 10,
            statement_timeout_ms: 30_000,
        }
    }

    /// Every fault of a configuration, however it was made.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut faults = Vec::new();
        let mut refuse = |wrong: bool, message: &str| {
            if wrong {
                faults.push(message.to_owned());
            }
        };
        let url = self.database_url.as_str();
        let known = ["sqlite:", "postgres:", "postgresql:"]
            .iter()
            .any(|s| url.starts_with(s));
        refuse(
            !known && url != ":memory:",
            "DATABASE_URL must start with sqlite: or postgres:, or be :memory:",
        );
        refuse(
            self.assertion_secret.expose().chars().count() < ASSERTION_SECRET_CHARS_MIN,
            "EDGE_ASSERTION_SECRET must have at least 32 characters",
        );
        refuse(
            delivery_key(&self.delivery_secret).is_none(),
            "EDGE_DELIVERY_SECRET must be whsec_ and base64 of 24 to 64 bytes",
        );
        refuse(
            !POOL_CONNECTIONS.contains(&self.pool_max),
            "DB_POOL_MAX must be 1 to 200",
        );
        refuse(
            self.pool_min > self.pool_max,
            "DB_POOL_MIN must not exceed DB_POOL_MAX",
        );
        refuse(
            !STATEMENT_TIMEOUT_MS.contains(&self.statement_timeout_ms),
            "DB_STATEMENT_TIMEOUT must be 100 to 600000 (milliseconds)",
        );
        if self.environment == Environment::Production {
            refuse(
                self.assertion_secret.expose().starts_with("dev-"),
                "EDGE_ASSERTION_SECRET is a development secret",
            );
            refuse(
                is_development_delivery(&self.delivery_secret),
                "EDGE_DELIVERY_SECRET is a development secret",
            );
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(ConfigError { faults })
        }
    }
}

/// The key bytes of the delivery secret, if it is well formed.
pub(crate) fn delivery_key(secret: &Secret) -> Option<Vec<u8>> {
    let encoded = secret.expose().strip_prefix(DELIVERY_PREFIX)?;
    let key = STANDARD.decode(encoded).ok()?;
    DELIVERY_KEY_BYTES.contains(&key.len()).then_some(key)
}

pub fn development_delivery_secret() -> String {
    format!(
        "{DELIVERY_PREFIX}{}",
        STANDARD.encode("dev-delivery-secret-dev-delivery")
    )
}

/// A secret is a development one whether `dev-` is seen before or after decoding.
fn is_development_delivery(secret: &Secret) -> bool {
    let text = secret.expose();
    text.starts_with("dev-")
        || text.starts_with("whsec_dev-")
        || delivery_key(secret).is_some_and(|key| key.starts_with(b"dev-"))
}

fn number<N: std::str::FromStr>(
    lookup: &impl Fn(&str) -> Option<String>,
    name: &str,
    default: N,
    faults: &mut Vec<String>,
) -> N {
    match lookup(name).map(|text| text.trim().parse()) {
        None => default,
        Some(Ok(value)) => value,
        Some(Err(_)) => {
            faults.push(format!("{name} must be a whole number"));
            default
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_lookup(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn development_needs_nothing_and_production_needs_everything() {
        let config = from(&[]).unwrap();
        assert_eq!((config.pool_min, config.pool_max), (2, 10));
        assert_eq!(config.statement_timeout_ms, 30_000);
        let faults = from(&[("CHEFCLOUD_ENV", "production")]).unwrap_err().faults;
        for name in [
            "DATABASE_URL",
            "EDGE_ASSERTION_SECRET",
            "EDGE_DELIVERY_SECRET",
        ] {
            assert!(
                faults.iter().any(|fault| fault.contains(name)),
                "{faults:?}"
            );
        }
    }

    #[test]
    fn production_refuses_development_secrets_and_reports_all_faults_at_once() {
        let faults = from(&[
            ("CHEFCLOUD_ENV", "production"),
            ("DATABASE_URL", "mysql://x"),
            ("EDGE_ASSERTION_SECRET", DEVELOPMENT_ASSERTION_SECRET),
            ("EDGE_DELIVERY_SECRET", &development_delivery_secret()),
            ("DB_POOL_MAX", "many"),
        ])
        .unwrap_err()
        .faults;
        assert_eq!(faults.len(), 4, "{faults:?}");
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let config = from(&[("DATABASE_URL", "postgres://api:hunter2@db/chef")]).unwrap();
        let text = format!("{config:?}");
        assert!(
            !text.contains("dev-assertion") && !text.contains("hunter2"),
            "{text}"
        );
    }
}
