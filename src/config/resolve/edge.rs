//! Resolves what surrounds the traffic: listeners, TLS, request limits, CORS, drain, log.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::Report;
use crate::config::{Cors, Drain, EmbeddedApi, HttpListener, Log, LogFormat, raw};
use crate::{guard, listener};

const ADDRESS: &str = "an address with a port, e.g. `0.0.0.0:8443` or `[::]:8443`";

/// `Some(None)` = no https listener.
pub(super) fn https(
    file: &raw::File,
    report: &mut Report<'_>,
) -> Option<Option<(listener::Policy, listener::TlsPolicy)>> {
    let raw = &file.listeners.https;
    if !raw.enabled {
        return Some(None);
    }
    let key = "listeners.https";
    let address = report.parse(&format!("{key}.address"), &raw.address, ADDRESS);
    let proxies = networks(
        &format!("{key}.proxy_protocol_from"),
        &raw.proxy_protocol_from,
        report,
    );
    per_ip(key, raw.connections_per_ip_max, raw.connections_max, report);
    let tls = tls(&file.tls, report);
    Some(Some((
        listener::Policy {
            address: address?,
            proxy_protocol_from: proxies?,
            connections_max: size(raw.connections_max),
            connections_per_ip_max: size(raw.connections_per_ip_max),
            handshake_timeout_ms: raw.handshake_timeout_ms,
            header_timeout_ms: raw.header_timeout_ms,
            keepalive_timeout_ms: raw.keepalive_timeout_ms,
        },
        tls,
    )))
}

/// `Some(None)` = no plain listener.
pub(super) fn http(file: &raw::File, report: &mut Report<'_>) -> Option<Option<HttpListener>> {
    let raw = &file.listeners.http;
    let key = "listeners.http";
    if raw.danger_serve_in_clear && report.production() {
        report.error(
            &format!("{key}.danger_serve_in_clear"),
            "tokens and signed bodies in clear are refused in production",
            "remove the key, and let TLS end at this process",
        );
    }
    if !raw.enabled {
        return Some(None);
    }
    let address = report.parse(&format!("{key}.address"), &raw.address, ADDRESS);
    let proxies = networks(
        &format!("{key}.proxy_protocol_from"),
        &raw.proxy_protocol_from,
        report,
    );
    per_ip(key, raw.connections_per_ip_max, raw.connections_max, report);
    Some(Some(HttpListener {
        listener: listener::Policy {
            address: address?,
            proxy_protocol_from: proxies?,
            connections_max: size(raw.connections_max),
            connections_per_ip_max: size(raw.connections_per_ip_max),
            handshake_timeout_ms: raw.header_timeout_ms,
            header_timeout_ms: raw.header_timeout_ms,
            keepalive_timeout_ms: raw.keepalive_timeout_ms,
        },
        redirect_to_port: (!raw.danger_serve_in_clear).then_some(raw.redirect_to_port),
    }))
}

/// The admin address, which must not be one of the public ones.
pub(super) fn admin(file: &raw::File, report: &mut Report<'_>) -> Option<SocketAddr> {
    let listeners = &file.listeners;
    let all = [
        (
            "listeners.https.address",
            &listeners.https.address,
            listeners.https.enabled,
        ),
        (
            "listeners.http.address",
            &listeners.http.address,
            listeners.http.enabled,
        ),
    ];
    let key = "listeners.admin.address";
    let admin: SocketAddr = report.parse(key, &listeners.admin.address, ADDRESS)?;
    let mut taken = vec![(key, admin)];
    for (key, text, enabled) in all {
        let Some(address) = text.parse::<SocketAddr>().ok().filter(|_| enabled) else {
            continue;
        };
        if let Some((other, _)) = taken.iter().find(|(_, a)| same_socket(*a, address)) {
            report.error(
                key,
                format!("is the same address as {other}"),
                "choose another port",
            );
        }
        taken.push((key, address));
    }
    Some(admin)
}

/// Port 0 is a port of the system's choice, a new one each time.
fn same_socket(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || any)
}

fn tls(raw: &raw::Tls, report: &mut Report<'_>) -> listener::TlsPolicy {
    if raw.certificates.is_empty() && report.production() {
        report.error(
            "tls.certificates",
            "the https listener has no certificate",
            "add [[tls.certificates]] with `chain` and `key`",
        );
    }
    for (i, certificate) in raw.certificates.iter().enumerate() {
        for (name, path) in [("chain", &certificate.chain), ("key", &certificate.key)] {
            if report.production() && path.replace('\\', "/").contains("certs/dev") {
                report.error(
                    &format!("tls.certificates[{i}].{name}"),
                    "a development certificate is refused in production",
                    "name the files of a certificate that your clients trust",
                );
            }
        }
    }
    listener::TlsPolicy {
        certificates: raw.certificates.iter().map(certificate).collect(),
        min_version: match raw.min_version {
            raw::TlsVersion::Tls12 => listener::TlsVersion::Tls12,
            raw::TlsVersion::Tls13 => listener::TlsVersion::Tls13,
        },
    }
}

fn certificate(raw: &raw::Certificate) -> listener::CertificateFiles {
    listener::CertificateFiles {
        chain: PathBuf::from(&raw.chain),
        key: PathBuf::from(&raw.key),
    }
}

fn per_ip(key: &str, per_ip: u64, all: u64, report: &mut Report<'_>) {
    if per_ip > all {
        report.error(
            &format!("{key}.connections_per_ip_max"),
            format!(
                "{per_ip} is more than connections_max ({all}): one client could take them all"
            ),
            "",
        );
    }
}

pub(super) fn guard(raw: &raw::Guard, report: &mut Report<'_>) -> Option<guard::Policy> {
    let hops = networks("guard.trusted_hops", &raw.trusted_hops, report);
    for (i, text) in raw.trusted_hops.iter().enumerate() {
        if text.parse::<IpNet>().is_ok_and(|hop| hop.prefix_len() == 0) {
            report.error(
                &format!("guard.trusted_hops[{i}]"),
                "believes everybody: any client could name any address as its own",
                "name the networks of your load balancers",
            );
        }
    }
    Some(guard::Policy {
        target_bytes_max: size(raw.target_bytes_max),
        header_bytes_max: size(raw.header_bytes_max),
        header_count_max: size(raw.header_count_max),
        trusted_hops: hops?,
    })
}

/// Networks; a single address counts as a network of one.
fn networks(key: &str, raw: &[String], report: &mut Report<'_>) -> Option<Vec<IpNet>> {
    let expected = "a network, e.g. `10.0.0.0/8` or `2001:db8::/32`";
    let one = |(i, text): (usize, &String)| {
        let text = text.trim();
        let single = text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
        match single {
            Some(net) => Some(net),
            None => report.parse(&format!("{key}[{i}]"), text, expected),
        }
    };
    // Collected before it is judged, so that every bad one is reported.
    let parsed: Vec<_> = raw.iter().enumerate().map(one).collect();
    parsed.into_iter().collect()
}

pub(super) fn cors(raw: &raw::Cors, report: &mut Report<'_>) -> Cors {
    for (i, origin) in raw.origins.iter().enumerate() {
        let key = format!("cors.origins[{i}]");
        // The list may come from one variable, which has one place for all.
        if let Err((message, hint)) = origin_allowed(origin, report.production()) {
            report.error(&key, message, hint);
        }
    }
    Cors {
        origins: raw.origins.clone(),
        max_age_s: raw.max_age_s,
    }
}

fn origin_allowed(origin: &str, production: bool) -> Result<(), (String, &'static str)> {
    let example = "write e.g. https://app.example";
    if origin == "*" {
        let message = "`*` lets every site read answers with a user's credentials";
        return Err((message.into(), "list the exact origins"));
    }
    if origin.ends_with('/') {
        let message = format!("`{origin}` ends with a slash, and no browser sends one");
        return Err((message, "remove the slash"));
    }
    let uri = origin.parse::<http::Uri>().ok();
    let parts = uri
        .as_ref()
        .and_then(|u| Some((u.scheme_str()?, u.authority()?)));
    let Some((scheme, authority)) = parts else {
        return Err((format!("`{origin}` is not an origin"), example));
    };
    if format!("{scheme}://{authority}") != *origin || origin.contains(['*', '@', ' ']) {
        let message = format!("`{origin}` is more than scheme, host and port, or has a wildcard");
        return Err((message, example));
    }
    if origin.to_ascii_lowercase() != *origin {
        return Err((
            format!("`{origin}` has capitals, and browsers send none"),
            "lower-case it",
        ));
    }
    match scheme {
        "https" => Ok(()),
        "http" if !production => Ok(()),
        "http" => Err((
            format!("`{origin}` is not https, which production refuses"),
            example,
        )),
        _ => Err((format!("`{origin}` is not http or https"), example)),
    }
}

pub(super) fn drain(raw: &raw::Drain, report: &mut Report<'_>) -> Drain {
    if raw.streams_window_ms > raw.timeout_ms {
        report.error(
            "drain.streams_window_ms",
            format!(
                "{} is longer than drain.timeout_ms ({}): the last streams would be cut, not closed",
                raw.streams_window_ms, raw.timeout_ms
            ),
            "",
        );
    }
    Drain {
        announce_ms: raw.announce_ms,
        streams_window_ms: raw.streams_window_ms,
        timeout_ms: raw.timeout_ms,
    }
}

pub(super) fn log(raw: &raw::Log, report: &mut Report<'_>) -> Log {
    if let Err(e) = tracing_subscriber::EnvFilter::try_new(&raw.level) {
        report.error("log.level", format!("`{}`: {e}", raw.level), "e.g. `info`");
    }
    Log {
        level: raw.level.clone(),
        format: match raw.format {
            raw::LogFormat::Json => LogFormat::Json,
            raw::LogFormat::Pretty => LogFormat::Pretty,
        },
    }
}

/// `Some(None)` = the API runs elsewhere.
pub(super) fn embedded_api(
    raw: &raw::EmbeddedApi,
    report: &mut Report<'_>,
) -> Option<Option<EmbeddedApi>> {
    if raw.danger_seed_demo && report.production() {
        report.error(
            "embedded_api.danger_seed_demo",
            "accounts with known passwords are refused in production",
            "set it to false",
        );
    }
    if !raw.enabled {
        return Some(None);
    }
    let key = "embedded_api.listen";
    let listen: SocketAddr = report.parse(key, &raw.listen, ADDRESS)?;
    if !listen.ip().is_loopback() {
        report.error(
            key,
            "the embedded API must not be reachable past the edge",
            "use a loopback address, e.g. 127.0.0.1:8081",
        );
    }
    Some(Some(EmbeddedApi {
        listen,
        database_url: raw.database_url.clone(),
        seed_demo: raw.danger_seed_demo,
    }))
}

pub(super) fn threads(raw: &raw::Server) -> usize {
    match usize::try_from(raw.threads) {
        Ok(0) | Err(_) => std::thread::available_parallelism().map_or(1, usize::from),
        Ok(n) => n,
    }
}

/// What is accepted and yet not what its author may expect.
pub(super) fn notices(file: &raw::File, report: &mut Report<'_>) {
    if file.telemetry.tracing {
        report
            .notices
            .push("telemetry.tracing is on, but this version does not export traces yet".into());
    }
    if !file.webhooks.signature_required {
        if report.production() {
            report.error(
                "webhooks.signature_required",
                "unsigned webhooks are refused in production",
                "remove the key, or unset WH_SIGNATURE_REQUIRED",
            );
        } else {
            report.notices.push(
                "webhooks.signature_required is false, but this version verifies every webhook all \
                 the same; `maitred sign` makes one that passes"
                    .into(),
            );
        }
    }
}

/// The schema bounds every size far below what `usize` holds.
fn size(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
