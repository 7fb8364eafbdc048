//! What development forgives and production refuses: one test each.

use super::{development, errors, production, production_with};

/// Refused in production with these words; the key alone is what is wrong.
fn refused(text: &str, env: &[(&str, &str)], expected: &str) {
    let shown = errors(production_with(text, env));
    assert!(shown.contains(expected), "{expected}\nnot in\n{shown}");
    assert_eq!(shown.lines().count(), 1, "{shown}");
}

#[test]
fn unsigned_webhooks() {
    refused(
        "",
        &[("WH_SIGNATURE_REQUIRED", "false")],
        "$WH_SIGNATURE_REQUIRED: webhooks.signature_required: unsigned webhooks are refused",
    );
    let config = development(&[("WH_SIGNATURE_REQUIRED", "false")]).unwrap();
    assert!(config.notices[0].contains("verifies every webhook"));
}

#[test]
fn development_secrets_from_anywhere() {
    let secret = "dev-webhook-secret-for-one-machine-only";
    let shown = errors(production(&[("WH_SECRET", secret)]));
    assert!(
        shown.contains("variable WH_SECRET holds a development secret"),
        "{shown}"
    );
    let whsec = "whsec_ZGV2LWRlbGl2ZXJ5LXNlY3JldC1mb3Itb25lLW1hY2hpbmU=";
    let shown = errors(production(&[("EDGE_DELIVERY_SECRET", whsec)]));
    assert!(
        shown.contains("variable EDGE_DELIVERY_SECRET holds a development secret"),
        "{shown}"
    );
}

#[test]
fn secrets_in_the_file() {
    let text =
        "[identity]\nassertion_secret.danger_secret = \"dev-00000000000000000000000000000\"\n";
    refused(
        text,
        &[],
        "identity.assertion_secret.danger_secret: a secret in the file is refused",
    );
}

#[test]
fn a_danger_secret_that_looks_real_is_refused_everywhere() {
    let text = "environment = \"development\"\n[identity]\n\
                assertion_secret.danger_secret = \"0123456789abcdef0123456789abcdef\"\n";
    let shown = errors(production_with(text, &[]));
    assert!(shown.contains("must begin with `dev-`"), "{shown}");
}

#[test]
fn any_origin() {
    refused(
        "[cors]\norigins = [\"*\"]\n",
        &[],
        "cors.origins[0]: `*` lets every site",
    );
}

#[test]
fn an_origin_with_a_slash() {
    refused(
        "",
        &[("CORS_ORIGINS", "https://app.example/")],
        "$CORS_ORIGINS: cors.origins[0]: `https://app.example/` ends with a slash",
    );
}

#[test]
fn an_origin_without_tls() {
    refused(
        "[cors]\norigins = [\"http://app.example\"]\n",
        &[],
        "is not https",
    );
    assert!(development(&[("CORS_ORIGINS", "http://localhost:3000")]).is_ok());
}

#[test]
fn an_origin_that_is_more() {
    for origin in [
        "https://a.example/app",
        "https://*.example",
        "app.example",
        "null",
    ] {
        refused(
            &format!("[cors]\norigins = [{origin:?}]\n"),
            &[],
            "cors.origins[0]: ",
        );
    }
}

#[test]
fn development_certificates() {
    let text = "[tls]\ncertificates = [{ chain = \"certs/dev/server.pem\", key = \"k\" }]\n";
    refused(
        text,
        &[],
        "tls.certificates[0].chain: a development certificate is refused",
    );
}

#[test]
fn an_admin_listener_that_anybody_may_use() {
    let exposed = "[listeners.admin]\naddress = \"0.0.0.0:9090\"\n";
    refused(
        exposed,
        &[],
        "listeners.admin.token: there is no token, and 0.0.0.0:9090 is not a loopback address; hint: add",
    );
    let with = format!("{exposed}token = {{ env = \"ADMIN\" }}\n");
    refused(
        &with,
        &[],
        "listeners.admin.token: no secret: variable ADMIN is not set",
    );
    let short = [("ADMIN", "0123456789abcdef0123456789abcde")];
    refused(
        &with,
        &short,
        "listeners.admin.token: variable ADMIN has 31 characters",
    );
    let optional = with.replace(" }", ", optional = true }");
    refused(&optional, &[], "listeners.admin.token: there is no token");
    let long = [("ADMIN", "0123456789abcdef0123456789abcdef")];
    let config = production_with(&with, &long).unwrap();
    assert!(config.admin_token.is_some());
    let text = format!("environment = \"development\"\n{exposed}");
    let config = production_with(&text, &[]).unwrap();
    assert!(config.notices[0].contains("/metrics and /healthz and nothing else"));
}

#[test]
fn https_without_a_certificate() {
    refused(
        "[tls]\ncertificates = []\n",
        &[],
        "tls.certificates: the https listener has no",
    );
}

#[test]
fn routes_in_clear() {
    let text = "[listeners.http]\ndanger_serve_in_clear = true\n";
    refused(
        text,
        &[],
        "listeners.http.danger_serve_in_clear: tokens and signed bodies in clear",
    );
}

#[test]
fn demo_accounts() {
    let text = "[embedded_api]\ndanger_seed_demo = true\n";
    refused(
        text,
        &[],
        "embedded_api.danger_seed_demo: accounts with known passwords",
    );
}

#[test]
fn the_development_configuration_as_a_whole() {
    let dev = std::env::current_dir().unwrap().join("config/dev.toml");
    let text = format!(
        "include = [{:?}]\nenvironment = \"production\"\n",
        dev.display().to_string()
    );
    let shown = errors(super::from_text(&text, crate::config::Env::default()));
    for expected in [
        "tls.certificates[0].chain",
        "cors.origins[0]",
        "identity.assertion_secret.danger_secret",
        "delivery.secret.danger_secret",
        "webhooks.endpoints.billing.secrets[0].danger_secret",
        "embedded_api.danger_seed_demo",
    ] {
        assert!(shown.contains(expected), "{expected}\nnot in\n{shown}");
    }
}
