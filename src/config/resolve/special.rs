//! Resolves the schemes that are code, and the handshakes of all of them.

use std::path::Path;

use super::Report;
use crate::config::raw;
use crate::webhook::handshake::Handshake;
use crate::webhook::scheme::{Alg, KeyForm, SchemeError};
use crate::webhook::special::{self, Kind, Special, SpecialSpec};
use crate::webhook::{Rules, Scheme};

/// Where the keys of a scheme are written, for what is wrong with them.
pub(super) fn build(
    kind: raw::Special,
    raw: &raw::Scheme,
    public_url: Option<&str>,
) -> Result<Special, Vec<SchemeError>> {
    let mut errors = superfluous(kind, raw);
    let ca = raw.certificate_ca_file.as_ref().map(|path| {
        std::fs::read(Path::new(path)).map_err(|e| {
            let problem = format!("cannot read `{path}`: {e}");
            errors.push(SchemeError {
                key: "certificate_ca_file",
                problem,
                hint: "",
            });
        })
    });
    let spec = SpecialSpec {
        // The others have one algorithm each.
        alg: Some(alg(raw.alg).into()).filter(|_| kind == raw::Special::Twilio),
        replay: raw.replay.map(|replay| match replay {
            raw::Replay::Reject => "reject".into(),
            raw::Replay::Ack => "ack".into(),
        }),
        secret_bytes_min: Some(raw.secret_bytes_min),
        public_url: public_url.map(str::to_owned),
        certificate_hosts: raw.certificate_hosts.clone(),
        certificate_ca: ca.and_then(Result::ok),
        danger_unsigned: raw.danger_unsigned,
    };
    match Special::build(kind_of(kind), &spec, &special::over_https()) {
        Ok(special) if errors.is_empty() => Ok(special),
        Ok(_) => Err(errors),
        Err(mut more) => {
            errors.append(&mut more);
            Err(errors)
        }
    }
}

/// What is written and would not count.
fn superfluous(kind: raw::Special, raw: &raw::Scheme) -> Vec<SchemeError> {
    let grammar = [
        ("header", raw.header.is_some()),
        ("split", raw.split.is_some()),
        ("encoding", raw.encoding.is_some()),
        ("key", raw.key.is_some()),
        ("signed", raw.signed.is_some()),
        ("ts", raw.ts.is_some()),
        ("id", raw.id.is_some()),
    ];
    let paypal = kind == raw::Special::Paypal;
    let own = [
        (
            "certificate_hosts",
            !paypal && !raw.certificate_hosts.is_empty(),
        ),
        (
            "certificate_ca_file",
            !paypal && raw.certificate_ca_file.is_some(),
        ),
        (
            "danger_unsigned",
            kind != raw::Special::MollieClassic && raw.danger_unsigned,
        ),
    ];
    let written = grammar.into_iter().chain(own).filter(|(_, there)| *there);
    let error = |(key, _)| SchemeError {
        key,
        problem: "does not count: `special` decides it".into(),
        hint: "remove it",
    };
    written.map(error).collect()
}

/// What is written in a scheme of the grammar and is for special ones only.
pub(super) fn misplaced(raw: &raw::Scheme) -> Vec<SchemeError> {
    let keys = [
        ("certificate_hosts", !raw.certificate_hosts.is_empty()),
        ("certificate_ca_file", raw.certificate_ca_file.is_some()),
        ("danger_unsigned", raw.danger_unsigned),
    ];
    let error = |(key, _)| SchemeError {
        key,
        problem: "does not count without `special`".into(),
        hint: "remove it, or set `special`",
    };
    let written = keys.into_iter().filter(|(_, there)| *there);
    written.map(error).collect()
}

/// The handshake of an endpoint; reports one that its scheme cannot have.
pub(super) fn handshake(
    key: &str,
    declared: &raw::Scheme,
    raw: &raw::Endpoint,
    rules: &Rules,
    report: &mut Report<'_>,
) -> Option<Handshake> {
    let place = format!("schemes.{}.handshake", raw.scheme);
    if raw.danger_clover_verification {
        if declared.handshake.is_some() {
            let hint = "leave one of them out";
            let key = format!("{key}.danger_clover_verification");
            report.error(&key, "the scheme has a handshake of its own", hint);
            return None;
        }
        report.notices.push(format!(
            "{key}.danger_clover_verification: whoever sends a verification code gets a 200 and a line \
             in the log; switch it off once the URL is registered"
        ));
        return Some(Handshake::DangerClover);
    }
    match declared.handshake? {
        raw::Handshake::Slack => Some(Handshake::Slack),
        raw::Handshake::Discord => Some(Handshake::Discord),
        raw::Handshake::Zoom if answers_zoom(rules.keys()) => Some(Handshake::Zoom),
        raw::Handshake::Zoom => {
            let hint = "set alg = \"hmac-sha256\" and key = \"utf8\"";
            report.error(&place, "zoom answers with an HMAC-SHA256", hint);
            None
        }
        raw::Handshake::Braintree => match rules {
            Rules::Special(special) if special.names_keys() => Some(Handshake::Braintree),
            Rules::Special(_) | Rules::Grammar(_) => {
                report.error(
                    &place,
                    "braintree answers with its own kind of MAC",
                    "set special",
                );
                None
            }
        },
    }
}

fn answers_zoom(keys: &Scheme) -> bool {
    keys.key_form() == KeyForm::Utf8 && keys.alg() == Alg::HmacSha256
}

/// What an operator should know of an endpoint whenever the edge starts.
pub(super) fn notices(key: &str, raw: &raw::Scheme, report: &mut Report<'_>) {
    if raw.danger_unsigned {
        report.notices.push(format!(
            "{key}: messages of this endpoint are not signed; the API must ask the provider about \
             each id"
        ));
    }
    if raw.special == Some(raw::Special::Paypal) {
        report.notices.push(format!(
            "{key}: PayPal signs no more than a CRC-32 of the body; the API should ask PayPal before \
             it acts on an amount"
        ));
    }
}

fn kind_of(raw: raw::Special) -> Kind {
    match raw {
        raw::Special::AdyenStandard => Kind::AdyenStandard,
        raw::Special::Braintree => Kind::Braintree,
        raw::Special::MollieClassic => Kind::MollieClassic,
        raw::Special::Paypal => Kind::PayPal,
        raw::Special::Toast => Kind::Toast,
        raw::Special::Twilio => Kind::Twilio,
    }
}

fn alg(raw: raw::SchemeAlg) -> &'static str {
    match raw {
        raw::SchemeAlg::HmacSha256 => "hmac-sha256",
        raw::SchemeAlg::HmacSha512 => "hmac-sha512",
        raw::SchemeAlg::HmacSha1 => "hmac-sha1",
        raw::SchemeAlg::Ed25519 => "ed25519",
        raw::SchemeAlg::EcdsaP256 => "ecdsa-p256",
        raw::SchemeAlg::Equal => "equal",
    }
}
