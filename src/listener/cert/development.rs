//! Certificates for a developer's machine: an authority to trust once and a server certificate, made
//! when missing and kept while good. Never used in production, where `config` refuses it.
//!
//! The authority's key is thrown away after the one signature, so trusting `ca.pem` lets nobody sign
//! anything else.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use super::{CertError, CertStore};
use crate::kernel::clock::UnixMs;
use crate::listener::{CertificateFiles, TlsPolicy, TlsVersion};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Browsers take no server certificate that lives longer than 398 days.
const VALID_FOR: Duration = Duration::from_secs(365 * DAY.as_secs());
/// With less than this left, a new one is made.
const LEFT_AT_LEAST: Duration = Duration::from_secs(7 * DAY.as_secs());
const ALWAYS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Makes sure that `dir` holds `ca.pem`, `server.pem` and `server.key` for `localhost`, the loopback
/// addresses and `names`, and gives the policy that serves them.
pub fn ensure_development(dir: &Path, names: &[&str], now: UnixMs) -> Result<TlsPolicy, CertError> {
    let policy = TlsPolicy {
        certificates: vec![CertificateFiles {
            chain: dir.join("server.pem"),
            key: dir.join("server.key"),
        }],
        min_version: TlsVersion::Tls12,
    };
    let mut wanted: Vec<&str> = ALWAYS.to_vec();
    wanted.extend(names.iter().filter(|name| !ALWAYS.contains(name)));
    if !is_good(dir, &policy, &wanted, now) {
        let made = make(&wanted, now).map_err(|error| {
            let hint = "development names must be host names or addresses";
            CertError::one(dir, error.to_string(), hint)
        })?;
        write_all(dir, &made).map_err(|error| {
            let hint = "the directory must be writable, or configure certificates of your own";
            CertError::one(dir, format!("cannot write certificates: {error}"), hint)
        })?;
    }
    CertStore::load(&policy)?;
    Ok(policy)
}

fn is_good(dir: &Path, policy: &TlsPolicy, wanted: &[&str], now: UnixMs) -> bool {
    let Ok(store) = CertStore::load(policy) else {
        return false;
    };
    let names = store.expiries();
    let serves = |name: &&str| {
        names.iter().any(|(have, until)| {
            have.eq_ignore_ascii_case(name) && *until > now.plus(LEFT_AT_LEAST)
        })
    };
    dir.join("ca.pem").is_file() && wanted.iter().all(serves)
}

struct Made {
    authority: String,
    chain: String,
    key: String,
}

fn make(names: &[&str], now: UnixMs) -> Result<Made, rcgen::Error> {
    let seconds = u64::try_from(now.seconds()).unwrap_or(0);
    let today = date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);

    let mut authority = CertificateParams::default();
    authority
        .distinguished_name
        .push(DnType::CommonName, "maitred development authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // A day of slack for clocks that differ.
    authority.not_before = today - DAY;
    authority.not_after = today + VALID_FOR;
    let authority_key = KeyPair::generate()?;
    let authority_certificate = authority.self_signed(&authority_key)?;

    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut server = CertificateParams::new(names)?;
    server
        .distinguished_name
        .push(DnType::CommonName, "maitred development server");
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    server.not_before = today - DAY;
    server.not_after = today + VALID_FOR;
    let key = KeyPair::generate()?;
    let signed = server.signed_by(&key, &Issuer::new(authority, authority_key))?;
    Ok(Made {
        authority: authority_certificate.pem(),
        chain: signed.pem(),
        key: key.serialize_pem(),
    })
}

fn write_all(dir: &Path, made: &Made) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    write(&dir.join("ca.pem"), &made.authority, 0o644)?;
    write(&dir.join("server.pem"), &made.chain, 0o644)?;
    write(&dir.join("server.key"), &made.key, 0o600)
}

/// Beside the target first and then renamed over it: a key is never readable by others, not even for
/// a moment, and a crash leaves no half-written file.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)
}
