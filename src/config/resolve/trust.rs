//! Resolves who is believed: secrets, token issuers, webhook schemes and endpoints.

use std::sync::Arc;

use super::Report;
use crate::config::env::Env;
use crate::config::raw;
use crate::config::secret::{self, Found};
use crate::kernel::secret::Secret;
use crate::webhook::scheme::Scheme;
use crate::{auth, webhook};

/// Shortest secret shared with the API.
const ASSERTION_SECRET_CHARS_MIN: usize = 32;

pub(super) fn issuers(file: &raw::File, report: &mut Report<'_>) -> Vec<auth::Issuer> {
    let mut found: Vec<auth::Issuer> = Vec::new();
    for (name, raw) in &file.issuers {
        let key = format!("issuers.{name}");
        if found
            .iter()
            .any(|i| i.issuer == raw.issuer && i.audience == raw.audience)
        {
            let message = format!(
                "another issuer is `{}` for this audience already",
                raw.issuer
            );
            report.error(&format!("{key}.issuer"), message, "");
        }
        if let Some(keys) = keys_from(file, &key, raw, report) {
            found.push(auth::Issuer {
                issuer: raw.issuer.clone(),
                audience: raw.audience.clone(),
                algorithms: raw.algorithms.iter().map(|a| algorithm(*a)).collect(),
                leeway_s: raw.leeway_s,
                keys,
                keys_ttl_s: raw.keys_ttl_s,
                keys_cooldown_s: raw.keys_cooldown_s,
            });
        }
        if raw.keys_cooldown_s > raw.keys_ttl_s {
            let message = format!("is more than keys_ttl_s ({})", raw.keys_ttl_s);
            report.error(&format!("{key}.keys_cooldown_s"), message, "");
        }
    }
    found
}

fn keys_from(
    file: &raw::File,
    key: &str,
    raw: &raw::Issuer,
    report: &mut Report<'_>,
) -> Option<auth::KeysFrom> {
    match (&raw.jwks_url, &raw.jwks_upstream) {
        (Some(url), None) => {
            let is_https = url.starts_with("https://") && url.parse::<http::Uri>().is_ok();
            if !is_https {
                let message = format!("`{url}` is not an https URL");
                report.error(
                    &format!("{key}.jwks_url"),
                    message,
                    "keys must not come in clear",
                );
            }
            is_https.then(|| auth::KeysFrom::Url(url.clone()))
        }
        (None, Some(pool)) => {
            report.refer(
                &format!("{key}.jwks_upstream"),
                pool,
                &file.upstreams,
                "upstream",
            )?;
            Some(auth::KeysFrom::Upstream {
                pool: Arc::from(pool.as_str()),
                path: raw.jwks_path.clone(),
            })
        }
        (Some(_), Some(_)) => {
            report.error(
                &format!("{key}.jwks_url"),
                "there is jwks_upstream too",
                "keep one of them",
            );
            None
        }
        (None, None) => {
            report.error(key, "no source of keys", "add jwks_url or jwks_upstream");
            None
        }
    }
}

fn algorithm(raw: raw::JwtAlgorithm) -> jsonwebtoken::Algorithm {
    use jsonwebtoken::Algorithm;
    match raw {
        raw::JwtAlgorithm::EdDSA => Algorithm::EdDSA,
        raw::JwtAlgorithm::ES256 => Algorithm::ES256,
        raw::JwtAlgorithm::ES384 => Algorithm::ES384,
        raw::JwtAlgorithm::PS256 => Algorithm::PS256,
        raw::JwtAlgorithm::PS384 => Algorithm::PS384,
        raw::JwtAlgorithm::PS512 => Algorithm::PS512,
        raw::JwtAlgorithm::RS256 => Algorithm::RS256,
        raw::JwtAlgorithm::RS384 => Algorithm::RS384,
        raw::JwtAlgorithm::RS512 => Algorithm::RS512,
    }
}

pub(super) fn assertion_secret(
    raw: &raw::Identity,
    env: &Env,
    report: &mut Report<'_>,
) -> Option<Secret> {
    let key = "identity.assertion_secret";
    let found = find(key, &raw.assertion_secret, env, report)?;
    let least = ASSERTION_SECRET_CHARS_MIN;
    let judged = long_enough(&found, least);
    report.take(key, judged, GENERATE)?;
    Some(Secret::new(found.text))
}

pub(super) fn delivery_secret(
    raw: &raw::Delivery,
    env: &Env,
    report: &mut Report<'_>,
) -> Option<Secret> {
    let key = "delivery.secret";
    let found = find(key, &raw.secret, env, report)?;
    let judged = secret::standard_webhooks_key(&found.text)
        .map_err(|message| format!("{}: {message}", found.source));
    report.take(
        key,
        judged,
        "printf 'whsec_%s\\n' \"$(openssl rand -base64 32)\"",
    )?;
    Some(Secret::new(found.text))
}

const GENERATE: &str = "openssl rand -hex 32";

fn find(key: &str, raw: &raw::SecretSource, env: &Env, report: &mut Report<'_>) -> Option<Found> {
    if raw.danger_secret.is_some() && report.production() {
        report.error(
            &format!("{key}.danger_secret"),
            "a secret in the file is refused in production",
            format!("set {}", secret::sources(raw)),
        );
        return None;
    }
    if raw
        .danger_secret
        .as_ref()
        .is_some_and(|s| !secret::is_for_development(s))
    {
        report.error(
            &format!("{key}.danger_secret"),
            "must begin with `dev-`, so that it cannot be taken for a real one",
            "put real secrets into a variable or a file",
        );
        return None;
    }
    let found = secret::find(raw, env, report.environment);
    let found = report.take(key, found, &format!("set {}", secret::sources(raw)))??;
    report.files.extend(found.file.clone());
    Some(found)
}

fn long_enough(found: &Found, least: usize) -> Result<(), String> {
    match found.text.chars().count() {
        n if n < least => Err(format!(
            "{} has {n} characters; expected at least {least}",
            found.source
        )),
        _ => Ok(()),
    }
}

/// One `/webhooks/{name}`.
pub(super) fn endpoint(
    file: &raw::File,
    name: &str,
    raw: &raw::Endpoint,
    env: &Env,
    report: &mut Report<'_>,
) -> Option<webhook::Endpoint> {
    let key = format!("webhooks.endpoints.{name}");
    report.refer(
        &format!("{key}.upstream"),
        &raw.upstream,
        &file.upstreams,
        "upstream",
    );
    let declared = report.refer(
        &format!("{key}.scheme"),
        &raw.scheme,
        &file.schemes,
        "scheme",
    );
    let least = declared.map_or(1, |s| {
        usize::try_from(s.secret_bytes_min).unwrap_or(usize::MAX)
    });
    let secrets = secrets(&key, raw, least, env, report);
    let built = scheme(declared?, raw.public_url.as_deref());
    let built = report.take(&format!("schemes.{}", raw.scheme), built, "")?;
    Some(webhook::Endpoint {
        name: Arc::from(name),
        provider: Arc::from(raw.provider.as_ref().unwrap_or(&raw.scheme).as_str()),
        scheme: Arc::new(built),
        secrets,
        mode: match raw.mode {
            raw::Mode::Pass => webhook::Mode::Pass,
        },
        upstream: Arc::from(raw.upstream.as_str()),
        body_bytes_max: usize::try_from(raw.body_bytes_max).unwrap_or(usize::MAX),
        body_timeout_ms: raw.body_timeout_ms,
    })
}

fn secrets(
    key: &str,
    raw: &raw::Endpoint,
    least: usize,
    env: &Env,
    report: &mut Report<'_>,
) -> Vec<webhook::ActiveSecret> {
    let mut active: Vec<webhook::ActiveSecret> = Vec::new();
    let mut failed = false;
    for (i, source) in raw.secrets.iter().enumerate() {
        let key = format!("{key}.secrets[{i}]");
        let before = report.problems.len();
        let found = find(&key, source, env, report);
        failed |= report.problems.len() > before;
        let Some(found) = found else { continue };
        if report
            .take(&key, long_enough(&found, least), GENERATE)
            .is_none()
        {
            failed = true;
            continue;
        }
        let name = source.name.clone().unwrap_or_else(|| format!("secret-{i}"));
        if active.iter().any(|a| *a.name == *name) {
            report.error(
                &key,
                format!("another secret is called `{name}` already"),
                "",
            );
        }
        let secret = Secret::new(found.text);
        active.push(webhook::ActiveSecret {
            name: Arc::from(name.as_str()),
            secret,
        });
    }
    if active.is_empty() && !failed {
        report.error(
            &format!("{key}.secrets"),
            "no secret is there, so nothing could be verified",
            "at least one must not be optional",
        );
    }
    active
}

/// Builds the verifier's own scheme. The endpoint's URL is part of it where a provider signs it.
fn scheme(_raw: &raw::Scheme, _public_url: Option<&str>) -> Result<Scheme, String> {
    Ok(Scheme)
}
