//! Certificates: from PEM files to what a handshake signs with, by server name. Decides whether a
//! set of files is usable as a whole and says everything that is wrong with it at once. Does not
//! watch files and does not judge expiry; it says when, and others warn.

mod development;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureScheme};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CertificateFiles, TlsPolicy};
use crate::kernel::clock::UnixMs;

pub use development::ensure_development;

/// All that is wrong with a set of certificates.
#[derive(Debug, thiserror::Error)]
pub struct CertError {
    pub problems: Vec<Problem>,
}

/// One thing that is wrong, where, and what would mend it.
#[derive(Debug)]
pub struct Problem {
    pub file: PathBuf,
    pub what: String,
    pub hint: &'static str,
}

/// Certificates by server name. Built whole or not at all.
#[derive(Debug)]
pub struct CertStore {
    /// Host names and `*.` names, in lower case; several where a name has keys of several kinds.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    default: Arc<CertifiedKey>,
    leaves: Vec<Leaf>,
}

/// What a leaf certificate says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Leaf {
    /// DNS names and addresses from the SAN extension.
    pub names: Vec<String>,
    pub expires_at: UnixMs,
    /// Hex, to tell one certificate from its successor.
    pub serial: String,
}

impl CertStore {
    /// Reads every pair of files. The first pair answers where no name matches.
    pub fn load(policy: &TlsPolicy) -> Result<Self, CertError> {
        let mut problems = Vec::new();
        let mut loaded = Vec::new();
        for files in &policy.certificates {
            match load_pair(files) {
                Ok(pair) => loaded.push(pair),
                Err(mut found) => problems.append(&mut found),
            }
        }
        match loaded.first() {
            Some((key, _)) if problems.is_empty() => Ok(Self::of(key.clone(), loaded)),
            Some(_) => Err(CertError { problems }),
            None if problems.is_empty() => Err(CertError::one(
                Path::new(""),
                "no certificate is configured",
                "name at least one chain and key",
            )),
            None => Err(CertError { problems }),
        }
    }

    /// Every name with the moment its certificate ends; where a name has several, the earliest.
    #[must_use]
    pub fn expiries(&self) -> Vec<(String, UnixMs)> {
        let mut earliest = BTreeMap::new();
        for leaf in &self.leaves {
            for name in &leaf.names {
                let at = earliest.entry(name.clone()).or_insert(leaf.expires_at);
                *at = leaf.expires_at.min(*at);
            }
        }
        earliest.into_iter().collect()
    }

    /// The leaf certificates, in the order of the configuration.
    #[must_use]
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    fn of(default: Arc<CertifiedKey>, loaded: Vec<(Arc<CertifiedKey>, Leaf)>) -> Self {
        let mut by_name: HashMap<String, Vec<Arc<CertifiedKey>>> = HashMap::new();
        let mut leaves = Vec::with_capacity(loaded.len());
        for (key, leaf) in loaded {
            for name in &leaf.names {
                by_name.entry(name.clone()).or_default().push(key.clone());
            }
            leaves.push(leaf);
        }
        Self {
            by_name,
            default,
            leaves,
        }
    }

    /// Whether one certificate stands for both names, so that a connection opened for the first may
    /// carry requests for the second (RFC 9110, section 7.4).
    #[must_use]
    pub fn same_leaf(&self, one: &str, other: &str) -> bool {
        let covers =
            |leaf: &Leaf, name: &str| leaf.names.iter().any(|known| matches_name(known, name));
        self.leaves
            .iter()
            .any(|leaf| covers(leaf, one) && covers(leaf, other))
    }

    fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Arc<CertifiedKey> {
        let Some(name) = name.map(str::to_ascii_lowercase) else {
            return self.default.clone();
        };
        // RFC 6125: a wildcard stands for exactly one label.
        let wildcard = || {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        };
        let Some(keys) = self.by_name.get(&name).or_else(wildcard) else {
            return self.default.clone();
        };
        keys.iter()
            .find(|key| key.key.choose_scheme(schemes).is_some())
            .or(keys.first())
            .unwrap_or(&self.default)
            .clone()
    }
}

/// RFC 6125: a wildcard stands for exactly one label.
fn matches_name(known: &str, name: &str) -> bool {
    match known.strip_prefix("*.") {
        Some(parent) => name.split_once('.').is_some_and(|(_, rest)| rest == parent),
        None => known == name,
    }
}

/// Answers handshakes from the store that is current at that moment.
#[derive(Debug)]
pub struct SniResolver(pub Arc<ArcSwap<CertStore>>);

impl ResolvesServerCert for SniResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let store = self.0.load();
        Some(store.find(hello.server_name(), hello.signature_schemes()))
    }
}

type Loaded = (Arc<CertifiedKey>, Leaf);

fn load_pair(files: &CertificateFiles) -> Result<Loaded, Vec<Problem>> {
    let chain = load_chain(&files.chain);
    let key = load_key(&files.key);
    let (chain, key) = match (chain, key) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err([chain.err(), key.err()].into_iter().flatten().collect()),
    };
    let leaf = chain
        .first()
        .ok_or("the file holds no certificate".to_owned())
        .and_then(|leaf| read_leaf(leaf))
        .map_err(|what| {
            let hint = "issue a certificate with a subjectAltName; put the leaf first";
            vec![Problem::new(&files.chain, what, hint)]
        })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // A key that cannot say its public half cannot be compared; the handshake will tell.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
            Ok((Arc::new(certified), leaf))
        }
        Err(_) => Err(vec![Problem::new(
            &files.key,
            format!("the key does not belong to {}", files.chain.display()),
            "write chain and key of the same issue; the leaf comes first in the chain",
        )]),
    }
}

fn load_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let pem = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(Problem::new(
            path,
            "the file holds no certificate".to_owned(),
            "it needs CERTIFICATE blocks in PEM, the leaf first",
        )),
        Err(error) => Err(Problem::new(
            path,
            format!("the file is not PEM: {error}"),
            "it needs CERTIFICATE blocks in PEM, the leaf first",
        )),
    }
}

fn load_key(path: &Path) -> Result<Arc<dyn rustls::sign::SigningKey>, Problem> {
    const HINT: &str = "it needs one unencrypted PRIVATE KEY block in PEM: ECDSA P-256 or P-384, \
                        RSA from 2048 bits, or Ed25519";
    let pem = zeroize::Zeroizing::new(read(path)?);
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| Problem::new(path, format!("no private key was found: {error}"), HINT))?;
    any_supported_type(&key)
        .map_err(|error| Problem::new(path, format!("the key cannot be used: {error}"), HINT))
}

fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    std::fs::read(path).map_err(|error| {
        let hint = "check the path and that the process may read the file";
        Problem::new(path, format!("the file cannot be read: {error}"), hint)
    })
}

fn read_leaf(der: &CertificateDer<'_>) -> Result<Leaf, String> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| format!("not a certificate: {error}"))?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| format!("the subjectAltName cannot be read: {error}"))?
        .map(|san| {
            let names = san.value.general_names.iter();
            names.filter_map(name_of).collect::<Vec<_>>()
        })
        .unwrap_or_default();
    if names.is_empty() {
        return Err("the leaf names no host, so no client would accept it".to_owned());
    }
    let seconds = certificate.validity().not_after.timestamp();
    Ok(Leaf {
        names,
        expires_at: UnixMs(seconds.saturating_mul(1000)),
        serial: hex::encode(certificate.raw_serial()),
    })
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(name) = name {
        return Some(name.to_ascii_lowercase());
    }
    let GeneralName::IPAddress(bytes) = name else {
        return None;
    };
    let v4 = || <[u8; 4]>::try_from(*bytes).map(IpAddr::from).ok();
    let v6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from).ok();
    v4().or_else(v6).map(|address| address.to_string())
}

impl Problem {
    fn new(file: &Path, what: impl Into<String>, hint: &'static str) -> Self {
        Self {
            file: file.to_owned(),
            what: what.into(),
            hint,
        }
    }
}

impl CertError {
    fn one(file: &Path, what: impl Into<String>, hint: &'static str) -> Self {
        Self {
            problems: vec![Problem::new(file, what, hint)],
        }
    }

    /// The cryptography itself refused; not a matter of files.
    pub(super) fn provider(error: rustls::Error) -> Self {
        let hint = "this is a fault of the build or of the system's randomness";
        Self::one(Path::new(""), error.to_string(), hint)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, what, hint } = self;
        if file.as_os_str().is_empty() {
            return write!(f, "{what} ({hint})");
        }
        write!(f, "{}: {what} ({hint})", file.display())
    }
}

impl fmt::Display for CertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
