//! Schemes that are code: what an operator writes for each provider, and what is said where something
//! is missing.

use super::{errors, production_with};
use crate::config::Config;
use crate::plan::Then;
use crate::webhook::handshake::Handshake;
use crate::webhook::{Endpoint, Rules};

const KEY: (&str, &str) = ("KEY", "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C05755");

/// A file with one scheme and one endpoint.
fn file(scheme: &str, endpoint: &str, secret: &str) -> String {
    let secret = match secret {
        "" => String::new(),
        more => {
            format!("[[webhooks.endpoints.pay.secrets]]\nname = \"a\"\nenv = \"KEY\"\n{more}\n")
        }
    };
    format!("[schemes.x]\n{scheme}\n[webhooks.endpoints.pay]\nscheme = \"x\"\n{endpoint}\n{secret}")
}

fn load(scheme: &str, endpoint: &str, secret: &str) -> Config {
    let config = production_with(&file(scheme, endpoint, secret), &[KEY]);
    config.unwrap_or_else(|e| panic!("{scheme}: {e}"))
}

fn refused(scheme: &str, endpoint: &str, secret: &str, expected: &str) {
    let shown = errors(production_with(&file(scheme, endpoint, secret), &[KEY]));
    assert!(shown.contains(expected), "{expected}\nnot in\n{shown}");
}

fn endpoint(config: &Config) -> &Endpoint {
    let mut all = config.routes.iter().filter_map(|r| match &r.plan.then {
        Then::Ingest(endpoint) if &*endpoint.name == "pay" => Some(endpoint),
        Then::Ingest(_) | Then::Forward { .. } | Then::Subscribe(_) | Then::Reply(_) => None,
    });
    all.next().unwrap()
}

const SECRET: &str = "optional = false";

#[test]
fn every_special_scheme_can_be_configured_in_production() {
    let url = "public_url = \"https://edge.example/webhooks/pay\"";
    let hosts = "special = \"paypal\"\ncertificate_hosts = [\"api.paypal.com\"]";
    let twilio = "special = \"twilio\"\nalg = \"hmac-sha1\"";
    let called = "key_id = \"public\"";
    let mollie = "special = \"mollie-classic\"\ndanger_unsigned = true";
    for (scheme, more, secret) in [
        ("special = \"adyen-standard\"", "", SECRET),
        ("special = \"braintree\"", "", called),
        (mollie, "", ""),
        (hosts, "", SECRET),
        ("special = \"toast\"", "", SECRET),
        (twilio, url, SECRET),
    ] {
        let config = load(scheme, more, secret);
        let endpoint = endpoint(&config);
        assert!(matches!(&*endpoint.scheme, Rules::Special(_)), "{scheme}");
        assert_eq!(
            endpoint.secrets.len(),
            usize::from(!secret.is_empty()),
            "{scheme}"
        );
    }
    let said = |scheme, more, secret, text: &str| {
        let notices = load(scheme, more, secret).notices;
        assert!(notices.iter().any(|n| n.contains(text)), "{notices:?}");
    };
    said(mollie, "", "", "are not signed");
    said(hosts, "", SECRET, "CRC-32");
}

#[test]
fn what_is_missing_is_named_with_a_hint() {
    let twilio = "special = \"twilio\"\nalg = \"hmac-sha1\"";
    refused(twilio, "", SECRET, "pay.public_url: the URL is signed");
    let url = "public_url = \"https://edge.example/webhooks/pay\"";
    refused(
        "special = \"twilio\"\nalg = \"hmac-sha512\"",
        url,
        SECRET,
        "use hmac-sha1 or hmac-sha256",
    );
    refused(
        "special = \"braintree\"",
        "",
        SECRET,
        "secrets[0].key_id: missing",
    );
    refused(
        "special = \"mollie-classic\"",
        "",
        "",
        "schemes.x.danger_unsigned",
    );
    let danger = "special = \"mollie-classic\"\ndanger_unsigned = true";
    refused(danger, "", SECRET, "this scheme has none");
    refused(
        "special = \"paypal\"",
        "",
        SECRET,
        "schemes.x.certificate_hosts",
    );
    let away = "certificate_hosts = [\"api.paypal.com\"]\ncertificate_ca_file = \"/nowhere.pem\"";
    refused(
        &format!("special = \"paypal\"\n{away}"),
        "",
        SECRET,
        "cannot read `/nowhere.pem`",
    );
    refused("special = \"toast\"", "", "", "no secret is there");
    refused("special = \"stripe\"", "", SECRET, "schemes.x.special");
}

#[test]
fn what_would_not_count_is_refused() {
    for key in [
        "header = \"X-A\"",
        "signed = \"{body}\"",
        "encoding = \"hex\"",
        "id = \"json:/a\"",
    ] {
        refused(
            &format!("special = \"toast\"\n{key}"),
            "",
            SECRET,
            "`special` decides it",
        );
    }
    for key in [
        "danger_unsigned = true",
        "certificate_hosts = [\"api.paypal.com\"]",
    ] {
        let scheme = format!("header = \"X-A\"\nsigned = \"{{body}}\"\n{key}");
        refused(&scheme, "", SECRET, "does not count without `special`");
        refused(
            &format!("special = \"toast\"\n{key}"),
            "",
            SECRET,
            "`special` decides it",
        );
    }
}

#[test]
fn handshakes_belong_to_schemes_that_can_answer() {
    let slack = "header = \"X-A\"\nsigned = \"{body}\"\nhandshake = \"slack\"";
    assert_eq!(
        endpoint(&load(slack, "", SECRET)).handshake,
        Some(Handshake::Slack)
    );
    let zoom = "header = \"X-A\"\nsigned = \"{body}\"\nhandshake = \"zoom\"";
    assert_eq!(
        endpoint(&load(zoom, "", SECRET)).handshake,
        Some(Handshake::Zoom)
    );
    refused(
        &format!("{zoom}\nalg = \"hmac-sha512\""),
        "",
        SECRET,
        "answers with an HMAC-SHA256",
    );
    let header = "header = \"X-A\"\nsigned = \"{body}\"\nhandshake = \"braintree\"";
    refused(header, "", SECRET, "its own kind of MAC");
    let config = load(
        "special = \"braintree\"\nhandshake = \"braintree\"",
        "",
        "key_id = \"p\"",
    );
    assert_eq!(endpoint(&config).handshake, Some(Handshake::Braintree));
    let route = config
        .routes
        .iter()
        .find(|r| r.pattern.ends_with("/webhooks/pay"));
    assert!(route.unwrap().methods.contains(&http::Method::GET));
}

#[test]
fn clovers_code_is_for_those_who_switch_it_on() {
    let clover = "header = \"X-Clover-Auth\"\nalg = \"equal\"\nunsigned_body = true";
    assert_eq!(endpoint(&load(clover, "", SECRET)).handshake, None);
    let on = "danger_clover_verification = true";
    let config = load(clover, on, SECRET);
    assert_eq!(endpoint(&config).handshake, Some(Handshake::DangerClover));
    assert!(config.notices.iter().any(|n| n.contains("switch it off")));
    refused(
        &format!("{clover}\nhandshake = \"slack\""),
        on,
        SECRET,
        "a handshake of its own",
    );
}

/// An endpoint names the preset and no more.
#[test]
fn the_presets_of_special_schemes_load() {
    let url = "public_url = \"https://edge.example/webhooks/pay\"";
    let secret = "[[webhooks.endpoints.pay.secrets]]\nname = \"a\"\nenv = \"KEY\"";
    for (name, provider, more, key_id) in [
        ("adyen-standard", "adyen", "", ""),
        ("braintree", "braintree", "", "key_id = \"public\""),
        ("paypal", "paypal", "", ""),
        ("toast", "toast", "", ""),
        ("twilio", "twilio", url, ""),
    ] {
        let text =
            format!("[webhooks.endpoints.pay]\nscheme = {name:?}\n{more}\n{secret}\n{key_id}\n");
        let config = production_with(&text, &[KEY]).unwrap_or_else(|e| panic!("{name}: {e}"));
        let endpoint = endpoint(&config);
        assert!(matches!(&*endpoint.scheme, Rules::Special(_)), "{name}");
        assert_eq!(&*endpoint.provider, provider);
    }
    let mollie = "[webhooks.endpoints.pay]\nscheme = \"mollie-classic\"\n";
    let shown = errors(production_with(mollie, &[]));
    assert!(
        shown.contains("schemes.mollie-classic.danger_unsigned"),
        "{shown}"
    );
    let known = "[schemes.mine]\npreset = \"mollie-classic\"\ndanger_unsigned = true\n\
                 [webhooks.endpoints.pay]\nscheme = \"mine\"\n";
    let config = production_with(known, &[]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(&*endpoint(&config).provider, "mollie");
}

#[test]
fn the_presets_of_those_who_try_a_url_out_answer() {
    for (name, expected) in [
        ("slack", Handshake::Slack),
        ("zoom", Handshake::Zoom),
        ("braintree", Handshake::Braintree),
    ] {
        let text = format!(
            "[webhooks.endpoints.pay]\nscheme = {name:?}\n[[webhooks.endpoints.pay.secrets]]\n\
             name = \"a\"\nenv = \"KEY\"\nkey_id = \"public\"\n"
        );
        let config = production_with(&text, &[KEY]).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(endpoint(&config).handshake, Some(expected), "{name}");
    }
    let key = "public_key = \"67d49f284025416120ccc0df0a3d86496b842d7d4adaee3234f5e33aa3f788ef\"";
    let text = format!(
        "[webhooks.endpoints.pay]\nscheme = \"discord\"\n[[webhooks.endpoints.pay.secrets]]\n\
         name = \"a\"\n{key}\n"
    );
    match production_with(&text, &[]) {
        Ok(config) => assert_eq!(endpoint(&config).handshake, Some(Handshake::Discord)),
        Err(e) => panic!("{e}"),
    }
}
