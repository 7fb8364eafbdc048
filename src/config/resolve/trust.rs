//! Resolves who is believed: secrets, token issuers, webhook schemes and endpoints.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Report, special};
use crate::config::env::Env;
use crate::config::secret::{self, Found};
use crate::config::{Environment, check, preset, raw};
use crate::kernel::secret::Secret;
use crate::webhook::scheme::{Scheme, SchemeError, SchemeSpec, Unit};
use crate::webhook::{OrderKey, Rules};
use crate::{auth, webhook};

/// Shortest token for the admin listener.
const ADMIN_TOKEN_CHARS_MIN: usize = 32;
/// Shortest secret shared with the API.
const ASSERTION_SECRET_CHARS_MIN: usize = 32;

pub(super) fn issuers(file: &raw::File, report: &mut Report<'_>) -> Vec<auth::Issuer> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, raw) in &file.issuers {
        let key = format!("issuers.{name}");
        if !seen.insert((&raw.issuer, &raw.audience)) {
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

/// `None` where there is none, or where what is there was reported. Without one, an address that
/// others reach is closed but for metrics, and production does not begin that way.
pub(super) fn admin_token(
    raw: &raw::AdminListener,
    address: Option<SocketAddr>,
    env: &Env,
    report: &mut Report<'_>,
) -> Option<Secret> {
    let key = "listeners.admin.token";
    let before = report.problems.len();
    let found = raw
        .token
        .as_ref()
        .and_then(|raw| find(key, raw, env, report));
    let exposed = address.filter(|a| !a.ip().is_loopback());
    if let (None, Some(address)) = (&found, exposed)
        && report.problems.len() == before
    {
        let message = format!("there is no token, and {address} is not a loopback address");
        match report.environment {
            Environment::Production => report.error(
                "listeners.admin.token",
                message,
                "add token = { secret_file = \"…\" } or { env = \"…\" }, or listen on 127.0.0.1",
            ),
            Environment::Development => report.notices.push(format!(
                "listeners.admin: {message}: it answers /metrics and /healthz and nothing else"
            )),
        }
    }
    let found = found?;
    let judged = long_enough(&found, ADMIN_TOKEN_CHARS_MIN);
    report.take(key, judged, GENERATE)?;
    Some(Secret::new(found.text))
}

const GENERATE: &str = "openssl rand -hex 32";

pub(super) fn find(
    key: &str,
    raw: &raw::SecretSource,
    env: &Env,
    report: &mut Report<'_>,
) -> Option<Found> {
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

/// Reports what is wrong with any scheme, used or not.
pub(super) fn schemes(file: &raw::File, report: &mut Report<'_>) {
    for (name, raw) in &file.schemes {
        // Which URL a provider has on record is the endpoint's to say.
        let Err(errors) = rules(raw, Some("https://edge.invalid/")) else {
            continue;
        };
        for error in errors {
            report.error(
                &format!("schemes.{name}.{}", error.key),
                error.problem,
                error.hint,
            );
        }
    }
}

fn rules(raw: &raw::Scheme, public_url: Option<&str>) -> Result<Rules, Vec<SchemeError>> {
    if let Some(kind) = raw.special {
        return special::build(kind, raw, public_url).map(Rules::Special);
    }
    let mut errors = special::misplaced(raw);
    let built = Scheme::build(&spec(raw, public_url));
    let scheme = built.map_err(|mut e| errors.append(&mut e)).ok();
    match scheme {
        Some(scheme) if errors.is_empty() => Ok(Rules::Grammar(scheme)),
        Some(_) | None => Err(errors),
    }
}

fn spec(raw: &raw::Scheme, public_url: Option<&str>) -> SchemeSpec {
    // Both sides use the same keys; the test of this module holds them to it.
    let spec = serde_json::to_value(raw).and_then(serde_json::from_value::<SchemeSpec>);
    SchemeSpec {
        public_url: public_url.map(str::to_owned),
        ..spec.unwrap_or_default()
    }
}

/// The endpoint's scheme; presets that are named have been laid among the schemes.
fn declared<'f>(
    file: &'f raw::File,
    key: &str,
    raw: &raw::Endpoint,
    report: &mut Report<'_>,
) -> Option<&'f raw::Scheme> {
    let found = file.schemes.get(&raw.scheme);
    if found.is_none() {
        let mut known: Vec<&str> = file.schemes.keys().map(String::as_str).collect();
        preset::names().for_each(|name| known.push(name));
        let hint = match check::nearest(&raw.scheme, known.into_iter()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`maitred config presets` lists those that are built in".to_owned(),
        };
        let message = format!("there is no scheme `{}`", raw.scheme);
        report.error(&format!("{key}.scheme"), message, hint);
    }
    found
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
    let declared = declared(file, &key, raw, report)?;
    let rules = match rules(declared, raw.public_url.as_deref()) {
        Ok(rules) => Some(rules),
        Err(errors) => {
            // Everything else about the scheme is said once, by `schemes`.
            for e in errors.into_iter().filter(|e| e.key == "public_url") {
                report.error(&format!("{key}.public_url"), e.problem, e.hint);
            }
            None
        }
    };
    let least = usize::try_from(declared.secret_bytes_min).unwrap_or(usize::MAX);
    let order_key = raw.order_key.as_deref().and_then(|text| {
        let hint = "e.g. `json:/account` or `header:X-Shop-Id`";
        report.take(&format!("{key}.order_key"), OrderKey::parse(text), hint)
    });
    let secrets = secrets(&key, raw, rules.as_ref(), least, env, report);
    let rules = rules?;
    let handshake = special::handshake(&key, declared, raw, &rules, report);
    special::notices(&key, declared, report);
    Some(webhook::Endpoint {
        name: Arc::from(name),
        provider: Arc::from(raw.provider.as_ref().unwrap_or(&raw.scheme).as_str()),
        scheme: Arc::new(rules),
        handshake,
        secrets,
        mode: match raw.mode {
            raw::Mode::Store => webhook::Mode::Store,
            raw::Mode::Pass => webhook::Mode::Pass,
        },
        upstream: Arc::from(raw.upstream.as_str()),
        order_key,
        body_bytes_max: usize::try_from(raw.body_bytes_max).unwrap_or(usize::MAX),
        body_timeout_ms: raw.body_timeout_ms,
    })
}

fn secrets(
    key: &str,
    raw: &raw::Endpoint,
    rules: Option<&Rules>,
    least: usize,
    env: &Env,
    report: &mut Report<'_>,
) -> Vec<webhook::ActiveSecret> {
    let before = report.problems.len();
    let mut active = Vec::new();
    let mut names = BTreeSet::new();
    for (i, raw) in raw.secrets.iter().enumerate() {
        let key = format!("{key}.secrets[{i}]");
        if !names.insert(&raw.name) {
            report.error(
                &key,
                format!("another secret is called `{}` already", raw.name),
                "",
            );
        }
        active.extend(secret(&key, raw, rules, least, env, report));
    }
    let wanted = rules.is_some_and(Rules::has_secrets);
    if rules.is_some() && !wanted && !raw.secrets.is_empty() {
        let hint = "secrets = []";
        report.error(&format!("{key}.secrets"), "this scheme has none", hint);
    }
    if active.is_empty() && wanted && report.problems.len() == before {
        report.error(
            &format!("{key}.secrets"),
            "no secret is there, so nothing could be verified",
            "at least one must not be optional",
        );
    }
    active
}

fn secret(
    key: &str,
    raw: &raw::WebhookSecret,
    rules: Option<&Rules>,
    least: usize,
    env: &Env,
    report: &mut Report<'_>,
) -> Option<webhook::ActiveSecret> {
    let moment = |name: &str, text: &Option<String>, report: &mut Report<'_>| {
        let text = text.as_ref()?;
        let parsed = Unit::Rfc3339.parse(text.as_bytes());
        let wrong = || format!("`{text}` is not a moment in RFC 3339");
        report.take(
            &format!("{key}.{name}"),
            parsed.ok_or_else(wrong),
            "2030-01-31T00:00:00Z",
        )
    };
    let not_before = moment("not_before", &raw.not_before, report);
    let not_after = moment("not_after", &raw.not_after, report);
    if not_before.is_some_and(|from| not_after.is_some_and(|until| until <= from)) {
        report.error(&format!("{key}.not_after"), "is not after not_before", "");
    }
    let found = match &raw.public_key {
        Some(text) => public_key(key, raw, text, report)?,
        None => find(key, &raw.source(), env, report)?,
    };
    // Characters and not bytes, so that 16 umlauts are not taken for 32 letters.
    report.take(key, long_enough(&found, least), GENERATE)?;
    let rules = rules?;
    if let Rules::Special(special) = rules
        && special.names_keys()
        && raw.key_id.is_none()
    {
        let hint = "what the provider calls this key; Braintree: the public key";
        report.error(&format!("{key}.key_id"), "missing", hint);
    }
    match webhook::ActiveSecret::new(&raw.name, &Secret::new(found.text), rules.keys()) {
        Ok(secret) if raw.public_key.is_some() && !secret.is_public_key() => {
            report.error(
                &format!("{key}.public_key"),
                "the keys of this scheme are secret",
                format!("set {}", secret::sources(&raw.source())),
            );
            None
        }
        Ok(secret) => Some(
            secret
                .within(not_before, not_after)
                .called(raw.key_id.as_deref()),
        ),
        Err(e) => {
            report.error(key, format!("{}: {}", found.source, e.problem), e.hint);
            None
        }
    }
}

fn public_key(
    key: &str,
    raw: &raw::WebhookSecret,
    text: &str,
    report: &mut Report<'_>,
) -> Option<Found> {
    let other = [&raw.env, &raw.secret_file, &raw.danger_secret];
    if other.into_iter().any(Option::is_some) {
        report.error(
            &format!("{key}.public_key"),
            "there is another source of this key too",
            "keep one of them",
        );
        return None;
    }
    Some(Found {
        text: text.to_owned(),
        file: None,
        source: "public_key".to_owned(),
    })
}
