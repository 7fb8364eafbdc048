//! Certificates on disk: what is refused, with which words, and what is kept.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::{CertStore, ensure_development};
use crate::kernel::clock::{Clock, UnixMs};
use crate::listener::tests::Scratch;
use crate::listener::{CertificateFiles, TlsPolicy, TlsVersion};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn now() -> UnixMs {
    Clock::system().unix()
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let scratch = Scratch::new();
    scratch.certificate("a", &[]);
    scratch.certificate("b", &[]);
    let dir = scratch.path();
    std::fs::write(dir.join("empty.pem"), "").unwrap();
    std::fs::write(dir.join("noise.pem"), "-----BEGIN CERTIFICATE-----\nno").unwrap();
    let pair = |chain: &str, key: &str| CertificateFiles {
        chain: dir.join(chain),
        key: dir.join(key),
    };
    let policy = TlsPolicy {
        certificates: vec![
            pair("a/server.pem", "a/server.key"),
            pair("a/server.pem", "b/server.key"),
            pair("missing.pem", "empty.pem"),
            pair("noise.pem", "a/server.key"),
            pair("a/server.key", "a/server.pem"),
        ],
        min_version: TlsVersion::Tls12,
    };
    let error = CertStore::load(&policy).unwrap_err();
    let wrong: Vec<_> = error
        .problems
        .iter()
        .map(|problem| problem.file.strip_prefix(dir).unwrap().to_str().unwrap())
        .collect();
    let expected = [
        "b/server.key",
        "missing.pem",
        "empty.pem",
        "noise.pem",
        "a/server.key",
        "a/server.pem",
    ];
    assert_eq!(wrong, expected, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("does not belong to") && text.contains("cannot be read"),
        "{text}"
    );
    assert!(!text.contains("PRIVATE KEY-----"), "{text}");
}

#[test]
fn no_certificate_at_all_is_an_error() {
    let policy = TlsPolicy {
        certificates: Vec::new(),
        min_version: TlsVersion::Tls12,
    };
    let error = CertStore::load(&policy).unwrap_err().to_string();
    assert!(error.contains("no certificate"), "{error}");
}

#[test]
fn a_development_certificate_is_kept_while_it_is_good() {
    let scratch = Scratch::new();
    let dir = scratch.path().join("dev");
    let serial = |policy: &TlsPolicy| {
        let store = CertStore::load(policy).unwrap();
        store.leaves()[0].serial.clone()
    };
    let first = serial(&ensure_development(&dir, &["app.test"], now()).unwrap());
    let again = ensure_development(&dir, &["app.test"], now()).unwrap();
    assert_eq!(serial(&again), first);
    assert_eq!(
        serial(&ensure_development(&dir, &[], now()).unwrap()),
        first
    );

    // Another name is wanted, then the year is nearly over, then the authority is gone.
    let named = serial(&ensure_development(&dir, &["other.test"], now()).unwrap());
    assert_ne!(named, first);
    let late = now().plus(DAY * 360);
    let renewed = serial(&ensure_development(&dir, &["other.test"], late).unwrap());
    assert_ne!(renewed, named);
    std::fs::remove_file(dir.join("ca.pem")).unwrap();
    assert_ne!(
        serial(&ensure_development(&dir, &[], late).unwrap()),
        renewed
    );
}

#[test]
fn a_development_key_is_its_owners_alone_and_the_names_are_there() {
    let scratch = Scratch::new();
    let policy = ensure_development(&scratch.path().join("dev"), &["app.test"], now()).unwrap();
    let key = std::fs::metadata(&policy.certificates[0].key).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);

    let expiries = CertStore::load(&policy).unwrap().expiries();
    let names: Vec<_> = expiries.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["127.0.0.1", "::1", "app.test", "localhost"]);
    let left = |until: &UnixMs| until.0 - now().0;
    let year = i64::try_from((DAY * 365).as_millis()).unwrap();
    assert!(
        expiries
            .iter()
            .all(|(_, until)| (year - 60_000..=year).contains(&left(until)))
    );
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let scratch = Scratch::new();
    let file = scratch.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = ensure_development(&file.join("dev"), &[], now()).unwrap_err();
    assert!(
        error.to_string().contains("cannot write certificates"),
        "{error}"
    );
}
